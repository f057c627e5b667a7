"""Small images, networks, and a pass over them with diagnostics."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm
from src.data import Batch, ImageDataset, LabelledImages, to_unit
from src.diagnostics import DiagnosticSettings, make_diagnostics
from src.evaluation import Attacker, Evaluation, evaluate

TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32-true",
    "batch_size": 4,
    "num_workers": 0,
    "progress_bar": False,
}
FULL = {"bisection": 6, "spectra": True, "filters": True, "similarity": True}


@pytest.fixture(scope="session")
def images() -> Callable[..., ImageDataset]:
    """A function that makes a data set of grey-ish noise, so that no attack leaves [0, 1]."""

    def make(count: int = 11, side: int = 8, classes: int = 3, low: int = 90) -> ImageDataset:
        def pixels(position: int) -> np.ndarray:
            random = np.random.default_rng(position)
            return random.integers(low, 256 - low, (side, side, 3), dtype=np.uint8)

        labels = np.arange(count) * 7 % classes
        names = tuple(str(number) for number in range(classes))
        return ImageDataset(LabelledImages([pixels(i) for i in range(count)], labels, names))

    return make


def related(rows: int, columns: int, seed: int, size: float) -> nn.Linear:
    """Return a layer like those of other seeds, which answers grey images with 0."""
    layer = nn.Linear(columns, rows)
    common, own = (
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(number))
        for number in (rows * columns, seed)
    )
    weight = size * (common + 0.6 * own)
    layer.weight.data = weight - weight.mean(dim=1, keepdim=True)
    layer.bias.data.zero_()
    return layer


@pytest.fixture(scope="session")
def linear() -> Callable[..., nn.Module]:
    """A function that makes a linear classifier; different seeds agree on many images."""

    def make(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
        layers = nn.Sequential(nn.Flatten(), related(classes, 3 * side * side, seed, 1.0))
        return layers.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def curved() -> Callable[..., nn.Module]:
    """A function that makes a small network whose answers are not monotonous in the budget."""

    def make(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
        first, last = related(32, 3 * side * side, seed, 0.6), related(classes, 32, seed, 1.0)
        layers = nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)
        return layers.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def correct() -> Callable[[ImageDataset, nn.Module], ImageDataset]:
    """A function that gives a data set the classes that a model sees in it."""

    def make(dataset: ImageDataset, model: nn.Module) -> ImageDataset:
        whole = dataset.__getitems__(list(range(len(dataset))))
        labels = model(to_unit(whole.images)).argmax(1).numpy()
        return ImageDataset(LabelledImages(list(whole.images), labels, dataset.class_names))

    return make


@pytest.fixture(scope="session")
def batch_of() -> Callable[[ImageDataset], tuple[Tensor, Batch]]:
    """A function that returns all images of a data set, in [0, 1] and as a batch."""

    def make(dataset: ImageDataset) -> tuple[Tensor, Batch]:
        whole = dataset.__getitems__(list(range(len(dataset))))
        return to_unit(whole.images), whole

    return make


@pytest.fixture(scope="session")
def probed() -> Callable[..., SimpleNamespace]:
    """A function that attacks a data set with diagnostics; returns tables as pandas, and the rest."""

    def make(
        dataset: ImageDataset,
        source: nn.Module,
        networks: dict[str, nn.Module],
        attack: Callable[..., Tensor] = fgsm,
        budgets: Sequence[float] = (2.0, 8.0, 16.0),
        standard: float = 8.0,
        analysis: dict | None = None,
        trainer: dict | None = None,
        forms=None,
        max_batch: int | None = None,
        probe_seed: int = 0,
        **words,
    ) -> SimpleNamespace:
        maker = Attacker(
            source, attack, budgets, num_classes=dataset.num_classes, max_batch=max_batch, **words
        )
        settings = DiagnosticSettings(**(FULL if analysis is None else analysis))
        result: Evaluation = evaluate(
            dataset,
            networks,
            TRAINER | (trainer or {}),
            label="test",
            maker=maker,
            forms=forms,
            diagnostics=make_diagnostics(settings, list(networks), standard, max_batch, probe_seed),
        )
        frames: dict[str, pd.DataFrame] = {
            name: table.to_pandas() for name, table in result.diagnostics.items()
        }
        return SimpleNamespace(maker=maker, result=result, **frames)

    return make
