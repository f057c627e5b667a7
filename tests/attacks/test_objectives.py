"""Objectives at a layer: number formats, and transforms and restarts beside them."""

import pytest
import torch
from torch import nn

from src.attacks import (
    DiverseInput,
    FeatureImportance,
    IntermediateLevel,
    PerImageRandom,
    PerturbationDecay,
    Problem,
    Source,
    cfm,
    fia,
    ilpd,
)
from src.images.attacker import CountedModel


@pytest.mark.parametrize(
    "objective", [FeatureImportance(masks=2), PerturbationDecay(), IntermediateLevel()]
)
def test_losses_are_float32_whatever_the_network_computes_in(objective, network, batch):
    images, labels = batch()
    random = PerImageRandom(torch.arange(4), images, labels, (images, labels))
    source = Source(CountedModel(network(), bf16=True), "0")  # a convolution
    assert source.features(images)[0].dtype == torch.bfloat16
    eps = torch.tensor([4, 8]).reshape(2, 1, 1, 1, 1) / 255
    problem = Problem(source, images, labels, False, random, eps, "linf")
    prepared = objective.prepare(problem)
    losses = objective.losses(problem, torch.stack([images, 1 - images]), prepared)
    assert losses.shape == (2, 4) and losses.dtype == torch.float32 and losses.isfinite().all()


def test_transforms_and_restarts_go_with_them(network, batch):
    for attack, words, prepared in ((fia, {"masks": 2}, 2), (ilpd, {}, 0)):  # once for all steps
        counted = CountedModel(network())
        words |= {"random_start": "uniform", "restarts": 2, "transforms": (DiverseInput(1.0, 1.3),)}
        attack(counted, *batch(), torch.tensor([1, 8]) / 255, steps=2, **words)
        assert counted.counts.gradients == 4 * (prepared + 2 * 2 * 2)


def test_features_are_mixed_as_they_were_before_a_relu_in_place(network, batch):
    made = []
    for inplace in (False, True):
        first, *_, last = network()
        parts = [first, nn.ReLU(inplace), nn.AdaptiveAvgPool2d(2), nn.Flatten(), last]
        words = {"max_width": 1.0, "mix_probability": 1.0, "steps": 3}
        made.append(cfm(nn.Sequential(*parts), *batch(), 8 / 255, **words))
    assert torch.equal(*made)


def test_layers_that_mix_are_narrow_beside_what_the_network_resizes_images_to(network, batch):
    first, *_, last = network()
    parts = [nn.Upsample(scale_factor=4), nn.Conv2d(3, first.out_channels, 4, stride=4)]
    model = nn.Sequential(*parts, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), last)
    words = {"mix_probability": 1.0, "steps": 3}
    made = [cfm(model, *batch(), 8 / 255, max_width=width, **words) for width in (0.25, 1.0, 0.2)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
