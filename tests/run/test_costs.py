"""Operations of networks, against those that torch counts while it computes a gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from src.models import PixelClassifier
from src.models.small import inception_small, resnet_small, vit_small
from src.run.costs import count_operations


def classifier(network, input_size=None):
    frozen = network.eval().requires_grad_(False)
    return PixelClassifier(frozen, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), input_size)


@pytest.mark.parametrize("build", [resnet_small, inception_small, vit_small])
def test_operations_are_those_of_a_computed_gradient(build):
    network = build(10)
    images, counter = torch.zeros(1, 3, 32, 32, requires_grad=True), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        logits = network.eval().requires_grad_(False)(images)
        forward = counter.get_total_flops()
        logits.sum().backward()
    state = torch.get_rng_state()
    counted = count_operations(classifier(network), 32)
    assert counted["prediction"] == pytest.approx(forward, rel=0.01)
    assert counted["gradient"] == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert torch.equal(torch.get_rng_state(), state)
    assert {value.device.type for value in network.state_dict().values()} == {"cpu"}


def test_operations_of_a_convolution_worked_out_by_hand():
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    forward = 2 * (3 * 8 * 5 * 5 * 14 * 14 + 8 * 14 * 14 * 10)
    expected = {"prediction": forward, "gradient": 2 * forward, "training": 3 * forward}
    assert count_operations(classifier(layers), 32) == expected
    assert count_operations(classifier(layers, 32), 8) == expected  # resized to 32 pixels


class Branching(nn.Module):
    """Reads a value, so it needs real images."""

    def forward(self, images):
        return images.flatten(1)[:, :10] * (2 if images.sum() > 0 else 1)


def test_operations_of_a_network_that_reads_values_are_unknown():
    assert all(map(math.isnan, count_operations(classifier(Branching()), 32).values()))
