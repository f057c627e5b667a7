"""A small data set, linear classifiers, and a pass over the images."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
from torch import nn

from src.data import ImageDataset
from tests.job_context import run_modules
from tests.measure import small


@pytest.fixture
def dataset() -> ImageDataset:
    return small.make_images(low=0)


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    return {"a": small.linear(0), "b": small.linear(1)}


@pytest.fixture
def run(dataset) -> Callable[..., SimpleNamespace]:
    """A function that attacks the data set through networks, see `run_modules`."""
    return partial(run_modules, dataset)
