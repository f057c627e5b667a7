"""Objectives at a layer: gradients by hand, number formats, transforms and restarts beside them."""

import numpy as np
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
    Settings,
    Source,
    cfm,
    fia,
    ilpd,
)
from src.attacks.landscape import Landscape
from src.images.attacker import CountedModel

LABELS = torch.tensor([2, 0])


@pytest.fixture
def layers():
    """Three linear layers, with ReLUs between, and two images and their iterates."""
    random = np.random.default_rng(4)
    sizes = ((7, 12), (6, 7), (5, 6))
    return [random.normal(size=size) for size in sizes], random.uniform(size=(2, 2, 3, 2, 2))


def landscape(weights, images, objective, targeted=False):
    """The loss landscape of the objective at the output of the first ReLU."""
    parts = [nn.Linear(*reversed(each.shape), bias=False) for each in weights]
    model = nn.Sequential(nn.Flatten(), parts[0], nn.ReLU(), parts[1], nn.ReLU(), parts[2])
    for part, values in zip(parts, weights, strict=True):
        part.weight.data = torch.from_numpy(values)
    images = torch.from_numpy(images)
    random = PerImageRandom(torch.arange(2), images, LABELS, (images, LABELS))
    eps = torch.tensor([1.0]).reshape(1, 1, 1, 1, 1)
    settings = Settings(objective=objective)
    problem = Problem(Source(model, "2"), images, LABELS, targeted, random, eps, "linf")
    return Landscape(problem, settings)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_gradient_of_important_features_by_hand(layers, targeted):
    (a, b, c), (clean, moved) = layers
    objective = FeatureImportance(masks=1, probability=0.0)
    found = landscape([a, b, c], clean, objective, targeted).gradient(torch.from_numpy(moved)[None])
    for n, label in enumerate(LABELS.tolist()):
        hidden = np.maximum(a @ clean[n].ravel(), 0)
        weight = b.T @ (c[label] * (b @ hidden > 0))
        weight *= (1 if targeted else -1) / np.linalg.norm(weight)
        expected = a.T @ (weight * (a @ moved[n].ravel() > 0))
        np.testing.assert_allclose(found[0, n].ravel(), expected, atol=1e-12)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_gradient_behind_decayed_features_by_hand(layers, targeted):
    (a, b, c), (clean, moved) = layers
    objective = PerturbationDecay(weight=0.3, sigma_255=0.0)
    found = landscape([a, b, c], clean, objective, targeted).gradient(torch.from_numpy(moved)[None])
    for n, label in enumerate(LABELS.tolist()):
        own, kept = (np.maximum(a @ each[n].ravel(), 0) for each in (moved, clean))
        second = b @ (0.3 * own + 0.7 * kept)
        logits = c @ np.maximum(second, 0)
        error = np.exp(logits) / np.exp(logits).sum() - np.eye(5)[label]
        back = b.T @ ((c.T @ error) * (second > 0))
        expected = (-1 if targeted else 1) * a.T @ (0.3 * back * (own > 0))
        np.testing.assert_allclose(found[0, n].ravel(), expected, atol=1e-12)


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
