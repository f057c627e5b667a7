"""Gradients of a source's members, and of several copies' mean logits."""

import pytest
import torch
from torch import nn

from src.attacks import (
    FeatureImportance,
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


def test_averaged_logits_have_the_gradient_of_the_mean_computed_by_hand(network, landscape):
    """The gradient of -log softmax(z)_y by z is softmax(z) - e_y, z being the copies' mean."""
    model = network().double()
    found = landscape(model, transforms=(Scale(3),), copies_average="logits")
    at = found.problem.images[None].double()
    gradient = found.gradient(at)[0]
    for image, label, result in zip(at[0], found.problem.labels, gradient, strict=True):
        shown = [image / 2**i for i in range(3)]
        mean = torch.stack([model(each[None])[0] for each in shown]).mean(dim=0)
        slope = mean.softmax(0) - torch.eye(len(mean), dtype=mean.dtype)[label]
        slopes = [torch.autograd.functional.jacobian(lambda x: model(x[None])[0], x) for x in shown]
        expected = sum(torch.tensordot(slope, J, 1) / 2**i for i, J in enumerate(slopes)) / 3
        torch.testing.assert_close(result, expected, atol=1e-14, rtol=0)


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


def test_a_gradient_of_another_loss_has_no_objective(network, landscape):
    """As that in which `rap` looks for its worst point, whatever it maximises there."""
    mixed = landscape(network(), loss="logit", objective=FeatureImportance(masks=1), layer="1")
    plain = landscape(network())
    at = plain.problem.images[None]
    assert torch.equal(mixed.gradient(at, loss="cross_entropy"), plain.gradient(at))
    assert not torch.equal(mixed.gradient(at), plain.gradient(at))


def test_images_of_a_run_draw_the_same_members(network, batch):
    images, labels = batch()
    ensemble = CountedModel(Ensemble([network(0), network(1)], "logits").double())
    given, words = (ensemble, images.double(), labels, 8 / 255), {"steps": 2}
    seeds = torch.cat([image_seeds(run, torch.arange(2)) for run in (0, 7)])
    both = svre(*given, seeds=seeds, **words)
    runs = [svre(*given, seeds=image_seeds(run, torch.arange(4)), **words) for run in (0, 7)]
    assert not torch.equal(*runs)
    torch.testing.assert_close(both, torch.cat([runs[0][:2], runs[1][2:]]), atol=1e-12, rtol=0)
