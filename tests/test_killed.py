"""Commands that lose their process or their store, and run again: no row and no run differs."""

import os
import shutil
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from itertools import count, product
from pathlib import Path
from pkgutil import resolve_name

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from src import load_sweep, transfer
from tests.conftest import POOLS, killed

SWEEP = ["-m", "attack=fgsm,bim", "n_images=20", "trainer.batch_size=6", "controls=true"]
SWEEP += ["rerun=false", "tracking=mlflow", "model.coarse.weights=null", "training.epochs=2"]
SWEEP += ["training.batch_size=25", "training.precision=32-true", "dataset.n_train=100"]
SWEEP += ["dataset.n_test=40", "hydra.sweep.dir=out"]
TABLES = ("predictions", "predictions-noise", "predictions-shuffled")
FILES = [f"{job}/{name}.parquet" for job in ("0-fgsm-coarse", "1-bim-coarse") for name in TABLES]


@pytest.fixture(scope="module")
def whole(new_workspace, run_tiny, empty_store) -> Path:
    """The sweep's folder after a run that nothing disturbed."""
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")
    assert run_tiny(folder, *SWEEP) == 0
    return folder / "out"


def tracked_wrongly(folder: Path) -> list[str]:
    """Return what is wrong in a store: it has each run once, and the last sweep all of them.

    No run is left open.
    """
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    known = {one.experiment_id: one.name for one in store.search_experiments()}
    every = store.search_runs([key for key, name in known.items() if name != "atonce-sweeps"])
    runs = [(run.data.tags["kind"], run) for run in every]
    sweeps = [run for kind, run in runs if kind == "sweep"]
    last = max(sweeps, key=lambda run: run.info.start_time).data.tags["sweep"]
    counts = Counter(run.info.run_name for kind, run in runs if kind != "sweep")
    wrong = [f"{name} is tracked {n} times" for name, n in counts.items() if n > 1]
    wrong += [f"{kind} is open" for kind, run in runs if run.info.status != "FINISHED"]
    names = [f"{attack} coarse -> {target}" for attack, target in product(("fgsm", "bim"), POOLS)]
    names += ["fgsm coarse", "bim coarse", "train coarse"] if "train coarse" in counts else []
    tagged = {run.info.run_name for _, run in runs if f"sweep.{last}" in run.data.tags}
    return wrong + [f"{name} is not tracked" for name in names if name not in tagged]


def run_until(run, function: str, number: int) -> None:
    """Run a command whose process is killed at a call of a function."""
    place, _, name = function.rpartition(".")
    real, calls = resolve_name(function), count(1)

    def call(*args: object, **words: object) -> object:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **words)

    setattr(resolve_name(place), name, call)
    run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "number"),
    [
        ("src.training.FineTuning.training_step", 6),  # of 8: in the second epoch
        ("os.replace", 20),  # of about 60
        ("mlflow.MlflowClient.log_batch", 5),  # of 8
    ],
)
def test_the_same_command_after_a_kill_leaves_equal_tables_and_each_pair_once(
    run_job, workspace, empty_store, whole, function, number
):
    shutil.copytree(empty_store, workspace / "mlruns")
    run = partial(run_job, *SWEEP)
    killed(partial(run_until, run, function, number))
    assert run() == 0
    for file in FILES:
        assert pq.read_table(workspace / "out" / file).equals(pq.read_table(whole / file)), file
    assert tracked_wrongly(workspace / "mlruns") == []


@pytest.mark.parametrize(
    ("function", "number"),
    [
        pytest.param("os.replace", 12, marks=pytest.mark.slow),  # of a job's first files
        pytest.param("os.replace", 17, marks=pytest.mark.slow),  # of a table
        pytest.param("os.replace", 19, marks=pytest.mark.slow),  # of the predictions
        # of the set of adversarial images
        pytest.param("pathlib.Path.rename", 1, marks=pytest.mark.slow),
        ("pathlib.Path.rename", 2),  # of the new set, when the earlier one has been moved away
    ],
)
def test_a_kill_leaves_nothing_that_stops_the_same_command_or_stays(
    run_job, workspace, function, number
):
    words = ["attack=fgsm", "save_adversarial=true", "n_images=4", "epsilon.grid=[8]"]
    words += ["hydra.run.dir=out"]
    if (function, number) == ("pathlib.Path.rename", 2):
        assert run_job(*words) == 0
    killed(partial(run_until, partial(run_job, *words), function, number))
    left = {path.name for path in (workspace / "out").glob(".*")} - {".hydra", ".running", ".sweep"}
    assert left
    assert run_job(*words) == 0
    assert [path.name for path in (workspace / "out").glob(".*")] == [".hydra"]
    assert len(list((workspace / "out/adversarial").rglob("*.png"))) == 4 * 2
    assert len(load_sweep(workspace / "out")["index"].unique()) == 4


@pytest.mark.parametrize("number", [1, 14])  # of the sweep's manifest, of the predictions
def test_the_same_call_after_a_kill_replaces_its_store(tmp_path, number):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    data = torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.arange(10) % 2
    words = {"store": tmp_path / "store", "progress_bar": False}
    call = partial(transfer, {"a": net}, {"a": net}, *data, **words)
    killed(partial(run_until, call, "os.replace", number))
    assert list(words["store"].rglob(".*"))
    rows = call().predictions
    assert len(load_sweep(words["store"]).predictions) == len(rows)
    assert not list(words["store"].rglob(".*"))


@pytest.mark.slow
def test_a_store_that_goes_away_costs_no_job_and_gets_all_from_the_same_command(
    run_job, workspace, empty_store, capsys, monkeypatch
):
    shutil.copytree(empty_store, workspace / "mlruns")
    words = ["-m", "attack=fgsm,bim", "tracking=mlflow", "rerun=false"]
    real, calls = mlflow.MlflowClient.log_batch, []

    def rename(table: str, name: str) -> None:
        with closing(sqlite3.connect(workspace / "mlruns" / "mlflow.db")) as store:
            store.execute(f"ALTER TABLE {table} RENAME TO {name}")

    def gone_from_the_fourth_call_on(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 4:
            rename("runs", "away")
        real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", gone_from_the_fourth_call_on)
        assert run_job(*words, "hydra.sweep.dir=outputs/away") == 0
    printed = " ".join("".join(capsys.readouterr()).split())
    assert printed.count("cannot be used (no such table: runs)") == 1
    assert "Traceback" not in printed and "SQLAlchemy" not in printed
    rename("away", "runs")
    assert run_job(*words, "hydra.sweep.dir=outputs/back") == 0
    assert tracked_wrongly(workspace / "mlruns") == []


@pytest.mark.slow
def test_a_damaged_store_costs_tracking_and_no_table(
    run_job, workspace, empty_store, caplog, capsys
):
    shutil.copytree(empty_store, workspace / "mlruns")
    store = workspace / "mlruns" / "mlflow.db"
    part = store.read_bytes()[: 5 * 4096]
    store.write_bytes(part)
    assert run_job("attack=fgsm", "tracking=mlflow", "hydra.run.dir=outputs/a") == 0
    assert f"{store.parent} cannot be used" in caplog.text + "".join(capsys.readouterr())
    assert (workspace / "outputs" / "a" / "predictions.parquet").exists()
    assert store.read_bytes() == part
