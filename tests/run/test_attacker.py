"""An attack as the source of adversarial images: budgets, target labels, seeds and counts."""

from functools import partial

import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm, pgd
from src.data import Batch, to_unit
from src.defences import AttackedDefence
from src.images.attacker import Attacker, CountedModel
from src.models import Ensemble


def batch(count: int = 6, first: int = 0) -> Batch:
    index = torch.arange(first, first + count)
    draws = [torch.Generator().manual_seed(int(i)) for i in index]
    images = torch.stack([torch.randint(0, 256, (3, 8, 8), generator=draw) for draw in draws])
    return Batch(images.to(torch.uint8), index % 5, index)


@pytest.fixture
def model(linear) -> nn.Module:
    return linear(0, 5)


@pytest.fixture
def target_labels(model):
    """A function that returns the target labels that a rule gives a batch."""

    def make(rule: str, one: Batch, **words) -> torch.Tensor:
        words = {"target_label_rule": rule, "num_classes": 5} | words
        return Attacker(model, fgsm, **words)(to_unit(one.images), one, (8.0,)).target_labels

    return make


def test_target_labels_that_are_next_or_of_the_data(target_labels):
    labels = batch().labels.tolist()
    assert target_labels("next", batch()).tolist() == [(label + 1) % 5 for label in labels]
    chosen = {number: 4 - label for number, label in enumerate(labels)}
    found = target_labels("data", batch(), data_target_labels=chosen)
    assert found.tolist() == list(chosen.values())


def test_random_target_labels_belong_to_the_image(target_labels):
    many = batch(200)
    targets = target_labels("random", many, seed=3)
    assert torch.equal(target_labels("random", batch(4, first=2), seed=3), targets[2:6])
    counts = torch.bincount((targets - many.labels) % 5, minlength=5).tolist()
    assert counts[0] == 0 and min(counts[1:]) > 30
    assert not torch.equal(target_labels("random", many, seed=4), targets)


@pytest.mark.parametrize("rule", ["random", "data"])
def test_a_target_label_needs_another_class(rule, model):
    with pytest.raises(ValueError, match=f"^attack.target_label={rule} needs at least two classes"):
        Attacker(model, fgsm, target_label_rule=rule, num_classes=1)
    Attacker(model, fgsm, num_classes=1)


def test_least_likely_is_never_the_true_class(target_labels, model):
    images = batch(50)
    targets = target_labels("least_likely", images)
    lowest = model(to_unit(images.images)).argmin(dim=1)
    assert (lowest == images.labels).any() and (lowest == targets).any()
    assert (targets == images.labels).sum() == 0
    assert torch.equal(targets[lowest != images.labels], lowest[lowest != images.labels])


def test_least_likely_is_of_the_source_behind_no_defence(linear, model):
    def noisy(images, random):
        return (images + random.uniform(*images.shape[1:]).float()).clamp(0, 1)

    clean, images = to_unit(batch().images), batch()
    losses = Ensemble([model, linear(1, 5)], "loss")
    for source in (
        AttackedDefence(model, noisy),
        AttackedDefence(losses, lambda images: images.round()),
    ):
        words = {"target_label_rule": "least_likely", "num_classes": 5}
        found = Attacker(source, fgsm, **words)(clean, images, (8.0,)).target_labels
        attacker = Attacker(source.classifier, fgsm, **words)
        wanted = attacker(clean, images, (8.0,)).target_labels
        assert torch.equal(found, wanted)


def test_gradients_of_an_ensemble_count_for_each_member(linear):
    ensemble = Ensemble([linear(seed, 5) for seed in range(3)], "loss")
    attacker = Attacker(ensemble, bim, num_classes=5)
    found = attacker(to_unit(batch().images), batch(), (4.0, 8.0))
    gradients = 6 * 3 * (1 + 2 * 9)
    assert found.cost[:, 0, 0].tolist() == [gradients / 6, 0, gradients / 6, 2, 0, 0]


def test_zero_gradients_are_counted():
    class Dead(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :5] * torch.tensor([0.0, 1.0] * 3)[: len(images), None]

    counted = CountedModel(Dead())
    images = torch.rand(6, 3, 2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(counted(images).square().sum(), images)
    assert counted.counts.gradients == 6 and int(counted.counts.zeros) == 3
    assert (gradient.flatten(1).abs().amax(1) == 0).sum() == 3


AT = (0.5, 4.0, 16.0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rule", [None, "random", "least_likely"])
@pytest.mark.parametrize("rows", [(4, 1, 3), (2,)])
def test_budgets_of_its_own_for_each_image(norm, rule, rows, linear):
    """The budgets of the grid, each for another image: the grid's own images come back."""
    words = {"num_classes": 5, "seed": 3, "max_batch": 2, "norm": norm, "target_label_rule": rule}
    model = Ensemble([linear(0, 5), linear(1, 5)], "loss")
    attacker, whole = Attacker(model, partial(pgd, steps=3, norm=norm), **words), batch()
    grid = attacker(to_unit(whole.images), whole, AT).images
    part = Batch(*(column[list(rows)] for column in whole))
    clean, eps = to_unit(part.images), torch.tensor([AT[: len(rows)]]) / 255
    (again,) = attacker.perturbed(clean, part, eps)
    expected = grid[torch.arange(len(rows)), list(rows)]
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)
    assert again.dtype == torch.float32 and not torch.equal(again, clean)
