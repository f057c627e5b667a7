"""A small data set, linear classifiers, and a pass over the images."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from src.attacks import fgsm
from src.config.settings import TrainerSettings
from src.data import ImageDataset, LabelledImages
from src.images.attacker import Attacker
from src.run.evaluate import evaluate
from src.run.lightning_module import Transfer, total

TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)
BUDGETS = (2.0, 16.0)


@pytest.fixture
def dataset() -> ImageDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    return ImageDataset(LabelledImages(pixels, np.arange(11) % 3, ("x", "y", "z")))


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    def make(seed: int = 0, classes: int = 3) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, classes)).eval().requires_grad_(False)

    return make


@pytest.fixture
def networks(linear) -> dict[str, nn.Module]:
    return {"a": linear(0), "b": linear(1)}


@pytest.fixture
def run(dataset) -> Callable[..., SimpleNamespace]:
    """A function that attacks with the first network: tables, images by index, and gradients."""

    def make(networks, attack=fgsm, trainer=TRAINER, source=None, words=None, **attacker):
        images: dict[int, np.ndarray] = {}
        kept = []

        def keep(parts):
            rows = parts.get("images")
            kept.append(rows)
            for index, flat in zip(*rows.to_pydict().values(), strict=True) if rows else ():
                images[index] = np.float32(flat).reshape(-1, 3, 8, 8)

        source = next(iter(networks.values())) if source is None else source
        attacker = Attacker(source, attack, BUDGETS, num_classes=3, **attacker)
        module = Transfer(networks, attacker, keep=keep, kept_images=None, **words or {})
        found = evaluate(dataset, module, trainer)
        gradients = total(found.tables["crafting"], "gradients")
        keys = [(name, "ascending") for name in ("target", "eps_255", "index")]
        tables = {
            name: table.sort_by([key for key in keys if key[0] in table.column_names])
            for name, table in found.tables.items()
        }
        return SimpleNamespace(
            **{"tables": tables, "images": images, "parts": len(kept)},
            gradients=gradients,
            batch_size=found.batch_size,
        )

    return make
