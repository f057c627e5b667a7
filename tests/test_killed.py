"""A command that is killed at any moment and run again leaves what one run at a stretch leaves."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from pkgutil import resolve_name

import mlflow
import pyarrow.parquet as pq
import pytest

TRIALS = 20
SWEEP = ["-m", "attack=fgsm,bim", "trainer.batch_size=6", "controls=true", "rerun=false"]
SWEEP += ["tracking=mlflow", "report.examples=2", "n_images=20"]
SWEEP += ["model.coarse.weights=null", "dataset.n_train=100", "dataset.n_test=40"]
SWEEP += ["training.epochs=2", "training.batch_size=25", "training.precision=32-true"]
TABLES = ["predictions", "predictions-noise", "predictions-shuffled"]

# Where a command is killed: at some of so many calls of some functions.
CLIENT = "mlflow:MlflowClient"
MOMENTS = {
    "training": (["src.training.module:FineTuning.training_step"], 8),
    "attack": (["src.evaluation:Attacker.forward"], 10),
    "scoring": (["src.evaluation:Predictions.add"], 100),
    "files": (["os:replace"], 60),
    "tracking": ([f"{CLIENT}.{name}" for name in ("create_run", "log_batch", "log_artifact")], 40),
    "report": (["src.report.command:build_report", "src.report.command:write_page"], 2),
}


@pytest.fixture(scope="module")
def whole(new_workspace, run_tiny, empty_store) -> Path:
    """The folder of the sweep that nobody has killed."""
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")
    assert run_tiny(folder, *SWEEP, "hydra.sweep.dir=outputs/whole") == 0
    return folder / "outputs" / "whole"


def moments(calls: int) -> list[tuple[int, bool]]:
    """Draw calls, each with whether it is done before the end; none twice."""
    every = list(product(range(1, calls + 1), (False, True)))
    return random.Random(0).sample(every, min(TRIALS, len(every)))


def killed(command: Callable[[], int], functions: list[str], number: int, after: bool) -> bool:
    """Run a command in a process that dies at a call, and tell whether it did."""

    def run() -> None:
        count = 0
        # The renderer has threads, which a forked process lacks.
        for name in ("vegalite_to_svg", "javascript_bundle"):
            pytest.MonkeyPatch().setattr(f"vl_convert.{name}", lambda *_, **__: "")
        for function in functions:
            owner, _, name = function.replace(":", ".").rpartition(".")
            real = resolve_name(function)

            def call(*args, real=real, **words):
                nonlocal count
                count += 1
                if count == number and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*args, **words)
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            pytest.MonkeyPatch().setattr(f"{owner}.{name}", call)
        os._exit(command())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_sweep_run_again_is_whole(
    new_workspace, run_tiny, empty_store, whole, monkeypatch, moment
):
    monkeypatch.setattr("src.evaluation.Transfer.seconds", 0)
    words = [*SWEEP, f"report={'default' if moment == 'report' else 'none'}"]
    functions, calls = MOMENTS[moment]
    trials, deaths = moments(calls), 0
    for trial in trials:
        folder = new_workspace()
        shutil.copytree(empty_store, folder / "mlruns")
        begin = partial(run_tiny, folder, *words, "hydra.sweep.dir=outputs/a")
        deaths += killed(begin, functions, *trial)
        assert run_tiny(folder, *words, "hydra.sweep.dir=outputs/b") == 0
        same_tables(whole, folder / "outputs" / "b", trial)
        tracked_once(folder)
        shutil.rmtree(folder)
    assert deaths > len(trials) / 2


@pytest.mark.slow
def test_two_sweeps_at_once_on_one_store_and_cache_are_each_whole(
    new_workspace, run_tiny, empty_store, whole, at_once
):
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")

    def begin(name: str) -> None:
        os._exit(run_tiny(folder, *SWEEP, f"hydra.sweep.dir=outputs/{name}"))

    at_once(*(partial(begin, name) for name in ("a", "b")))
    for name in ("a", "b"):
        same_tables(whole, folder / "outputs" / name)
    tracked_once(folder)


@pytest.fixture
def disk(tmp_path):
    """A function that makes a small disk, or changes it; the folder is `disk`."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kilobytes: int, access: str = "rw") -> Path:
        option = f"{access},size={kilobytes}k" + (",remount" if os.path.ismount(folder) else "")
        command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only who may mount can make a small disk")
        return folder

    yield sized
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [20, 60, 120, 200, 300, 450, 700, 1000, 1500, 3000])
def test_a_full_disk_is_named_and_nothing_half_written_is_read(
    new_workspace, run_tiny, printed_by, whole, disk, kilobytes, capfd
):
    folder, place = new_workspace(), disk(kilobytes)
    words = [*SWEEP, "tracking=none", f"cache_dir={place}/cache", f"hydra.sweep.dir={place}/out/a"]
    code, printed = printed_by(run_tiny, folder, *words)
    said = printed + "".join(capfd.readouterr())
    assert code in (0, 1, 2) and "Traceback" not in said, said
    assert code == 0 or "No space left on device" in said, said
    disk(200_000)
    assert run_tiny(folder, *words) == 0
    same_tables(whole, place / "out" / "a")


READ_ONLY = {
    "outputs": ["hydra.sweep.dir=PLACE/a"],
    "cache": ["cache_dir=PLACE"],
    "store": ["tracking.directory=PLACE"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", READ_ONLY)
def test_a_read_only_folder_is_named(new_workspace, run_tiny, printed_by, whole, disk, what, capfd):
    folder, place = new_workspace(), disk(1000)
    (place / "mlflow.db").touch()
    disk(1000, "ro")
    words = [*SWEEP, "report=none", "hydra.sweep.dir=outputs/a"]
    words += [word.replace("PLACE", str(place)) for word in READ_ONLY[what]]
    code, printed = printed_by(run_tiny, folder, *words)
    said = printed + "".join(capfd.readouterr())
    assert "Traceback" not in said, said
    assert str(place) in said, said
    assert code == {"outputs": 2, "cache": 1, "store": 0}[what], said


def same_tables(whole: Path, sweep: Path, *trial: tuple[int, bool]) -> None:
    """Check that a sweep has the predictions of the whole one."""
    for job, name in product(("0-fgsm-coarse", "1-bim-coarse"), TABLES):
        one, two = (pq.read_table(place / job / f"{name}.parquet") for place in (whole, sweep))
        assert two.equals(one), (*trial, job, name)


def tracked_once(folder: Path) -> None:
    """Check that each sweep has its pairs once, the last one all, and that nothing seems to run."""
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    found = {}
    for name in ("cifar10_mini", "cifar10_mini-sweeps", "cifar10_mini-training"):
        experiment = store.get_experiment_by_name(name)
        found[name] = store.search_runs([experiment.experiment_id]) if experiment else []
        assert {run.info.status for run in found[name]} <= {"FINISHED", "KILLED"}
    finished = [run for run in found["cifar10_mini"] if run.info.status == "FINISHED"]
    pairs = Counter((run.data.tags["sweep"], run.info.run_name) for run in finished)
    names = {f"{a} coarse -> {target}" for a in ("fgsm", "bim") for target in ("coarse", "fine")}
    sweeps = [run for run in found["cifar10_mini-sweeps"] if run.data.tags["kind"] == "sweep"]
    last = max(sweeps, key=lambda run: run.info.start_time).info.run_id
    assert set(pairs.values()) == {1} and {name for sweep, name in pairs if sweep == last} == names
