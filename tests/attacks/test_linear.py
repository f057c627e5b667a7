"""Exact answers on linear models, whose optimum is known in closed form, and random starts."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.attacks import bim, emi, fgsm, mi, ni, pgd, pi_pregradient, project, vmi

WEIGHT = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25, 1.5, -1.0, 2.0, 0.75, -3.0, 1.0, 1.0])
SHAPE = (1, 3, 2, 2)
W = WEIGHT.reshape(SHAPE)


def linear(images: Tensor) -> Tensor:
    """Two classes, logits (+w.x, -w.x): class 0's loss rises along -w."""
    score = images.flatten(1) @ WEIGHT.to(images.dtype)
    return torch.stack([score, -score], dim=1)


def optimum(images: Tensor, ascent: Tensor, eps: float, norm: str) -> Tensor:
    """The highest point of a linear function in the ball, away from the pixel range."""
    if norm == "linf":
        return images + eps * ascent.sign()
    return images + eps * ascent.numel() ** 0.5 * ascent / ascent.norm()


ATTACKS = {
    "fgsm": fgsm,
    "bim": bim,
    "bim, 3 steps": partial(bim, steps=3),
    "mi": mi,
    "mi, long steps": partial(mi, relative_step_size=1.0),
    "ni": ni,
    "pi": pi_pregradient,
    "emi": emi,
    "vmi": vmi,
    "pgd, not random": partial(pgd, random_start=None),
}
CASES = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


@CASES
@NORMS
def test_reaches_the_optimum_of_the_ball(attack, norm):
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    for loss, sign in itertools.product(("cross_entropy", "margin"), (1, -1)):
        words = {"norm": norm, "loss": loss, "targeted": sign == -1}
        result = attack(linear, images, labels, 0.1, **words)
        ways = (-sign * W, sign * W)
        expected = torch.cat([optimum(images[:1], way, 0.1, norm) for way in ways])
        torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)


def test_pgd_reaches_it_from_anywhere():
    """From any start 10 steps of a quarter of the radius cross the L-infinity ball."""
    images, labels = torch.full(SHAPE, 0.5).expand(5, -1, -1, -1), torch.tensor([1] * 5)
    for start in ("uniform", "sign"):
        result = pgd(linear, images, labels, 0.1, random_start=start)
        torch.testing.assert_close(result, optimum(images, W, 0.1, "linf").expand_as(images))
    result = pgd(linear, images, labels, 0.1, norm="l2", steps=60, relative_step_size=0.25)
    expected = optimum(images[:1], W, 0.1, "l2")  # each step leaves 1 / 1.25 of the angle
    torch.testing.assert_close(result, expected.expand_as(images), atol=1e-5, rtol=0)


@CASES
@NORMS
def test_stops_at_the_pixel_range(attack, norm):
    images = torch.linspace(0, 1, 12).reshape(SHAPE)
    result = attack(linear, images, torch.tensor([1]), 0.2, norm=norm)
    expected = optimum(images, W, 0.2, norm).clamp(0, 1)
    assert (expected == 1).any() and (expected == 0).any()
    if norm == "linf" or attack is fgsm:  # in L2, later steps use what the border has saved
        torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)
    assert result.min() >= 0 and result.max() <= 1
    assert linear(result)[0, 0] >= linear(expected)[0, 0] - 1e-4


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6), st.floats(0, 1), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_project_keeps_what_is_inside_and_moves_the_rest_to_the_border(
    norm, seed, eps, count, height, width
):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, height, width)
    clean = torch.full(shape, 0.5, dtype=torch.float64)
    far = clean + torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3
    radius = torch.tensor(eps / 2, dtype=torch.float64)
    change, wish = project(far, clean, radius, norm) - clean, far - clean
    if norm == "linf":
        expected = wish.clamp(-radius, radius)
    else:
        size = wish.square().mean((1, 2, 3), keepdim=True).sqrt()
        expected = (wish * (radius / size).clamp_max(1)).clamp(-0.5, 0.5)
    torch.testing.assert_close(change, expected, atol=1e-15, rtol=1e-12)


# Random starts


def starts(**settings) -> Tensor:
    """Return how far from grey images attacks start, over the radius: shape (2, 400, 12).

    The source has no gradient, which leaves images where they start.
    """
    images, labels = torch.full((400, *SHAPE[1:]), 0.5), torch.zeros(400, dtype=torch.int64)
    eps = torch.tensor([0.05, 0.1])
    result = pgd(lambda images: 0 * images.flatten(1), images, labels, eps, steps=1, **settings)
    change = ((result - images) / eps.reshape(2, 1, 1, 1, 1)).flatten(2)
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
