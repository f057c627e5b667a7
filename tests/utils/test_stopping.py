"""Commands that Ctrl-C, SIGTERM or a full disk stop: what is finished stays and is summed up."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from src.tracking import Run, Tracker

SWEEP = ["-m", "attack=fgsm,bim"]


class Statuses(Tracker):
    """A tracker that remembers how the sweep and its jobs ended."""

    def __init__(self):
        self.ended = []

    def start_sweep(self, name, parameters):
        return "sweep"

    def end_sweep(self, sweep, status, files=(), note=""):
        self.ended.append(status)

    @contextmanager
    def job(self, name, sweep, parameters):
        try:
            yield Run()
        except Exception:
            self.ended.append("FAILED job")
            raise
        except BaseException:
            self.ended.append("KILLED job")
            raise


@pytest.fixture
def tracker(monkeypatch):
    found = Statuses()
    monkeypatch.setattr("src.experiment.sweep.open_tracker", lambda *args: found)
    return found


def interrupt(*args, **words):
    signal.raise_signal(signal.SIGTERM)


def swallowed(*args, **words):
    with suppress(BaseException):
        interrupt()


def mangled(*args, **words):
    try:
        interrupt()
    except BaseException as error:
        raise AttributeError("OmegaConf makes this of it") from error


def at_call(monkeypatch, name, number, act):
    """Act at a call of a function by its number."""
    module, _, attribute = name.rpartition(":")
    owner = __import__(module.split(":")[0], fromlist=["x"])
    for part in module.split(":")[1:]:
        owner = getattr(owner, part)
    real, calls = getattr(owner, attribute), []

    def call(*args, **words):
        calls.append(1)
        if len(calls) == number:
            act()
        return real(*args, **words)

    monkeypatch.setattr(owner, attribute, call)


MOMENTS = {
    "Hydra's files": ("hydra.core.utils:_save_config", 4, interrupt),  # three a job
    "Hydra's files, mangled": ("hydra.core.utils:_save_config", 4, mangled),
    "models, swallowed": ("src.experiment.job:prepare_models", 2, swallowed),
    "models, mangled": ("src.experiment.job:prepare_models", 2, mangled),
    "clean images": ("src.experiment.job:score_clean", 2, interrupt),
    "preparation, swallowed": ("src.experiment.job:_adversarial_source", 2, swallowed),
    "attack": ("src.evaluation:Attacker:forward", 4, interrupt),  # three a job
    "tables": ("src.experiment.job:write_results", 2, interrupt),
    "tracking, swallowed": ("src.experiment.job:track_results", 2, swallowed),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_at_any_moment_ends_the_sweep(
    command_line, workspace, tracker, monkeypatch, capsys, moment
):
    at_call(monkeypatch, *MOMENTS[moment])
    assert command_line(*SWEEP) == 130
    printed = capsys.readouterr().out
    assert "\n\nInterrupted. Finished jobs are in " in f"\n{printed}"
    assert "fgsm on photos" in printed and "bim on photos" not in printed
    assert tracker.ended[-1] == "KILLED" and "FAILED job" not in tracker.ended
    (folder,) = (workspace / "outputs").iterdir()
    assert (folder / "matrix-fgsm.csv").exists() and not (folder / "matrix-bim.csv").exists()
    begun = not moment.startswith("Hydra")
    assert tracker.ended[:-1] == ["KILLED job"] * begun
    assert ("FAILED 1-bim-coarse: it was interrupted" in printed) == begun


@pytest.mark.parametrize("act", [interrupt, mangled, swallowed])
def test_an_interrupt_at_the_start_leaves_nothing(command_line, workspace, tracker, capsys, act):
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, "src.experiment.sweep:read_job", 1, act)
        assert command_line(*SWEEP) == 130
    out, err = capsys.readouterr()
    assert "Interrupted." in out and "Traceback" not in out + err
    assert tracker.ended == [] and not (workspace / "outputs").exists()


def test_an_interrupt_in_a_destructor_prints_no_traceback(command_line, capfd):
    class Held:
        def __del__(self):
            interrupt()

    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, "src.experiment.sweep:read_job", 1, Held)  # gone as soon as it is made
        assert command_line(*SWEEP) == 130
    out, err = capfd.readouterr()
    assert "Interrupted." in out and "Traceback" not in out + err


@pytest.mark.parametrize("act", [interrupt, swallowed])
def test_an_interrupted_report_says_how_to_build_it(
    command_line, workspace, tracker, monkeypatch, capsys, act
):
    at_call(monkeypatch, "src.report.command:build_report", 1, act)
    assert command_line("report=default", "report.pairs=0") == 130
    printed = capsys.readouterr().out
    (folder,) = (workspace / "outputs").iterdir()
    assert printed.count("fgsm on photos") == 1 and printed.count("Interrupted") == 1
    assert f"python -m src.report folder={folder.relative_to(workspace)} builds it" in printed
    assert tracker.ended == ["KILLED"]


def full_disk(monkeypatch, *names):
    """Let no file of these names be written any more."""
    real = os.replace

    def replace(source, target):
        if os.path.basename(target) in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        return real(source, target)

    monkeypatch.setattr(os, "replace", replace)


FULL = "cannot be written: No space left on device."


@pytest.mark.parametrize("name", ["predictions.parquet", "rates.csv", "config.yaml"])
def test_a_job_that_finds_the_disk_full_fails_in_a_sentence(
    command_line, workspace, tracker, monkeypatch, capsys, name
):
    full_disk(monkeypatch, name)
    assert command_line() == 1
    out, err = capsys.readouterr()
    (folder,) = (workspace / "outputs").iterdir()
    assert f"FAILED {folder.name}: {folder / name} {FULL}" in out.replace("\n", "")
    assert "Traceback" not in out + err and not (folder / name).exists()
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".tmp.csv"))]
    assert tracker.ended == ["FAILED job", "FAILED"]


def test_no_word_is_left_half(command_line, workspace, tracker, monkeypatch, capsys):
    full_disk(monkeypatch, "rates.csv", "error.txt")
    assert command_line() == 1
    out, err = capsys.readouterr()
    (folder,) = (workspace / "outputs").iterdir()
    assert (
        f"{folder / 'rates.csv'} {FULL}" in out.replace("\n", "")
        and f"FAILED {folder.name}" in out
        and "Traceback" not in out + err
    )
    assert not (folder / "error.txt").exists()


def test_matrices_and_alarms_are_printed_though_the_disk_is_full(
    command_line, workspace, tracker, monkeypatch, capsys
):
    names = ["matrix-fgsm.csv", "matrix-bim.csv", "alarms.json"]  # when the jobs have written
    fill = partial(full_disk, monkeypatch, *names)
    at_call(monkeypatch, "src.experiment.sweep:SweepCallback:_sum_up", 1, fill)
    assert command_line(*SWEEP) == 1
    out, err = capsys.readouterr()
    (folder,) = (workspace / "outputs").iterdir()
    assert f"{folder.name}/matrix-fgsm.csv {FULL}" in out and "Traceback" not in out + err
    assert "fgsm on photos" in out and "bim on photos" in out
    assert not (folder / "matrix-fgsm.csv").exists()


def test_hydras_own_files_do_not_fit_either(command_line, workspace, tracker, monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at_call(monkeypatch, "hydra.core.utils:_save_config", 4, full)
    assert command_line(*SWEEP) == 1
    out, err = capsys.readouterr()
    (folder,) = (workspace / "outputs").iterdir()
    assert f"{folder.relative_to(workspace)} {FULL}" in out
    assert "fgsm on photos" in out and tracker.ended == ["FAILED"]
    assert "HYDRA_FULL_ERROR" not in out + err and "Traceback" not in out + err


def test_outputs_that_cannot_be_written_are_named(command_line, workspace, tracker, capfd):
    (workspace / "outputs").write_text("no folder")
    assert command_line(*SWEEP) == 2
    out, err = capfd.readouterr()
    assert "cannot be written: Not a directory." in err and err.count("\n") == 1
    assert "Traceback" not in out + err and tracker.ended == []


def test_a_process_whose_files_may_not_grow(workspace, tiny_run):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run(
        [sys.executable, "-m", "src.main", *tiny_run],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert done.returncode == 1
    assert "cannot be written: File too large." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr and "HYDRA" not in done.stderr
