"""Commands that Ctrl-C, SIGTERM or a full disk stop: what is finished stays and is summed up."""

import errno
import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from functools import partial

import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src import sweeper, transfer
from src.images.attacker import Attacker
from src.run import job
from src.training import FineTuning
from src.utils import stopping
from tests.conftest import act_at_call

SMALL = ["targets=[coarse]", "n_images=10", "epsilon.grid=[8]"]
SWEEP = ["-m", "attack=fgsm,rfgsm", *SMALL]
slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture
def run(run_job, workspace, capsys):
    """A function that runs a command: its exit code, what it printed, and its folder."""

    def call(*words):
        code = run_job(*words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and "HYDRA_FULL_ERROR" not in out + err
        folders = list(workspace.glob("outputs/*"))
        return code, out, folders[0] if folders else None

    return call


def interrupt(*_):
    signal.raise_signal(signal.SIGTERM)


def interrupt_at_call(monkeypatch, owner, name, number):
    """Interrupt a call of a function by its number."""
    monkeypatch.setattr(owner, name, act_at_call(getattr(owner, name), number, interrupt))


@pytest.mark.parametrize(
    ("moment", "begun", "finished"),
    [
        ((job, "with_ensemble", 2), True, False),  # one a job
        slow((Attacker, "__call__", 2), True, False),
        slow((job, "write_results", 2), False, True),
    ],
)
def test_an_interrupt_at_any_moment_ends_the_sweep(run, monkeypatch, moment, begun, finished):
    interrupt_at_call(monkeypatch, *moment)
    code, printed, folder = run(*SWEEP)
    assert code == 130 and "\n\nInterrupted. Finished jobs are in " in f"\n{printed}"
    for text in (printed, (folder / "summary.txt").read_text()):
        assert "Still correct: fgsm on cifar10_mini" in text
        assert ("rfgsm on cifar10_mini" in text) == finished
    assert ("FAILED 1-rfgsm-coarse: it was interrupted" in printed) == begun


def test_an_interrupt_at_the_start_or_of_a_report_leaves_what_was_finished(run, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at_call(patch, sweeper, "read_job", 1)
        code, printed, folder = run(*SWEEP)
    assert code == 130 and "Interrupted." in printed and folder is None
    monkeypatch.setattr("src.report.finished_jobs.build_report", interrupt)
    code, printed, folder = run("report=default", *SMALL)
    assert code == 130
    assert printed.count("fgsm on cifar10_mini") == 1 and printed.count("Interrupted") == 1
    assert f"python -m src.report folder=outputs/{folder.name}" in printed


def test_a_training_can_be_stopped_and_its_job_is_tracked_as_failed(
    run, workspace, empty_store, monkeypatch
):
    shutil.copytree(empty_store, workspace / "mlruns")
    interrupt_at_call(monkeypatch, FineTuning, "training_step", 3)
    words = ["dataset.n_train=100", "dataset.n_test=100", "training.epochs=100000000"]
    code, printed, _ = run(*SMALL, *words, "model.coarse.weights=null", "tracking=mlflow")
    assert code == 130 and "Interrupted." in printed
    with closing(sqlite3.connect(workspace / "mlruns" / "mlflow.db")) as store:
        query = "SELECT key, value, status FROM tags JOIN runs USING (run_uuid)"
        tags = {row for row in store.execute(query) if row[0] in ("kind", "error")}
    failed = [("kind", "job"), ("kind", "sweep"), ("error", "Interrupted.")]
    assert {(*tag, "FAILED") for tag in (*failed, ("error", "it was interrupted"))} <= tags


def test_the_second_signal_raises_at_once_and_ignored_ones_stay_ignored():
    before = [signal.signal(signal.SIGINT, signal.default_int_handler)]
    before.append(signal.signal(signal.SIGTERM, signal.SIG_IGN))
    try:
        with stopping.handle_signals():
            interrupt()
            stopping.raise_if_interrupted()
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                stopping.raise_if_interrupted()
            with pytest.raises(KeyboardInterrupt), stopping.plain_interrupts():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Lightning does
                sys.exit(1)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


@pytest.mark.parametrize("names", [["predictions.parquet"], ["rates.csv", "error.txt"]])
def test_a_job_that_finds_the_disk_full_fails_in_a_sentence(run, monkeypatch, names):
    def replace(one, two, real=os.replace):
        if two.name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(one, two)

    monkeypatch.setattr(os, "replace", replace)
    code, printed, folder = run(*SMALL)
    assert code == 1
    whole = printed.replace("\n", "")
    assert f"{folder / names[0]} cannot be written: No space left on device." in whole
    assert f"FAILED {folder.name}: " in whole
    assert not [path for path in folder.rglob("*") if path.name in names or ".tmp" in path.name]


def test_variables_that_launchers_leave_mean_nothing_to_a_call_from_python(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "4" if name.endswith(("SIZE", "NTASKS")) else "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # read when Lightning was imported
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    images = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8)
    results = transfer({"a": network}, {"a": network}, images, torch.arange(12) % 4)
    assert len(results.predictions) == 12 * 2
