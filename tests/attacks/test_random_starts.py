"""Random starts, seen with a source without a gradient, which leaves images where they start."""

import pytest
import torch
from torch import Tensor

from src.attacks import pgd

COUNT, SHAPE = 400, (3, 2, 2)
EPS = torch.tensor([0.05, 0.1])


def blind(images: Tensor) -> Tensor:
    return 0 * images.flatten(1)


def starts(**settings) -> Tensor:
    """Return how far from grey images attacks start, over the radius: shape (2, COUNT, 12)."""
    images = torch.full((COUNT, *SHAPE), 0.5)
    labels = torch.zeros(COUNT, dtype=torch.int64)
    result = pgd(blind, images, labels, EPS, steps=1, **settings)
    change = ((result - images) / EPS.reshape(2, 1, 1, 1, 1)).flatten(2)
    torch.testing.assert_close(change[0], change[1], atol=1e-5, rtol=0)  # budgets share them
    assert change.mean().abs() < 0.05
    return change / settings.get("start_radius", 1)


def test_a_uniform_start_fills_the_cube():
    change = starts(start_radius=0.5)
    assert 0.99 < change.abs().max() <= 1 + 1e-5
    assert change.std() == pytest.approx(3**-0.5, rel=0.03)


def test_a_sign_start_is_a_corner_of_the_cube():
    change = starts(random_start="sign", start_radius=0.5)
    torch.testing.assert_close(change.abs(), torch.ones_like(change), atol=1e-5, rtol=0)


def test_a_uniform_start_fills_the_l2_ball():
    """The share of the volume within a radius r is r^D: that of each start is uniform in [0, 1]."""
    volume = starts(norm="l2", start_radius=0.5).square().mean(2).sqrt() ** 12
    assert volume.max() <= 1 + 1e-4
    assert volume.mean() == pytest.approx(0.5, abs=0.05)
    assert volume.std() == pytest.approx(12**-0.5, abs=0.03)
