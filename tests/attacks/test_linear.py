"""Exact answers: optima of linear models in closed form, random starts, and losses by hand."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from src.attacks import LOSSES, bim, emi, fgsm, mi, ni, pgd, pi_pregradient, vmi

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
    **{"fgsm": fgsm, "bim": bim, "mi": mi, "ni": ni, "pi": pi_pregradient, "emi": emi, "vmi": vmi},
    "mi, long steps": partial(mi, relative_step_size=1.0),
    "pgd, not random": partial(pgd, random_start=None),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_reaches_the_optimum_of_the_ball_and_stops_at_the_pixel_range(attack):
    images, labels = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    for norm in ("linf", "l2"):
        for loss, sign in itertools.product(("cross_entropy", "margin"), (1, -1)):
            words = {"norm": norm, "loss": loss, "targeted": sign == -1}
            result = attack(linear, images, labels, 0.1, **words)
            ways = (-sign * W, sign * W)
            expected = torch.cat([optimum(images[:1], way, 0.1, norm) for way in ways])
            torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)
        dark = torch.linspace(0, 1, 12).reshape(SHAPE)
        result = attack(linear, dark, torch.tensor([1]), 0.2, norm=norm)
        expected = optimum(dark, W, 0.2, norm).clamp(0, 1)
        assert (expected == 1).any() and (expected == 0).any()
        if norm == "linf" or attack is fgsm:  # in L2, later steps use what the border has saved
            torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)
        assert result.min() >= 0 and result.max() <= 1
        assert linear(result)[0, 0] >= linear(expected)[0, 0] - 1e-4


def starts(**settings) -> Tensor:
    """Return how far from grey images attacks start, over the radius: shape (2, 400, 12).

    The source has no gradient, which leaves images where they start.
    """
    images, labels = torch.full((400, *SHAPE[1:]), 0.5), torch.zeros(400, dtype=torch.int64)
    words = {"steps": 1, "start_radius": 0.5, **settings}
    eps = torch.tensor([0.05, 0.1])
    result = pgd(lambda images: 0 * images.flatten(1), images, labels, eps, **words)
    change = ((result - images) / eps.reshape(2, 1, 1, 1, 1)).flatten(2)
    torch.testing.assert_close(change[0], change[1], atol=1e-5, rtol=0)  # budgets share them
    assert change.mean().abs() < 0.05
    return change / 0.5


def test_random_starts_fill_the_ball():
    """The share of the volume within a radius r is r^D: that of each start is uniform in [0, 1]."""
    cube, corner, ball = starts(), starts(random_start="sign"), starts(norm="l2")
    assert 0.99 < cube.abs().max() <= 1 + 1e-5
    assert cube.std() == pytest.approx(3**-0.5, rel=0.03)
    torch.testing.assert_close(corner.abs(), torch.ones_like(corner), atol=1e-5, rtol=0)
    volume = ball.square().mean(2).sqrt() ** 12
    assert volume.max() <= 1 + 1e-4
    assert volume.mean() == pytest.approx(0.5, abs=0.05)
    assert volume.std() == pytest.approx(12**-0.5, abs=0.03)


def by_hand(name: str, logits: list[float], label: int, targeted: bool) -> float:
    """The loss of one image, from its logits as a list."""
    own, others = logits[label], [z for i, z in enumerate(logits) if i != label]
    sign = -1 if targeted else 1
    if name == "calibrated":
        first, second = sorted(logits)[:-3:-1]
        logits = [z / (first - second) for z in logits]
        own = logits[label]
    if name in ("cross_entropy", "calibrated"):
        top = max(logits)
        return sign * (top + math.log(sum(math.exp(z - top) for z in logits)) - own)
    return sign * -own if name == "logit" else sign * (max(others) - own)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_hand_whose_gradients_are_finite_at_ties_and_at_the_ends(name, targeted):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (40,), generator=generator)
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    expected = [by_hand(name, *row, targeted) for row in rows]
    assert LOSSES[name](logits, labels, targeted).tolist() == pytest.approx(expected)
    ends = [[0.0] * 5, [1e4, 0, 0, 0, 0], [0, 1e4, 0, 0, 0], [-1e4, 3, 3, 3, 3]]
    logits = torch.tensor([*ends, *ends], requires_grad=True)
    loss = LOSSES[name](logits, torch.tensor([0, 1] * 4), targeted)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_several_models_are_averaged(name):
    """Logits (M, N, C): the gradient is that of the mean of the losses, not of the logits."""
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(3, 12, 6, generator=generator, dtype=torch.float64)
    images = torch.rand(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 5, 1])
    variable = images.clone().requires_grad_()
    losses = sum(LOSSES[name](variable.flatten(1) @ w, labels, False) for w in weights) / 3
    (gradient,) = torch.autograd.grad(losses.sum(), variable)
    expected = gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt() * 0.05
    words = {"steps": 1, "norm": "l2", "loss": name}
    result = bim(lambda images: images.flatten(1) @ weights, images, labels, 0.05, **words)
    torch.testing.assert_close(result, (images + expected).clamp(0, 1), atol=1e-12, rtol=0)
