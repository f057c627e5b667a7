"""Commands that Ctrl-C, SIGTERM or a full disk stop: what is finished stays and is summed up."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import cache, partial

import pytest
from hydra.core import utils as hydra_utils

from src import callback
from src.evaluation import Attacker
from src.experiment import job, sweep
from src.tracking import Run, Tracker
from src.training.module import FineTuning
from tests.conftest import REPOSITORY

SMALL = ["targets=[coarse]", "n_images=10", "epsilon.grid=[8]"]
SWEEP = ["-m", "attack=fgsm,rfgsm", *SMALL]


class Statuses(Tracker):
    """A tracker that remembers how the sweep and its jobs ended."""

    def __init__(self):
        super().__init__()
        self.ended = []

    def start_sweep(self, name, plan, parameters, lock):
        return "sweep"

    def end_sweep(self, sweep, status, files, note, points):
        self.ended.append(status)

    @contextmanager
    def job(self, name, sweep, parameters, lock):
        try:
            yield Run()
        except BaseException as error:
            self.ended.append(f"{'FAILED' if isinstance(error, Exception) else 'KILLED'} job")
            raise


@pytest.fixture(autouse=True)
def tracker(monkeypatch):
    found = Statuses()
    for module in ("sweep", "attempt"):
        monkeypatch.setattr(f"src.experiment.{module}.open_tracker", cache(lambda *args: found))
    return found


@pytest.fixture
def run(command_line, workspace, capsys):
    """A function that runs a command: its exit code, what it printed, and its folder."""

    def call(*words):
        code = command_line(*words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and "HYDRA_FULL_ERROR" not in out + err
        folders = list(workspace.glob("outputs/*"))
        return code, out, folders[0] if folders else None

    return call


def interrupt():
    signal.raise_signal(signal.SIGTERM)


def swallowed():
    with suppress(BaseException):
        interrupt()


def mangled():
    try:
        interrupt()
    except BaseException as error:
        raise AttributeError("OmegaConf makes this of it") from error


class Held:
    def __del__(self):  # as soon as it is made
        interrupt()


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def at_call(monkeypatch, owner, name, number, act):
    """Act at a call of a function by its number."""
    real, calls = getattr(owner, name), []

    def call(*args, **words):
        calls.append(1)
        if len(calls) == number:
            act()
        return real(*args, **words)

    monkeypatch.setattr(owner, name, call)


MOMENTS = {
    "Hydra's files": (hydra_utils, "_save_config", 4, interrupt),  # three a job
    "Hydra's files, mangled": (hydra_utils, "_save_config", 4, mangled),
    "models, swallowed": (job, "prepare_models", 2, swallowed),
    "attack": (Attacker, "forward", 4, interrupt),  # two are trials
    "tables, mangled": (job, "write_results", 2, mangled),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_at_any_moment_ends_the_sweep(run, tracker, monkeypatch, moment):
    at_call(monkeypatch, *MOMENTS[moment])
    code, printed, folder = run(*SWEEP)
    assert code == 130
    assert "\n\nInterrupted. Finished jobs are in " in f"\n{printed}"
    assert "fgsm on cifar10_mini" in printed and "rfgsm on cifar10_mini" not in printed
    assert (folder / "matrix-fgsm.csv").exists() and not (folder / "matrix-rfgsm.csv").exists()
    begun = not moment.startswith("Hydra")
    assert tracker.ended == [*["KILLED job"] * begun, "KILLED"]
    assert ("FAILED 1-rfgsm-coarse: it was interrupted" in printed) == begun


@pytest.mark.parametrize("act", [interrupt, mangled, swallowed, Held])
def test_an_interrupt_at_the_start_leaves_nothing(run, tracker, monkeypatch, act):
    at_call(monkeypatch, callback, "read_job", 1, act)
    code, printed, folder = run(*SWEEP)
    assert code == 130 and "Interrupted." in printed
    assert tracker.ended == [] and folder is None


@pytest.mark.parametrize("act", [interrupt, swallowed])
def test_an_interrupted_report_says_how_to_build_it(run, tracker, monkeypatch, act):
    monkeypatch.setattr("src.report.command.build_report", lambda *_: act())
    code, printed, folder = run("report=default", *SMALL)
    assert code == 130
    assert printed.count("fgsm on cifar10_mini") == 1 and printed.count("Interrupted") == 1
    assert f"python -m src.report folder=outputs/{folder.name} builds it" in printed
    assert tracker.ended == ["KILLED"]


def test_a_training_can_be_stopped(run, tracker, monkeypatch):
    at_call(monkeypatch, FineTuning, "training_step", 3, interrupt)
    words = ["model.coarse.weights=null", "dataset.n_train=100", "dataset.n_test=100"]
    code, printed, _ = run(*SMALL, *words, "training.epochs=100000000")
    assert code == 130 and tracker.ended == ["KILLED job", "KILLED"]
    assert "Interrupted." in printed


def full_for(monkeypatch, *names):
    """Let no file of these names be written any more."""
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: full() if b.name in names else real(a, b))


FULL = "cannot be written: No space left on device."


@pytest.mark.parametrize(
    "names", [["predictions.parquet"], ["config.yaml"], ["rates.csv", "error.txt"]]
)
def test_a_job_that_finds_the_disk_full_fails_in_a_sentence(run, tracker, monkeypatch, names):
    full_for(monkeypatch, *names)
    code, printed, folder = run(*SMALL)
    assert code == 1
    whole = printed.replace("\n", "")
    assert f"{folder / names[0]} {FULL}" in whole and f"FAILED {folder.name}: " in whole
    assert not [name for name in names if (folder / name).exists()]
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name]
    assert tracker.ended == ["FAILED job", "FAILED"]


def test_summaries_are_printed_though_the_disk_is_full(run, monkeypatch):
    names = ["matrix-fgsm.csv", "matrix-rfgsm.csv", "alarms.json"]
    fill = partial(full_for, monkeypatch, *names)  # when the jobs have written
    at_call(monkeypatch, sweep.Sweep, "_sum_up", 1, fill)
    code, printed, folder = run(*SWEEP)
    assert code == 1 and f"{folder.name}/matrix-fgsm.csv {FULL}" in printed
    assert "fgsm on cifar10_mini" in printed and "rfgsm on cifar10_mini" in printed
    assert not (folder / "matrix-fgsm.csv").exists()


def test_hydras_own_files_do_not_fit_either(run, tracker, monkeypatch):
    at_call(monkeypatch, hydra_utils, "_save_config", 4, full)
    code, printed, folder = run(*SWEEP)
    assert code == 1 and f"outputs/{folder.name} {FULL}" in printed
    assert "fgsm on cifar10_mini" in printed and tracker.ended == ["FAILED"]


def test_outputs_that_cannot_be_written_are_named(command_line, workspace, tracker, capfd):
    (workspace / "outputs").write_text("no folder")
    assert command_line(*SWEEP) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "cannot be written: Not a directory." in line and tracker.ended == []


def test_files_that_may_not_grow_are_named(run):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        code, printed, _ = run(*SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert code == 1 and "cannot be written: File too large." in printed


@pytest.mark.parametrize(
    ("stdout", "given", "code"), [(os.devnull, 0, 0), ("/dev/full", 0, 120), ("/dev/full", 2, 2)]
)
def test_the_exit_code_says_whether_the_output_arrived(stdout, given, code):
    if not os.path.exists(stdout):
        pytest.skip(f"there is no {stdout} here")
    program = f"from src.utils.stopping import leave\nprint('done')\nleave({given})"
    where = {"cwd": REPOSITORY, "env": os.environ | {"PYTHONUNBUFFERED": ""}}
    with open(stdout, "w") as file:
        done = subprocess.run([sys.executable, "-c", program], stdout=file, **where)
    assert done.returncode == code


def test_exit_handlers_run_and_threads_end_before_the_exit():
    program = """if True:
        import atexit, threading, time
        from src.utils.stopping import leave
        atexit.register(print, "handler")
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        leave(3)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (done.returncode, done.stdout.split()) == (3, ["thread", "handler"])
