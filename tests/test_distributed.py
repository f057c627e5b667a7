"""Two processes that share a job give the tables of one."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import multiprocessing

from src.config.settings import SavedSettings
from src.evaluation import open_saved_images

REPOSITORY = Path(__file__).resolve().parents[1]
JOB = ["attack=pgd", "attack.steps=3", "controls=true", "attack.target_label=random"]
JOB += ["save_adversarial=true", "diagnostics=full", "diagnostics.bisection=2", "tracking=mlflow"]
JOB += ["diagnostics.n_images=21"]
DDP = ["trainer.strategy=ddp", "trainer.devices=2", "hydra.run.dir=two"]
DIAGNOSTICS = ["flips", "spectra", "filtered", "low_passed", "similarity"]


def as_torchrun(number, port, command_line, words):
    """Run a command as one of two processes that torchrun has started."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT")
    values = (number, number, 2, 2, 0, port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="x")
    rank_zero_only.rank = number  # read from the environment when Lightning was imported
    assert command_line(*words) == 0


def started_by_torchrun(command_line, tiny_run, words):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (port, command_line, words)
    multiprocessing.start_processes(as_torchrun, arguments, nprocs=2, start_method="fork")


def started_by_lightning(command_line, tiny_run, words):
    two = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "src.main", *tiny_run, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert two.returncode == 0, two.stdout + two.stderr
    assert Path("two", "train_ddp_process_1.log").exists()  # there was a second process


@pytest.mark.parametrize(
    "start", [started_by_torchrun, pytest.param(started_by_lightning, marks=pytest.mark.slow)]
)
def test_two_processes_equal_one(workspace, tiny_run, empty_store, command_line, start):
    shutil.copytree(empty_store, workspace / "mlruns")
    words = [*JOB, "trainer.batch_size=20"]  # of 23 images
    start(command_line, tiny_run, [*words, *DDP])
    assert command_line(*words, "hydra.run.dir=one") == 0
    predictions = ["predictions", "predictions-noise", "predictions-shuffled"]
    for name in [*predictions, *DIAGNOSTICS]:
        one, two = (pq.read_table(f"{folder}/{name}.parquet") for folder in ("one", "two"))
        assert two.equals(one), name  # batches are laid out before they are dealt
        assert len(one) == 23 * 2 * 3 or name not in predictions
    folders = [str(workspace / name / "adversarial") for name in ("one", "two")]
    sets = [open_saved_images(SavedSettings(path=folder)) for folder in folders]
    assert sets[0].digest == sets[1].digest
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    for experiment in ("photos", "photos-sweeps"):
        number = store.get_experiment_by_name(experiment).experiment_id
        assert len(store.search_runs([number])) == 4  # no run was written twice
