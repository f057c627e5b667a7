"""Small images, networks, and a pass over them with diagnostics."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm
from src.data import Batch, ImageDataset, LabelledImages, to_unit
from src.run.craft import make_attacker
from tests.job_context import TRAINER, run_modules

FULL = {"bisection": 3, "tables": ["all"]}


@pytest.fixture(scope="session")
def images() -> Callable[..., ImageDataset]:
    """A function that makes a data set of grey-ish noise, so that no attack leaves [0, 1].

    With a `model` its classes are those that the model predicts, so that some can flip.
    """

    def make(
        count: int = 11,
        side: int = 8,
        classes: int = 3,
        low: int = 90,
        model: nn.Module | None = None,
    ) -> ImageDataset:
        size = (side, side, 3)
        draws = [np.random.default_rng(number) for number in range(count)]
        pixels = np.stack([draw.integers(low, 256 - low, size, dtype=np.uint8) for draw in draws])
        labels = np.arange(count) * 7 % classes
        if model is not None:
            clean = to_unit(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            labels = model(clean).argmax(1).numpy()
        return ImageDataset(LabelledImages(pixels, labels, tuple(map(str, range(classes)))))

    return make


def related(rows: int, columns: int, seed: int, size: float) -> nn.Linear:
    """Return a layer like those of other seeds, whose logits of grey images are 0."""
    layer = nn.Linear(columns, rows)
    common, own = (
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(number))
        for number in (rows * columns, seed)
    )
    weight = size * (common + 0.6 * own)
    layer.weight.data = weight - weight.mean(dim=1, keepdim=True)
    layer.bias.data.zero_()
    return layer


def make_linear(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), related(classes, 3 * side * side, seed, 1.0))
    return layers.eval().requires_grad_(False)


def make_curved(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
    first, last = related(32, 3 * side * side, seed, 0.6), related(classes, 32, seed, 1.0)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last).eval().requires_grad_(False)


def all_of(dataset: ImageDataset) -> tuple[Tensor, Batch]:
    whole = dataset[:]
    return to_unit(whole.images), whole


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """A function that makes a linear classifier; different seeds agree on many images."""
    return make_linear


@pytest.fixture
def curved() -> Callable[..., nn.Module]:
    """A function that makes a small network whose predictions are not monotonous in the budget."""
    return make_curved


@pytest.fixture
def batch_of() -> Callable[[ImageDataset], tuple[Tensor, Batch]]:
    """A function that returns all images of a data set, in [0, 1] and as a batch."""
    return all_of


@pytest.fixture
def diagnosed() -> Callable[..., SimpleNamespace]:
    """A function that attacks a data set with diagnostics: their tables in pandas, and the rest."""

    def make(
        dataset: ImageDataset,
        source: nn.Module,
        networks: dict[str, nn.Module],
        attack: Callable[..., Tensor] = fgsm,
        budgets: Sequence[float] = (2.0, 8.0, 16.0),
        reference: float = 8.0,
        only: dict | None = None,
        batch_size: int = 4,
        max_batch: int = 4,
        **settings,
    ) -> SimpleNamespace:
        trainer = {"batch_size": batch_size, "gradient_batch": max_batch}
        run = run_modules(
            *(dataset, networks, attack, budgets),
            source=source,
            reference=reference,
            diagnostics=FULL if only is None else only,
            trainer=TRAINER.model_copy(update=trainer),
            **settings,
        )
        tables = {name: table.to_pandas() for name, table in run.tables.items()}
        attacker = make_attacker(run.job)
        return SimpleNamespace(attacker=attacker, results=run.results, tables=tables, **tables)

    return make
