"""Exact answers: random starts, losses by hand, and the best of restarts and iterates."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from src.attacks import LOSSES, bim, pgd

SHAPE, GRID = (1, 3, 2, 2), torch.tensor([1, 8, 32]) / 255


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


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_hand_whose_gradients_are_finite_at_ties_and_at_the_ends(name, targeted):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (40,), generator=generator)
    own, rival = logits.gather(1, labels[:, None]), logits.scatter(1, labels[:, None], -math.inf)
    first, second = logits.topk(2).values.T[..., None]
    expected = {
        "cross_entropy": cross_entropy(logits, labels, reduction="none"),
        "calibrated": cross_entropy(logits / (first - second), labels, reduction="none"),
        "logit": -own[:, 0],
        "margin": (rival.amax(1, keepdim=True) - own)[:, 0],
    }[name] * (-1 if targeted else 1)
    torch.testing.assert_close(LOSSES[name](logits, labels, targeted), expected)
    ends = [[0.0] * 5, [1e4, 0, 0, 0, 0], [0, 1e4, 0, 0, 0], [-1e4, 3, 3, 3, 3]]
    logits = torch.tensor([*ends, *ends], requires_grad=True)
    loss = LOSSES[name](logits, torch.tensor([0, 1] * 4), targeted)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_several_models_are_averaged(name):
    """Logits (M, N, C): the gradient is that of the mean of the losses, not of the logits."""
    random = partial(torch.rand, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weights, images, labels = random(3, 12, 6), random(4, 3, 2, 2), torch.tensor([0, 3, 5, 1])
    variable = images.clone().requires_grad_()
    losses = sum(LOSSES[name](variable.flatten(1) @ w, labels, False) for w in weights) / 3
    (gradient,) = torch.autograd.grad(losses.sum(), variable)
    expected = gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt() * 0.05
    words = {"steps": 1, "norm": "l2", "loss": name}
    result = bim(lambda images: images.flatten(1) @ weights, images, labels, 0.05, **words)
    torch.testing.assert_close(result, (images + expected).clamp(0, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_best_restart_and_the_best_iterate_have_the_highest_loss(targeted, network, batch):
    """Of long steps, whose losses fall now and then, and up to any step and at any budget."""
    model, (images, labels) = network(), batch(8)
    attack = partial(pgd, model, images, labels, GRID, loss="margin", targeted=targeted)

    def losses(grid):
        return torch.stack([LOSSES["margin"](model(one), labels, targeted) for one in grid])

    one, five = (losses(attack(steps=2, restarts=restarts)) for restarts in (1, 5))
    assert (five >= one - 1e-6).all() and (five > one + 1e-6).any(dim=1).all()
    steps = partial(attack, relative_step_size=1.5)
    iterates = torch.stack([steps(steps=number) for number in range(1, 7)])
    every = torch.stack([losses(grid) for grid in iterates])
    assert (every[-1] < every.amax(dim=0)).any()
    for number in (2, 6):
        best = every[:number].argmax(dim=0)[None, ..., None, None, None].expand_as(iterates[:1])
        assert torch.equal(steps(steps=number, keep_best=True), iterates.gather(0, best)[0])
