"""Processes that share a job give the tables of one."""

import os
import shutil
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import multiprocessing

from src.artifacts.record import job_record
from src.config.attack_settings import SavedSettings
from src.run.data import DataSets
from tests.conftest import ATTACK, TINY_RUN, free_port, kill_at, own_attack, run_python, same_tables

JOB = ["attack=pgd", "attack.steps=3", "controls=true", "attack.target_label=random"]
JOB += ["save_adversarial=true", "diagnostics=full", "tracking=mlflow"]
JOB += ["diagnostics.n_images=21", "defences=[none,jpeg,random_resize_pad]"]
JOB += ["defence.random_resize_pad.repeats=2", "epsilon.grid=[1.5,8]"]
JOB += ["measurements={changes: {_target_: tests.own_measurement.Changes}}"]
JOB += ["report.examples=3", "++model.coarse.feature_layer='0'"]
DDP = ["trainer.strategy=ddp", "hydra.run.dir=many"]
BOTH = Path("one"), Path("many")
PREDICTIONS = ["predictions", "predictions-noise", "predictions-shuffled"]
DIAGNOSTICS = ["spectra", "filtered", "low_passed", "similarity", "changes"]


def as_torchrun(number, count, port, run_job, words):
    """Run a command as one of the processes that torchrun has started."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT")
    values = (number, number, count, count, 0, port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="x")
    rank_zero_only.rank = number  # read from the environment when Lightning was imported
    assert run_job(*words) == 0


def started_by_torchrun(run_job, words, count, function=as_torchrun):
    arguments = (count, free_port(), run_job, words)
    multiprocessing.start_processes(function, arguments, nprocs=count, start_method="fork")


def started_by_lightning(run_job, words, count):
    run_python("-m", "src.main", *TINY_RUN, *words, folder=Path.cwd())
    assert Path("many", f"train_ddp_process_{count - 1}.log").exists()  # there were so many


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "count"),
    [(started_by_torchrun, 2), (started_by_torchrun, 3), (started_by_lightning, 2)],
)
def test_several_processes_equal_one(workspace, empty_store, run_job, start, count):
    shutil.copytree(empty_store, workspace / "mlruns")
    words = [*JOB, "trainer.batch_size=9"]  # of 23 images: three batches of 6 and one of 5
    start(run_job, [*words, *DDP, f"trainer.devices={count}"], count)
    assert run_job(*words, "hydra.run.dir=one") == 0
    same_tables(*BOTH, [*PREDICTIONS, *DIAGNOSTICS])  # batches are dealt whole
    folders = [str(workspace / name / "adversarial") for name in ("one", "many")]
    sets = [DataSets().open_saved(SavedSettings(path=folder)) for folder in folders]
    assert sets[0].digest == sets[1].digest
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    number = store.get_experiment_by_name("cifar10_mini-sweeps").experiment_id
    assert len(store.search_runs([number])) == 1 + 2  # the job's, and two sweeps


@pytest.mark.slow
def test_processes_agree_on_an_ensembles_features(workspace, run_job):
    words = ["attack=fia", "attack.masks=3", "source=[coarse,fine]", "attack.layer=['0','2']"]
    words += ["trainer.batch_size=9"]
    started_by_torchrun(run_job, [*words, *DDP, "trainer.devices=2"], 2)
    assert run_job(*words, "hydra.run.dir=one") == 0
    same_tables(*BOTH, ["predictions"])


def test_processes_started_elsewhere_must_agree_on_a_folder(run_job, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_job("trainer.strategy=ddp", "trainer.devices=2") == 1
    assert "hydra.run.dir=outputs/NAME" in capsys.readouterr().out


def killed_as_torchrun(number, *arguments):
    """Be killed, as the second process, when the third batch of images is to be attacked."""
    if number == 1:
        kill_at(ATTACK, 3)
    as_torchrun(number, *arguments)


@pytest.mark.slow
def test_a_killed_job_goes_on_in_another_number_of_processes(workspace, run_job):
    words = ["attack=pgd", "attack.steps=3", "controls=true", "trainer.batch_size=3"]
    assert run_job(*words, "hydra.run.dir=one", "cache.dir=other") == 0
    many = [*words, *DDP, "rerun=false"]
    with pytest.raises(multiprocessing.ProcessExitedException, match="SIGKILL"):
        begun = [*many, "trainer.devices=2"]
        started_by_torchrun(run_job, begun, 2, killed_as_torchrun)
    assert list((workspace / "cache").glob("rows-*/*/*/*.parquet"))
    started_by_torchrun(run_job, [*many, "trainer.devices=3"], 3)
    same_tables(*BOTH, PREDICTIONS)


CRAMPED = """import os, torch
from src.attacks import fgsm

def cramped(model, images, labels, eps, seeds, room=2):
    if os.environ.get("LOCAL_RANK") == "1" and len(images) > room:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return fgsm(model, images, labels, eps)
"""


@pytest.mark.slow
def test_if_one_process_runs_out_of_memory_all_halve_their_batches(workspace, run_job):
    own_attack(workspace, "cramped", "_target_: cramped_code.cramped", CRAMPED)
    words = ["attack=cramped", "n_images=40", "controls=true"]
    many = [*words, "trainer.batch_size=4", *DDP, "trainer.devices=2"]  # five batches each
    started_by_torchrun(run_job, many, 2)
    assert run_job(*words, "trainer.batch_size=2", "hydra.run.dir=one") == 0
    same_tables(*BOTH, PREDICTIONS)
    assert job_record(Path("many")).config["trainer"]["batch_size"] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:It is recommended to use .self.log")  # if the first one trains
def test_processes_without_a_batch_have_nothing_to_do(workspace, run_job):
    words = ["attack=fgsm", "n_images=4", "trainer.batch_size=auto", "model.fine.weights=null"]
    words += ["training.epochs=1", "dataset.n_train=20"]  # of a target, by one of the processes
    started_by_torchrun(run_job, [*words, *DDP, "trainer.devices=3"], 3)
    assert pq.read_table("many/predictions.parquet").num_rows == 4 * 2 * 3
    text = "1 of 3 processes have no work: 4 images are 2 batches"
    assert Path("many/main.log").read_text().count(text) == 1
