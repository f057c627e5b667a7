"""Whole runs with two tiny models: what they print, write and track."""

import json
import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from src.artifacts.record import job_record
from src.data.cifar10_mini import CLASSES
from src.images.attacker import Attacker
from tests.conftest import own_attack

FRESH = ["model.coarse.weights=null", "dataset.n_train=100"]
FRESH += ["dataset.n_test=100", "training.epochs=2", "training.batch_size=50"]


def runs(store: mlflow.MlflowClient, experiment: str, kind: str) -> list:
    found = store.get_experiment_by_name(experiment)
    return list(store.search_runs([found.experiment_id], f"tags.kind = '{kind}'"))


def output(workspace: Path) -> Path:
    (folder,) = (workspace / "outputs").iterdir()
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


@pytest.fixture
def store(workspace, empty_store) -> mlflow.MlflowClient:
    shutil.copytree(empty_store, workspace / "mlruns")
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")


@pytest.mark.slow
def test_a_sweep_leaves_files_and_runs(workspace, run_job, printed_by, store):
    words = ["-m", "attack=fgsm,bim", "source=coarse,[coarse,fine]", "controls=true"]
    code, printed = printed_by(run_job, *words, "ensemble=loss", "tracking=mlflow")
    assert code == 0
    rows = [line.partition(":")[0] for line in printed.splitlines() if line.startswith("job ")]
    assert rows == [f"job {n} of 4" for n in (1, 2, 3, 4)]
    folder = output(workspace)
    for job in ("0-fgsm-coarse", "1-bim-coarse", "2-fgsm-coarse+fine", "3-bim-coarse+fine"):
        noise = pd.read_parquet(folder / job / "predictions-noise.parquet")
        for frame in (table(folder / job), noise):
            assert len(frame) == 23 * (2 * 3 + ("+" in job))  # an ensemble is a model of its own
        names = {path.name for path in (folder / job).iterdir()}
        assert {"config.yaml", "rates.csv", "minimum-budgets.csv", "alarms.json"} <= names
    pairs, jobs = runs(store, "cifar10_mini", "pair"), runs(store, "cifar10_mini-sweeps", "job")
    (whole,) = runs(store, "cifar10_mini-sweeps", "sweep")
    sources, targets = ("coarse", "coarse+fine"), ("coarse", "fine")
    names = {f"{a} {s} -> {t}" for a in ("fgsm", "bim") for s in sources for t in targets}
    assert {pair.info.run_name for pair in pairs} == names and len(jobs) == 4
    assert {pair.data.tags["sweep"] for pair in pairs} == {whole.data.tags["sweep"]}
    gradients = {run.info.run_name: run.data.metrics["gradients_per_image"] for run in jobs}
    assert gradients["bim coarse+fine"] == 2 * (1 + 2 * 9)
    for run, files in ((jobs[0], {"config.yaml", "rates.csv"}), (whole, {"attacks.csv"})):
        assert files <= {file.path for file in store.list_artifacts(run.info.run_id)}
    known = {"sources": "coarse, coarse+fine", "attacks": "fgsm, bim", "budgets_255": "0.5, 8"}
    assert known.items() <= whole.data.params.items()
    rates = {pair.info.run_name: pair.data.metrics["success_rate/reference"] for pair in pairs}
    for pair in pairs:
        transfer = " coarse -> fine" in pair.info.run_name
        assert pair.data.tags["white_box"] == ("false" if transfer else "true")
    for metric, value in {
        "transfer_success/bim": rates["bim coarse -> fine"],
        "white_box_success/bim": rates["bim coarse -> coarse"],
        "white_box_success/bim of ensembles": np.mean(
            [rates[f"bim coarse+fine -> {name}"] for name in targets]
        ),
    }.items():
        (point,) = store.get_metric_history(whole.info.run_id, f"{metric}/curve")
        assert (point.step, point.value) == (8, pytest.approx(value))
        assert whole.data.metrics[f"{metric}/reference"] == point.value


def test_training_happens_once_and_is_tracked(run_job, workspace, store):
    words = [*FRESH, "targets=[coarse]"]
    assert run_job(*words, "tracking=mlflow") == 0
    checkpoints = workspace / "cache" / "checkpoints"
    (trained,) = checkpoints.glob("*.safetensors")
    stamp = trained.stat().st_mtime_ns
    assert trained.name.startswith("coarse-") and not list(checkpoints.glob("*.training"))
    (run,) = runs(store, "cifar10_mini-training", "training")
    assert run.data.tags["model"] == "coarse" and run.info.status == "FINISHED"
    history = store.get_metric_history(run.info.run_id, "test_accuracy")
    assert len(history) == 3  # after each epoch, and of all images at the end
    assert run.data.params["evaluate_on"] == "1000" and run.data.params["n_images"] == "None"
    assert not {"attack", "eps", "steps", "clean_share"} & run.data.params.keys()
    assert store.get_metric_history(run.info.run_id, "train_loss")
    (pair,) = runs(store, "cifar10_mini", "pair")
    assert run.data.tags["weights"] == pair.data.tags["target_weights"]
    (artifact,) = store.list_artifacts(run.info.run_id)
    assert (artifact.path, artifact.file_size) == (trained.name, trained.stat().st_size)

    assert run_job(*words, "seed=3") == 0  # other images, the same weights
    assert trained.stat().st_mtime_ns == stamp
    assert run_job(*words, "training.seed=1") == 0
    assert len(list(checkpoints.glob("*.safetensors"))) == 2


MIRROR = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Mirror:
    copies: int = 2

    def __call__(self, images, draws, copy):
        return images.flip(-1) if copy else images
"""


def test_a_transform_of_ones_own_shows_its_copies(run_job, workspace, capsys):
    text = "defaults: [mi, _self_]\ntransforms: [{_target_: mirror_code.Mirror}]"
    own_attack(workspace, "mirror", text, MIRROR)
    assert run_job("attack=mirror") == 0
    gradients = 2 * (1 + 2 * 9)  # a step that all budgets share, and nine of each
    assert f"mirror coarse, {gradients} gradients per image" in capsys.readouterr().out


@pytest.mark.slow
def test_feature_attacks_are_of_a_layer(run_job, workspace, capsys):
    layers = [f"++model.{name}.feature_layer='0'" for name in ("coarse", "fine")]
    last = "++model.coarse.feature_layer='2'"
    both, few = "source=[coarse,fine]", ["rerun=false", "attack.masks=3", "attack.steps=2"]
    for layer, *words in (
        ("0", layers[0]),
        ("2", last),
        ("0", "attack.layer='0'", last),
        ("0+0", both, *layers),
        ("2+0", both, *layers, "attack.layer=['2','0']", "ensemble=loss"),
    ):
        assert run_job("attack=fia", *few, *words, "hydra.run.dir=out") == 0
        record = job_record(workspace / "out")
        assert (record.layer, record.backward_rule) == (layer, "")
        assert record.gradients == 23 * (3 + 1 + 2) * (1 + ("+" in record.source))
    assert run_job("attack=fia") == run_job("attack=fia", both, "attack.layer=['0']") == 1
    printed = "".join(capsys.readouterr())
    assert "attack.layer=null" in printed and "1 layers for 2 ensemble members" in printed


@pytest.mark.slow
def test_images_to_mix_in_do_not_depend_on_the_subset(run_job, workspace):
    words = ["attack=admix", "attack.scales=1", "attack.steps=3", "targets=[fine]"]
    tables = []
    for count in (10, 20):
        assert run_job(*words, f"n_images={count}", f"hydra.run.dir={count}") == 0
        rows = table(workspace / str(count)).query("target == 'fine'")
        tables.append(rows.set_index(["index", "eps_255"])["true_confidence"])
    both = pd.concat(tables, axis=1, join="inner")
    assert len(both) == 10 * 3  # of clean and attacked images
    np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-5)


def test_relative_paths_start_where_the_command_does(run_job, workspace):
    words = ["attack=fgsm", "rerun=false", "targets=[fine]"]
    assert run_job(*words, "hydra.run.dir=plain") == 0
    rows = {*workspace.glob("cache/rows-*/*/*/*.parquet")}
    assert run_job(*words, "hydra.run.dir=moved", "hydra.job.chdir=true") == 0
    assert rows and {*workspace.rglob("cache/rows-*/*/*/*.parquet")} == rows
    pd.testing.assert_frame_equal(*(table(workspace / name) for name in ("plain", "moved")))


@pytest.mark.slow
def test_a_used_folder_does_not_mix_old_jobs_in(run_job, workspace):
    words = ["-m", "hydra.sweep.dir=here", "targets=[fine]"]
    assert run_job(*words, "attack=rfgsm,fgsm", "controls=true") == 0
    os.utime(workspace / "here" / "1-fgsm-coarse" / ".hydra" / "config.yaml", (2**32, 2**32))
    mine = [workspace / "here" / name for name in ("matrix-mine.csv", "mine.svg")]
    for path in mine:
        path.touch()
    assert run_job(*words, "attack=rfgsm") == 0
    assert all(path.exists() for path in mine)  # the user's own
    assert {*pd.read_csv(workspace / "here" / "attacks.csv")["attack"]} == {"rfgsm"}
    left = " ".join(path.name for path in (workspace / "here" / "0-rfgsm-coarse").iterdir())
    assert "predictions.parquet" in left and "noise" not in left and "excess" not in left


def test_a_failed_job_leaves_the_others_alone(run_job, workspace, store, capsys):
    wanted = ["model.fine.expected_accuracy=0.999", "clean_accuracy_check.tolerance=0.0001"]
    words = ["clean_accuracy_check.action=stop,warn", "tracking=mlflow"]
    assert run_job("-m", *words, *wanted) == 1
    printed = capsys.readouterr().out
    assert "FAILED 0-fgsm-coarse: model fine: " in printed
    assert printed.count("99.90%") == 2  # the other job warns
    assert (output(workspace) / "1-fgsm-coarse" / "predictions.parquet").exists()
    jobs = runs(store, "cifar10_mini-sweeps", "job")
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FINISHED"]
    assert [run.info.status for run in runs(store, "cifar10_mini-sweeps", "sweep")] == ["FAILED"]
    (failed,) = [run for run in jobs if run.info.status == "FAILED"]
    assert "clean accuracy" in failed.data.tags["error"]


@pytest.mark.slow
def test_weights_that_state_their_classes_are_for_these(run_job, tiny_weights, capsys):
    listed = f"dataset.class_names={json.dumps(CLASSES[::-1], separators=(',', ':'))}"
    for names, code, named, *more in (
        (CLASSES, 0, "its weights state 99.00%"),
        (CLASSES[::-1], 2, listed),
        (CLASSES[::-1], 0, "", listed),
        (["zebra", *CLASSES[1:]], 2, "model.fine.weights=null"),
    ):
        facts = {"class_names": ",".join(names), "expected_accuracy": "0.99"}
        save_file(load_file(tiny_weights / "fine.safetensors"), "fine.safetensors", facts)
        words = ["source=fine", "targets=[fine]", "model.fine.weights=fine.safetensors"]
        assert run_job(*words, *more) == code
        assert named in " ".join("".join(capsys.readouterr()).split())


def test_a_trial_that_runs_out_of_memory_says_so_in_a_sentence(
    run_job, workspace, capsys, monkeypatch
):
    def full(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Attacker, "__call__", full)
    assert run_job("attack=fgsm", "hydra.run.dir=out") == 1
    printed = capsys.readouterr()
    assert "free memory" in printed.err + printed.out
    assert "Traceback" not in printed.err + printed.out
    assert "free memory" in (workspace / "out" / "error.txt").read_text()


@pytest.mark.slow
def test_a_sweeps_attacks_take_the_settings_that_they_have(run_job, capfd):
    assert run_job("attack=fgsm", "hydra.run.dir=alone") == 0
    capfd.readouterr()
    assert run_job("-m", "attack=fgsm,bim", "attack.steps=3", "hydra.sweep.dir=both") == 0
    assert "attack.steps does not apply to fgsm.\n" in capfd.readouterr().err
    places = ("alone", "both/0-fgsm-coarse", "both/1-bim-coarse")
    alone, fgsm, bim = (job_record(Path(place)) for place in places)
    assert (fgsm.label, bim.label) == ("fgsm", "bim (steps=3)")
    assert (fgsm.crafting, fgsm.config["attack"]) == (alone.crafting, alone.config["attack"])
