import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

TINY = """# @package model.{name}
network:
  _target_: torch.nn.Sequential
  _args_:
    - {{_target_: torch.nn.AvgPool2d, kernel_size: {pool}}}
    - {{_target_: torch.nn.Flatten}}
    - {{_target_: torch.nn.Linear, in_features: {features}, out_features: {classes}}}
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
input_size: null
weights: null
expected_accuracy: null
"""


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tiny tensors: a second thread only costs


@pytest.fixture
def real_data() -> Path:
    """The folder of real images and weights, if there is one."""
    folder = Path(os.environ.get("TRANSFER_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing; TRANSFER_DATA may name another folder")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; its `conf/model/` holds two tiny models, `coarse` and `fine`."""
    models = tmp_path / "conf" / "model"
    models.mkdir(parents=True)
    for name, pool in (("coarse", 8), ("fine", 4)):
        features = 3 * (32 // pool) ** 2
        text = TINY.format(name=name, pool=pool, features=features, classes=10)
        (models / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return tmp_path


CONSTANT = """
from torch import nn


def build():
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    nn.init.zeros_(network[2].weight)
    return network
"""


@pytest.fixture
def coarse_guesses(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny model `coarse` one that gives every image the same class."""
    monkeypatch.syspath_prepend(workspace)
    (workspace / "guessing.py").write_text(CONSTANT)
    numbers = "mean: [0.5, 0.5, 0.5]\nstd: [0.25, 0.25, 0.25]\ninput_size: null\n"
    text = f"# @package model.coarse\nnetwork: {{_target_: guessing.build}}\n{numbers}"
    (workspace / "conf" / "model" / "coarse.yaml").write_text(text + "weights: included\n")


TINY_RUN = [
    "--config-dir=conf",
    "model=[coarse,fine]",
    "source=coarse",
    "targets=[coarse,fine]",
    "dataset=photos",
    "n_images=23",
    "training.epochs=2",
    "training.batch_size=50",
    "epsilon.grid=[0,0.5,4,8]",
    "trainer=cpu",
    "trainer.batch_size=10",
    "trainer.progress_bar=false",
    "report=none",
]


@pytest.fixture
def tiny_run() -> list[str]:
    """Words that make any job small."""
    return list(TINY_RUN)


@pytest.fixture
def command_line(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that runs the command line here with two tiny models and returns its exit code."""

    def run(*arguments: str) -> int:
        from src.main import main

        flags = [argument for argument in arguments if argument.startswith("-")]
        words = [argument for argument in arguments if argument not in flags]
        if not any(argument.startswith("dataset=") for argument in arguments):
            words = ["dataset.n_train=200", *words]
        monkeypatch.setattr(sys, "argv", ["src.main", *flags, *TINY_RUN, *words])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run
