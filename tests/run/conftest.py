"""A small data set, linear classifiers, and a pass over the images."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from src.data import ImageDataset, LabelledImages
from tests.job_context import run_modules


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
    """A function that attacks the data set through networks, see `run_modules`."""

    def make(networks, *arguments, **keywords):
        return run_modules(dataset, networks, *arguments, **keywords)

    return make
