"""Whole runs with two tiny models: what they print, write and track."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from src import load_sweep
from tests.conftest import own_attack

FRESH = ["model.coarse.weights=null", "dataset.n_train=100"]
FRESH += ["dataset.n_test=100", "training.epochs=2", "training.batch_size=50"]


def runs(store: mlflow.MlflowClient, experiment: str, kind: str) -> list:
    found = store.get_experiment_by_name(experiment)
    return list(store.search_runs([found.experiment_id], f"tags.kind = '{kind}'"))


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


@pytest.fixture
def store(workspace, empty_store) -> mlflow.MlflowClient:
    shutil.copytree(empty_store, workspace / "mlruns")
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")


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
    (pair,) = runs(store, "cifar10_mini", "pair")
    assert run.data.tags["weights"] == pair.data.tags["target_weights"]
    (artifact,) = store.list_artifacts(run.info.run_id)
    assert (artifact.path, artifact.file_size) == (trained.name, trained.stat().st_size)

    assert run_job(*words, "seed=3") == 0  # other images, the same weights
    assert trained.stat().st_mtime_ns == stamp
    assert run_job(*words, "training.seed=1") == 0
    assert len(list(checkpoints.glob("*.safetensors"))) == 2


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


def test_attacks_of_two_names_are_two_rows_and_a_repeated_job_is_named(run_job, workspace, capsys):
    own_attack(workspace, "copy", "defaults: [fgsm, _self_]")
    words = ["rerun=false", "hydra.sweep.dir=out"]
    assert run_job("-m", "attack=fgsm,copy,fgsm", "n_images=20", *words) == 0
    jobs = load_sweep(workspace / "out").jobs
    assert [job.attack for job in jobs] == ["fgsm", "copy"] and jobs[1].record.gradients == 0
    assert "copy" in (workspace / "out" / "summary.txt").read_text()
    printed = capsys.readouterr().out
    assert "2-fgsm-coarse repeats out/0" in printed and "copy repeats" not in printed


NOTED = """
from src.attacks import fgsm
def noted(model, images, labels, eps, size: {"a": 1} = 1, kind: 3 = 1, share: "in [0, 1]" = 1):
    return fgsm(model, images, labels, eps * share * size * kind)
noted.all_budgets = True
"""


def test_annotations_of_an_attack_may_be_no_types(run_job, workspace):
    keys = "_target_: noted_code.noted\nsize: 1\nkind: 1\nshare: 0.5"
    own_attack(workspace, "noted", keys, NOTED)
    assert run_job("attack=noted", "n_images=20") == 0


def test_a_failed_job_leaves_the_others_alone(run_job, workspace, store, capsys):
    wanted = ["model.fine.expected_accuracy=0.999", "clean_accuracy_check.tolerance=0.0001"]
    words = ["clean_accuracy_check.action=stop,warn", "tracking=mlflow"]
    assert run_job("-m", *words, *wanted) == 1
    printed = capsys.readouterr().out
    assert "FAILED 0-fgsm-coarse: model fine: " in printed
    assert printed.count("99.90%") == 2  # the other job warns
    assert [*workspace.glob("outputs/*/1-fgsm-coarse/predictions.parquet")]
    jobs = runs(store, "cifar10_mini-sweeps", "job")
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FINISHED"]
    assert [run.info.status for run in runs(store, "cifar10_mini-sweeps", "sweep")] == ["FAILED"]
    (failed,) = [run for run in jobs if run.info.status == "FAILED"]
    assert "clean accuracy" in failed.data.tags["error"]
