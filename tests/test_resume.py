"""A command run again, perhaps after a kill: it computes what is missing, and no row differs."""

import shutil
from functools import partial
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from src import load_sweep, transfer
from src.artifacts.record import job_record
from src.config.attack_settings import SavedSettings
from src.run.data import DataSets
from tests.conftest import ATTACK, kill_at, killed, own_attack, same_tables

GO_ON = "rerun=false"
slow = pytest.mark.slow
COUNTING = """
import os, torch
from pathlib import Path
from src.attacks import fgsm
def counting(model, images, labels, eps, *, max_batch=None):
    calls = len(list(Path("attacked").iterdir()))
    if len(images) > int(os.environ.get("ROOM", 1000)):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    Path("attacked", f"{calls}-{os.getpid()}-{len(images)}").touch()
    images = (images + torch.rand_like(images) / 255).clamp(0, 1)  # by the batch
    return fgsm(model, images, labels, eps, max_batch=max_batch)
counting.all_budgets = True
"""
PREDICTIONS = ["predictions", "predictions-noise", "predictions-shuffled"]


@pytest.fixture
def attacked(workspace):
    """A function that tells how many images were attacked since it was last asked."""
    own_attack(workspace, "counting", "_target_: counting_code.counting", COUNTING)
    (workspace / "attacked").mkdir()

    def count() -> int:
        sizes = []
        for call in (workspace / "attacked").iterdir():
            sizes.append(int(call.name.split("-")[-1]))
            call.unlink()
        return sum(sizes)

    return count


def test_a_finished_job_is_not_computed_again(run_job, workspace, attacked):
    (workspace / "conf/model/twin.yaml").write_text(
        (workspace / "conf/model/fine.yaml").read_text().replace("model.fine", "model.twin")
    )
    words = ["attack=counting", "variants=[float32,uint8]", "save_adversarial=true"]
    words += ["epsilon.grid=[1.5,8]", "report.examples=2"]
    for computed, name, *more in (
        (23, "one"),
        (0, "two", "trainer.num_workers=1"),
        (0, "two"),  # from its own folder
        (0, "read", "protocol=all", "epsilon.reference=1.5", "report.examples=1"),
        (0, "more", "report.examples=5"),
        (0, "twin", "targets=[coarse,twin]"),  # of the same weights by another name
        (23, "other", "seed=1"),
        (23, "other", "epsilon.grid=[8]"),
        (23, "anew", "rerun=true"),
    ):
        assert run_job(*words, GO_ON, f"hydra.run.dir=out/{name}", *more) == 0
        assert attacked() == computed, more
    same_tables(workspace / "out/one", workspace / "out/two", ["predictions"])
    one, twin = (pd.read_csv(workspace / "out" / name / "rates.csv") for name in ("one", "twin"))
    pd.testing.assert_frame_equal(one, twin.replace("twin", "fine"))
    sets = [str(workspace / "out" / name / "adversarial") for name in ("one", "two")]
    assert len({DataSets().open_saved(SavedSettings(path=path)).digest for path in sets}) == 1


@slow
def test_damaged_rows_are_computed_again(run_job, workspace, attacked, capsys):
    words = ["attack=counting", GO_ON, "report.examples=2", "controls=true"]
    assert run_job(*words, "hydra.run.dir=out/one") == 0
    files = sorted((workspace / "cache").glob("rows-*/*/*/*.parquet"))
    assert attacked() == 23 and len(files) > 5
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        content[len(content) * (number + 1) // (len(files) + 2)] ^= 1
        file.write_bytes(content)
    for damaged in (len(files), 0):
        capsys.readouterr()
        assert run_job(*words, "hydra.run.dir=out/two") == 0
        assert "".join(capsys.readouterr()).count(".parquet is damaged") == damaged
        same_tables(workspace / "out/one", workspace / "out/two", ["predictions"])


def killed_at(function: str, number: int, run) -> None:
    """Make a call in a process of its own, which is killed there at a call of a function."""

    def changed() -> None:
        kill_at(function, number)
        run()

    killed(changed)


def test_a_killed_job_goes_on_where_it_was(run_job, workspace, attacked):
    words = ["attack=counting", "trainer.batch_size=4", "report.examples=4"]
    words += ["controls=true", "variants=[uint8]"]
    assert run_job(*words, "hydra.run.dir=whole", "cache.dir=other") == 0
    assert attacked() == 23
    run = partial(run_job, *words, GO_ON, "hydra.run.dir=out/part")
    for number, done in ((4, 3 + 4 + 4), (3, 4 + 4)):
        killed_at(ATTACK, number, run)
        assert attacked() == done
    assert run() == 0
    assert attacked() == 23 - 19
    folders = workspace / "whole", workspace / "out" / "part"
    same_tables(*folders, [*PREDICTIONS, "predictions-uint8"])
    files = [*(workspace / "cache").glob("rows-*/*/*/*.parquet")]  # those of images stay in parts
    files = [file for file in files if "adversarial" not in pq.read_schema(file).names]
    assert len(files) == len({file.parent for file in files})
    assert [job_record(folder).gradients for folder in folders] == [23, 23 - 19]


def test_batches_are_not_halved_under_an_attack_that_mixes_their_images(
    run_job, attacked, monkeypatch, capsys
):
    monkeypatch.setenv("ROOM", "5")
    assert run_job("attack=counting", "trainer.batch_size=8", "hydra.run.dir=out") == 1
    assert "trainer.batch_size=8 needs more free memory" in "".join(capsys.readouterr())


def test_the_jobs_of_a_sweep_are_listed(run_job, run_in, workspace, attacked, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    wrong = ["model.fine.expected_accuracy=0.99", "clean_accuracy_check.action=stop,warn"]
    words = ["-m", "attack=counting", "trainer.batch_size=20", GO_ON]
    # Three jobs stop before their attack; two batches of the fourth, then of the fifth.
    run = partial(run_job, *words, *wrong, "seed=0,1,2", "hydra.sweep.dir=outputs/a")
    killed_at(ATTACK, 3, run)
    capsys.readouterr()
    assert run_in(workspace, module="src.status") == 1
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()[1:]]
    states = [row[2] for row in rows if row[0].startswith("clean_accuracy")]
    assert states == [*["failed"] * 3, "done", "failed", "missing"], printed
    assert "its file expects 99.00%" in " ".join(printed.split()) and "it was killed" in printed
    assert "4 failed, 1 done, 1 missing; at the pace" in printed
    assert run_job(*words, "hydra.sweep.dir=outputs/b", "targets=[coarse]") == 0
    capsys.readouterr()
    assert run_in(workspace, module="src.status") == 0
    assert "outputs/b: 1 done." in capsys.readouterr().out


SWEEP = ["-m", "attack=fgsm,bim", "n_images=20", "trainer.batch_size=6", "controls=true"]
SWEEP += [GO_ON, "tracking=mlflow", "model.coarse.weights=null", "training.epochs=2"]
SWEEP += ["training.batch_size=25", "training.precision=32-true", "dataset.n_train=100"]
SWEEP += ["dataset.n_test=40", "hydra.sweep.dir=out"]


@pytest.fixture(scope="module")
def whole(new_workspace, run_tiny, empty_store) -> Path:
    """The sweep's folder after a run that nothing disturbed."""
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")
    assert run_tiny(folder, *SWEEP) == 0
    return folder / "out"


def tracked(folder: Path) -> list[str]:
    """Return the names of the runs of pairs in a store, which has left no run open."""
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    runs = store.search_runs([one.experiment_id for one in store.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return sorted(run.info.run_name for run in runs if run.data.tags["kind"] == "pair")


@slow
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
    killed_at(function, number, run)
    assert run() == 0
    for job in ("0-fgsm-coarse", "1-bim-coarse"):
        same_tables(workspace / "out" / job, whole / job, PREDICTIONS)
    assert tracked(workspace) == tracked(whole.parent)


@pytest.mark.parametrize(
    ("function", "number"),
    [
        pytest.param("os.replace", 19, marks=slow),  # of the predictions
        ("pathlib.Path.rename", 2),  # of the new set, when the earlier one has been moved away
    ],
)
def test_a_kill_leaves_nothing_that_stops_the_same_command_or_stays(
    run_job, workspace, function, number
):
    words = ["attack=fgsm", "save_adversarial=true", "n_images=4", "epsilon.grid=[8]"]
    run = partial(run_job, *words, "hydra.run.dir=out")
    if function == "pathlib.Path.rename":
        assert run() == 0
    killed_at(function, number, run)
    left = {path.name for path in (workspace / "out").glob(".*")} - {".hydra", ".running", ".sweep"}
    assert left
    assert run() == 0
    assert [path.name for path in (workspace / "out").glob(".*")] == [".hydra"]
    assert len(list((workspace / "out/adversarial").rglob("*.png"))) == 4 * 2
    assert len(load_sweep(workspace / "out")["index"].unique()) == 4


@pytest.mark.parametrize("number", [1, 14])  # of the sweep's manifest, of the predictions
def test_the_same_call_after_a_kill_replaces_its_store(tmp_path, number):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    data = torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.arange(10) % 2
    words = {"store": tmp_path / "store", "progress_bar": False}
    call = partial(transfer, {"a": net}, {"a": net}, *data, **words)
    killed_at("os.replace", number, call)
    assert list(words["store"].rglob(".*"))
    rows = call().predictions
    assert len(load_sweep(words["store"]).predictions) == len(rows)
    assert not list(words["store"].rglob(".*"))
