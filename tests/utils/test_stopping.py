"""Commands that Ctrl-C, SIGTERM or a full disk stop: what is finished stays and is summed up."""

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
from subprocess import PIPE

import mlflow
import pytest
from hydra.core import utils as hydra_utils

from src import sweeper
from src.artifacts.sweep_state import job_statuses
from src.images.attacker import Attacker
from src.run import job
from src.training import FineTuning
from src.utils import stopping
from tests.conftest import REPOSITORY, TINY_RUN

SMALL = ["targets=[coarse]", "n_images=10", "epsilon.grid=[8]"]
SWEEP = ["-m", "attack=fgsm,rfgsm", *SMALL]


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


def interrupt():
    signal.raise_signal(signal.SIGTERM)


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
    "Hydra's files": (hydra_utils, "_save_config", 4),  # three a job
    "models": (job, "with_ensemble", 2),  # one a job
    "attack": (Attacker, "forward", 4),  # two are trials
    "tables": (job, "write_results", 2),
}


RARE = ("Hydra's files", "tables", "attack")


@pytest.mark.parametrize(
    "moment",
    [pytest.param(moment, marks=pytest.mark.slow if moment in RARE else []) for moment in MOMENTS],
)
def test_an_interrupt_at_any_moment_ends_the_sweep(run, monkeypatch, moment):
    at_call(monkeypatch, *MOMENTS[moment], interrupt)
    code, printed, folder = run(*SWEEP)
    assert code == 130
    assert "\n\nInterrupted. Finished jobs are in " in f"\n{printed}"
    finished = moment == "tables"
    for text in (printed, (folder / "summary.txt").read_text()):
        assert "Still correct: fgsm on cifar10_mini" in text
        assert ("rfgsm on cifar10_mini" in text) == finished
    begun = moment in ("models", "attack")
    assert ("FAILED 1-rfgsm-coarse: it was interrupted" in printed) == begun


def test_an_interrupt_at_the_start_leaves_nothing(run, monkeypatch):
    at_call(monkeypatch, sweeper, "read_job", 1, interrupt)
    code, printed, folder = run(*SWEEP)
    assert code == 130 and "Interrupted." in printed and folder is None


def test_an_interrupted_report_says_how_to_build_it(run, monkeypatch):
    monkeypatch.setattr("src.report.finished_jobs.build_report", lambda *_: interrupt())
    code, printed, folder = run("report=default", *SMALL)
    assert code == 130
    assert printed.count("fgsm on cifar10_mini") == 1 and printed.count("Interrupted") == 1
    assert f"python -m src.report folder=outputs/{folder.name}" in printed


def test_a_training_can_be_stopped_and_its_job_is_tracked_as_failed(
    run, workspace, empty_store, monkeypatch
):
    shutil.copytree(empty_store, workspace / "mlruns")
    at_call(monkeypatch, FineTuning, "training_step", 3, interrupt)
    words = ["model.coarse.weights=null", "dataset.n_train=100", "dataset.n_test=100"]
    words += ["training.epochs=100000000", "tracking=mlflow"]
    code, printed, _ = run(*SMALL, *words)
    assert code == 130 and "Interrupted." in printed
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    found = [
        store.get_experiment_by_name(f"cifar10_mini{ending}").experiment_id
        for ending in ("-sweeps", "-training")
    ]
    runs = store.search_runs(found)
    assert {run.data.tags["kind"]: run.info.status for run in runs} == dict.fromkeys(
        ("job", "sweep"), "FAILED"
    )
    assert {run.data.tags["error"] for run in runs} == {"Interrupted.", "it was interrupted"}


def test_the_second_signal_raises_at_once_and_ignored_ones_stay_ignored():
    handlers = (signal.default_int_handler, signal.SIG_IGN)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(*pair) for pair in zip(numbers, handlers, strict=True)]
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
        assert signal.getsignal(signal.SIGINT) == handlers[0]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def full_for(monkeypatch, *names):
    """Let no file of these names be written any more."""

    def replace(one, two, real=os.replace):
        if two.name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(one, two)

    monkeypatch.setattr(os, "replace", replace)


FULL = "cannot be written: No space left on device."


@pytest.mark.parametrize("names", [["predictions.parquet"], ["rates.csv", "error.txt"]])
def test_a_job_that_finds_the_disk_full_fails_in_a_sentence(run, monkeypatch, names):
    full_for(monkeypatch, *names)
    code, printed, folder = run(*SMALL)
    assert code == 1
    whole = printed.replace("\n", "")
    assert f"{folder / names[0]} {FULL}" in whole and f"FAILED {folder.name}: " in whole
    assert not [name for name in names if (folder / name).exists()]
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name]


@pytest.mark.slow
def test_outputs_that_cannot_be_written_are_named(run_job, workspace, capfd):
    (workspace / "outputs").write_text("no folder")
    assert run_job(*SWEEP) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "cannot be written: Not a directory." in line


@pytest.fixture
def heeded_interrupts():
    """Let commands heed Ctrl-C; a shell's background jobs, such as these tests, may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupts")
def test_ctrl_c_among_the_imports_ends_quietly(workspace):
    words = [sys.executable, "-X", "importtime", "-m", "src.main", *TINY_RUN]
    path = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(words, env=path, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert any("omegaconf" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130 and "Interrupted" in out + err and "Traceback" not in err
    assert not list(workspace.glob("outputs/**/*.parquet"))


@pytest.mark.slow
def test_jobs_whose_reader_is_gone_are_finished(workspace):
    words = [sys.executable, "-m", "src.main", *TINY_RUN, *SWEEP, "hydra.sweep.dir=out"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(words, env=environment, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout.readline().startswith("Plan: 2 jobs")
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 0
    assert [job.state for job in job_statuses(workspace / "out")] == ["done", "done"]
    assert (workspace / "out" / "summary.txt").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_open_and_no_file_takes_their_numbers(tmp_path, closed):
    code = "import src, sys, os; print('printed'); print('printed', file=sys.stderr); "
    code += "file = open('numbers', 'w'); file.write(f'{sys.stdin.readline()}{file.fileno()}'); "
    code += "file.close(); os.system('echo printed; echo printed >&2')"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHON": sys.executable}
    words = ["sh", "-c", f'"$PYTHON" -W error -c "$0" {closed}', code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, input="", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "numbers").read_text() == "3"
    printed = b"printed\nprinted\n"
    assert done.stdout == (b"" if ">&-" in closed.split() else printed)
    assert done.stderr == (b"" if "2>&-" in closed else printed)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["src.main", "src.figure"])
def test_commands_with_closed_streams_write_their_files(workspace, run_job, module):
    words = [*TINY_RUN, *SMALL, "attack=fgsm", "hydra.run.dir=out"]
    if module == "src.figure":
        assert run_job(*SMALL, "targets=[fine]", "attack=fgsm", "hydra.run.dir=out") == 0
        words = ["curves", "out", "--out=chart.svg"]
    command = shlex.join([sys.executable, "-m", module, *words])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(f"{command} <&- >&- 2>&-", shell=True, env=environment, check=True)
    assert (workspace / ("out/summary.txt" if module == "src.main" else "chart.svg")).exists()
