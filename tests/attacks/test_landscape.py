"""Gradients of a source's members, and of several copies' mean logits."""

import pytest
import torch
from torch import nn

from src.attacks import (
    PerImageRandom,
    Problem,
    Scale,
    Settings,
    Source,
    Warp,
    image_seeds,
    si_ni,
    svre,
)
from src.attacks.landscape import Landscape
from src.images.attacker import CountedModel
from src.models import Ensemble


@pytest.fixture
def landscape(batch):
    """A function that makes the landscape of a source around three images."""

    def make(model: nn.Module, **settings) -> Landscape:
        images, labels = batch(3)
        random = PerImageRandom(torch.arange(3), images, labels, (images, labels))
        eps = torch.tensor([8 / 255]).reshape(1, 1, 1, 1, 1)
        problem = Problem(Source(model), images, labels, False, random, eps, "linf")
        return Landscape(problem, Settings(**settings))

    return make


@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
def test_the_gradient_of_a_member_is_that_of_its_model_alone(average, network, landscape):
    models = [network(0), network(1)]
    source, parts = CountedModel(Ensemble(models, average)), (Scale(2), Warp(1, rho=0.5))
    for number, model in enumerate(models):
        both, alone = (landscape(one, transforms=parts, kernel_size=3) for one in (source, model))
        at = both.problem.images[None] * torch.tensor([0.9, 0.8]).reshape(2, 1, 1, 1, 1)
        before = source.counts.gradients
        found = both.gradient(at, member=number)
        assert torch.equal(found, alone.gradient(at)) and found.abs().amax() > 0
        cost = 2 * 2 * 2 * 3  # copies and their warps' own gradients, budgets, images
        assert source.counts.gradients - before == cost
        assert torch.equal(both.losses(at, number), alone.losses(at))


def test_averaged_logits_bound_the_passes_held_at_once(network, batch):
    """Three copies of two images are as many as six gradients."""
    seen: list[int] = []
    model = network()

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return model(images)

    words = {"copies": 3, "copies_average": "logits", "max_batch": 6, "steps": 2}
    si_ni(watched, *batch(5), torch.tensor([1, 8]) / 255, **words)
    assert max(seen) == 2


def test_images_of_a_run_draw_the_same_members(network, batch):
    images, labels = batch()
    ensemble = CountedModel(Ensemble([network(0), network(1)], "logits").double())
    given, words = (ensemble, images.double(), labels, 8 / 255), {"steps": 2}
    seeds = torch.cat([image_seeds(run, torch.arange(2)) for run in (0, 7)])
    both = svre(*given, seeds=seeds, **words)
    runs = [svre(*given, seeds=image_seeds(run, torch.arange(4)), **words) for run in (0, 7)]
    assert not torch.equal(*runs)
    torch.testing.assert_close(both, torch.cat([runs[0][:2], runs[1][2:]]), atol=1e-12, rtol=0)
