"""Small images, networks, and a pass over them with diagnostics."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.attacks import fgsm
from src.data import Batch, ImageDataset, LabelledImages, to_unit
from src.run.craft import make_attacker
from tests.job_context import TRAINER, run_modules


def make_images(
    count: int = 11,
    side: int = 8,
    classes: int = 3,
    low: int = 90,
    model: nn.Module | None = None,
) -> ImageDataset:
    """Return a data set of grey-ish noise, so that no attack leaves [0, 1].

    With a `model` its classes are those that the model predicts, so that some can flip.
    """
    draws = [np.random.default_rng(number) for number in range(count)]
    shape = side, side, 3
    pixels = np.stack([draw.integers(low, 256 - low, shape, dtype=np.uint8) for draw in draws])
    labels, names = np.arange(count) * 7 % classes, tuple(map(str, range(classes)))
    if model is not None:
        labels = model(to_unit(torch.from_numpy(pixels).permute(0, 3, 1, 2))).argmax(1).numpy()
    return ImageDataset(LabelledImages(pixels, labels, names))


def all_of(dataset: ImageDataset) -> tuple[Tensor, Batch]:
    """Return all images of a data set, in [0, 1] and as a batch."""
    return to_unit(dataset[:].images), dataset[:]


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


def linear(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
    """Return a linear classifier; different seeds agree on many images."""
    layers = nn.Sequential(nn.Flatten(), related(classes, 3 * side * side, seed, 1.0))
    return layers.eval().requires_grad_(False)


def curved(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
    """Return a small network whose predictions are not monotonous in the budget."""
    first, last = related(32, 3 * side * side, seed, 0.6), related(classes, 32, seed, 1.0)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last).eval().requires_grad_(False)


def diagnosed(
    dataset: ImageDataset,
    source: nn.Module,
    networks: dict[str, nn.Module],
    attack: Callable[..., Tensor] = fgsm,
    budgets: Sequence[float] = (2.0, 8.0, 16.0),
    only: dict[str, Any] | None = None,
    batch_size: int = 4,
    max_batch: int = 4,
    **settings: Any,
) -> SimpleNamespace:
    """Attack a data set with diagnostics: return their tables in pandas, and the rest."""
    trainer = {"batch_size": batch_size, "gradient_batch": max_batch}
    settings |= {"source": source, "reference": 8.0, "diagnostics": only or {}}
    settings["trainer"] = TRAINER.model_copy(update=trainer)
    run = run_modules(dataset, networks, attack, budgets, **settings)
    tables = {name: table.to_pandas() for name, table in run.tables.items()}
    attacker = make_attacker(run.job)
    return SimpleNamespace(attacker=attacker, results=run.results, tables=tables, **tables)
