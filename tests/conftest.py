import base64
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from functools import cache, partial
from importlib import import_module, metadata
from io import StringIO
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import omegaconf
import pandas as pd
import pyarrow.parquet as pq
import pytest
import vl_convert
import yaml
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]

ATTACK = "src.images.attacker.Attacker.__call__"
"""A function that is called once for each batch of an attack."""
POOLS = {"coarse": 8, "fine": 4}
TINY = """# @package model.{name}
network:
  _target_: torch.nn.Sequential
  _args_:
    - {{_target_: torch.nn.AvgPool2d, kernel_size: {pool}}}
    - {{_target_: torch.nn.Flatten}}
    - {{_target_: torch.nn.Linear, in_features: {features}, out_features: 10}}
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
input_size: null
weights: {weights}
expected_accuracy: null
"""
TINY_RUN = ["--config-dir=conf", "source=coarse", "targets=[coarse,fine]", "dataset=cifar10_mini"]
TINY_RUN += ["n_images=23", "epsilon.grid=[0,0.5,8]", "trainer=cpu", "trainer.batch_size=10"]
TINY_RUN += ["trainer.progress_bar=false", "tracking=none", "report=none"]
# What a test runs is computed, and what it trains is trained briefly.
TINY_RUN += ["rerun=true", "clean_accuracy_check.action=warn"]


def speed_up_libraries() -> None:
    """Lower what a command costs besides its computing.

    Config files are parsed by libyaml. Lightning asks for entry points whenever it makes a trainer,
    and each new cache folder gets a script for charts.
    """
    vl_convert.javascript_bundle = cache(vl_convert.javascript_bundle)
    metadata.entry_points = cache(metadata.entry_points)  # type: ignore[assignment]
    if hasattr(omegaconf._utils, "get_yaml_loader"):  # OmegaConf 2.4 takes libyaml by itself
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
            loader = omegaconf._utils.get_yaml_loader()
        omegaconf._utils.get_yaml_loader = lambda: loader


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        return  # the process that deals the tests out: its workers would wait while it loads torch
    import torch

    torch.set_num_threads(1)  # tiny tensors: a second thread only costs
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # tests have stores of their own
    speed_up_libraries()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("it needs a GPU")


@pytest.fixture(autouse=True)
def new_warnings() -> None:
    """Let each test hear the warnings that a process logs once."""
    from src.utils.refusals import warn_once

    warn_once.cache_clear()


def write_weights(folder: Path, pools: dict[str, int] = POOLS) -> None:
    """Write weights of the tiny models, linear regressions on the test images themselves.

    They classify about half of these correctly, so that there is something to fool.
    """
    import torch
    from safetensors.torch import save_file

    from src.data import load_dataset

    images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
    batch = images[:]
    normalised = (batch.images / 255 - 0.5) / 0.25
    wanted = torch.nn.functional.one_hot(batch.labels, 10).double()
    for name, pool in pools.items():
        pixels = torch.nn.functional.avg_pool2d(normalised, pool).flatten(1).double()
        ridge = pixels.T @ pixels + 50 * torch.eye(pixels.shape[1], dtype=torch.double)
        weight = 8 * torch.linalg.solve(ridge, pixels.T @ wanted).T.float().contiguous()
        save_file({"2.weight": weight, "2.bias": torch.zeros(10)}, folder / f"{name}.safetensors")


def block_of(page: Path, name: str = "page") -> str:
    """Return the text of a block of data in a report."""
    (packed,) = re.findall(rf'id="block-{name}">([^<]+)<', page.read_text())
    return zlib.decompress(base64.b64decode(packed)).decode()


def write_workspace(folder: Path, tiny_weights: Path, pools: dict[str, int] = POOLS) -> None:
    """Write `conf/model/` with the tiny models, and an empty `conf/attack/`."""
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "attack").mkdir()
    for name, pool in pools.items():
        weights, features = tiny_weights / f"{name}.safetensors", 3 * (32 // pool) ** 2
        text = TINY.format(name=name, pool=pool, features=features, weights=weights)
        (folder / "conf" / "model" / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of the tiny models."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder)
    return folder


@pytest.fixture(scope="session")
def new_workspace(
    tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path
) -> Callable[[], Path]:
    """A function that makes a folder whose `conf/model/` holds two tiny models with weights."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("workspace")
        write_workspace(folder, tiny_weights)
        return folder

    return make


@pytest.fixture
def workspace(new_workspace: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two tiny models, `coarse` and `fine`."""
    folder = new_workspace()
    monkeypatch.chdir(folder)
    return folder


def at_once(*calls: Callable[[], object], method: str = "fork", code: int = 0) -> None:
    """Make calls at once, each in a process of its own that must end with an exit code."""
    processes = [multiprocessing.get_context(method).Process(target=call) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == code


def killed(call: Callable[[], object]) -> None:
    """Make a call in a process of its own, which must be killed there."""
    at_once(call, code=-signal.SIGKILL)


def act_at_call(function: Callable[..., Any], number: int, act: Callable[[], object]) -> Any:
    """Return a function that acts before one call of another, given by its number."""
    calls = count(1)

    def call(*args: object, **words: object) -> object:
        if next(calls) == number:
            act()
        return function(*args, **words)

    return call


def kill_at(function: str, number: int) -> None:
    """Let this process be killed at a call of a function."""
    place, _, name = function.rpartition(".")
    kill = partial(signal.raise_signal, signal.SIGKILL)
    setattr(resolve_name(place), name, act_at_call(resolve_name(function), number, kill))


def same_tables(one: Path, two: Path, names: Sequence[str]) -> None:
    """Compare tables of two folders to the last bit."""
    for name in names:
        first, second = (pq.read_table(folder / f"{name}.parquet") for folder in (one, two))
        assert len(first) and first.schema.equals(second.schema), name
        frames = first.to_pandas(), second.to_pandas()  # in which NaN equals NaN
        pd.testing.assert_frame_equal(*frames, check_exact=True, obj=name)


def mlflow_settings(folder: Path, uri: str | None = None) -> Any:
    """Return the settings of `tracking=mlflow` with this folder and address."""
    from src.config.sections import TrackingSettings

    target = "src.tracking.mlflow_store.MlflowStore"
    keys = {"_target_": target, "directory": str(folder), "uri": uri}
    return TrackingSettings.model_validate(keys)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that returns a folder which one of pytest's processes fills for all of them."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def build(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / f"built-{name}"
        with FileLock(root / f"built-{name}.lock"):
            if not (folder / ".complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                (folder / ".complete").touch()
        return folder

    return build


@pytest.fixture(scope="session")
def empty_store(built_once: Callable[..., Path]) -> Path:
    """An MLflow store to be copied."""
    from src.tracking import open_tracker

    def build(folder: Path) -> None:  # it takes seconds
        open_tracker(mlflow_settings(folder / "mlruns"), "atonce")

    return built_once("store", build) / "mlruns"


def run_words(folder: Path, *arguments: str, module: str = "src.main") -> int:
    """Run a command line in a folder, as a process of its own would, and return its exit code."""
    known, logs = set(sys.modules), set(logging.root.handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            status: int = import_module(module).main()
            return status
        finally:
            for log in set(logging.root.handlers) - logs:  # Hydra would drop them open
                logging.root.removeHandler(log)
                with suppress(OSError):  # of a full disk
                    log.close()
            for name in set(sys.modules) - known:
                file = getattr(sys.modules[name], "__file__", None)
                if file and Path(file).is_relative_to(folder):
                    del sys.modules[name]


def free_port() -> int:
    """Return the number of a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def printed_cells(text: str) -> Iterator[tuple[str, str, str, float, bool]]:
    """Yield attack, source, target, rate and whether a white box, from matrices in summary.txt."""
    start = r"^Still correct: (\w+) on .*?\n(.*?)(?=\n\n|\Z)"
    for attack, block in re.findall(start, text, re.M | re.S):
        head, *lines = block.splitlines()
        targets = re.findall(r"-> (\S+)", head)
        for line in lines:
            counts = re.findall(r"(\*?)(\d+) / (\d+) =", line)
            for target, (mark, k, n) in zip(targets, counts, strict=False):
                yield attack, line.split()[0], target, int(k) / int(n), bool(mark)


def run_python(*words: str | Path, folder: Path, path: Path = REPOSITORY) -> str:
    """Run Python in a folder, with the code in another, and return what it prints."""
    folders = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def run_in() -> Callable[..., int]:
    """A function that runs a command line in a folder, as a process of its own would."""
    return run_words


@pytest.fixture(scope="session")
def run_tiny(run_in: Callable[..., int]) -> Callable[..., int]:
    """A function that runs jobs in a folder on the two tiny models."""
    return lambda folder, *others, words=TINY_RUN: run_in(folder, *replaced(words, *others))


@pytest.fixture(scope="session")
def printed_by() -> Callable[..., tuple[int, str]]:
    """A function that calls another one, and returns its result with what it has printed."""

    def call(function: Callable[..., int], *arguments: str | Path) -> tuple[int, str]:
        with redirect_stdout(StringIO()) as printed:
            result = function(*arguments)
        return result, printed.getvalue()

    return call


@pytest.fixture(scope="session")
def tracked_sweep(
    built_once: Callable[..., Path], empty_store: Path, run_tiny: Callable[..., int]
) -> Path:
    """A folder whose `out` has a finished sweep: two attacks, three sources, four targets.

    The sweep has a report, and runs in `mlruns`. Tests only read the folder.
    """

    def fill(folder: Path) -> None:
        sources = {**POOLS, "finest": 2}
        pools = {**sources, "large": 16}
        (folder / "weights").mkdir()
        write_weights(folder / "weights", pools)
        write_workspace(folder, folder / "weights", pools)
        shutil.copytree(empty_store, folder / "mlruns")
        words = [f"source={','.join(sources)}", f"targets=[{','.join(pools)}]", "attack=fgsm,ti"]
        words += ["n_images=150", "trainer.batch_size=150", "epsilon.grid=[0,8]"]
        words += ["tracking=mlflow", "report=default"]
        assert run_tiny(folder, "-m", *words, "hydra.sweep.dir=out") == 0

    return built_once("sweep", fill)


@pytest.fixture
def run_job(workspace: Path, run_tiny: Callable[..., int]) -> Callable[..., int]:
    """A function that runs `python -m src.main` here on the two tiny models."""
    return partial(run_tiny, workspace)


def replaced(words: Sequence[str], *others: str) -> list[str]:
    """Return words with others in the place of those of the same keys, or behind them."""
    keys = [word.partition("=")[0] for word in words]
    own = {word.partition("=")[0]: word for word in others}
    first = [own.get(key, word) for key, word in zip(keys, words, strict=True)]
    return [*first, *(word for word in others if word.partition("=")[0] not in keys)]


def own_attack(workspace: Path, name: str, text: str, code: str = "") -> None:
    """Add an attack of the user's own, its file and perhaps its module."""
    (workspace / "conf" / "attack" / f"{name}.yaml").write_text(f"{text}\nname: {name}\n")
    (workspace / f"{name}_code.py").write_text(code)
