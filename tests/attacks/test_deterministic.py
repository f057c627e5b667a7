"""Attacks use no operator that a GPU computes differently in each run."""

import pytest
import torch
from torch import nn

from tests.attacks.test_invariants import EPS, attacked
from tests.nondeterministic import refuse_nondeterministic


def deterministic(model: nn.Sequential) -> nn.Sequential:
    """Return a network of the tests without its adaptive pooling to 2 x 2 values."""
    side = 3 if any(isinstance(part, nn.MaxPool2d) for part in model) else 6
    for number, part in enumerate(model):
        if isinstance(part, nn.AdaptiveAvgPool2d):
            model[number] = nn.AvgPool2d(side)
    return model


def test_attacks_are_deterministic_on_a_gpu(attack_name, small, network, batch):
    model, (images, labels) = deterministic(network()), batch()
    with refuse_nondeterministic():
        attacked(small(attack_name), model, images, labels, EPS, batch(6, seed=2))


def test_a_listed_operator_is_refused(network, batch):
    images = batch()[0].requires_grad_()
    grid = torch.rand(4, 12, 12, 2)
    with refuse_nondeterministic(), pytest.raises(RuntimeError, match="grid_sampler_2d_backward"):
        nn.functional.grid_sample(images, grid, align_corners=True).sum().backward()
