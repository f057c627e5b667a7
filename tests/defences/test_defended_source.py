"""Sources behind a defence: gradients of adaptive attacks."""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import PerImageRandom, Philox, Source, bim, cwa, fgsm
from src.defences import AttackedDefence, BitDepth, Jpeg, Median, RandomResizePad, Smoothing
from src.models import Ensemble

SEEDS = torch.tensor([31, 4, 15, 9, 26])
LABELS = torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 3, 8, 10, generator=generator, dtype=torch.float64)


@pytest.fixture
def network() -> nn.Module:
    return small(0)


def small(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4)
        return nn.Sequential(*layers).double().requires_grad_(False)


def random_of(images: Tensor) -> PerImageRandom:
    return PerImageRandom(SEEDS, images, LABELS, (images, LABELS))


def gradient_of(function, at: Tensor) -> Tensor:
    variable = at.clone().requires_grad_()
    loss = nn.functional.cross_entropy(function(variable), LABELS, reduction="sum")
    return torch.autograd.grad(loss, variable)[0]


def test_gradient_goes_straight_through_what_has_none(network, images):
    def squared(images: Tensor) -> Tensor:
        return images.detach() ** 2

    at = images.clone().requires_grad_()
    for defence, way in ((squared, lambda each: each), (Jpeg(), Jpeg().approximate)):
        model, behind = AttackedDefence(network, defence), defence(images)
        assert torch.equal(model(images), network(behind))
        (expected,) = torch.autograd.grad(way(at), at, gradient_of(network, behind))
        assert torch.equal(gradient_of(model, images), expected)


@pytest.mark.parametrize("defence", [Median(), RandomResizePad(0.6), Smoothing()])
def test_gradient_of_what_has_one_is_the_derivative(network, images, defence):
    model = AttackedDefence(network, defence, draws=2)
    model.draw(random_of(images), 1)
    several = isinstance(defence, RandomResizePad)
    assert model(images).shape == ((2, 5, 4) if several else (5, 4))
    assert torch.autograd.gradcheck(model, images.requires_grad_(), fast_mode=True)


def test_gradient_is_the_mean_over_draws(network, images):
    defence, eps = RandomResizePad(0.6), 0.01
    model = AttackedDefence(network, defence, draws=3)
    found = fgsm(model, images, LABELS, eps, seeds=SEEDS)
    seeds = Philox(SEEDS, images).integers(0, 2**31)
    total = torch.zeros_like(images)
    for number in range(3):
        for one in range(5):
            variable, alone = images[one].clone().requires_grad_(), slice(one, one + 1)
            shown = defence(variable[None], Philox(seeds[alone], images, number))
            loss = nn.functional.cross_entropy(network(shown), LABELS[alone])
            total[one] += torch.autograd.grad(loss, variable)[0] / 3
    torch.testing.assert_close(found, (images + eps * total.sign()).clamp(0, 1))


def test_of_a_vote_the_mean_probability_is_attacked(network, images):
    """-log(mean over draws of p_y), equation 6 of SmoothAdv, and not the mean of -log(p_y)."""
    defence, eps = Smoothing(), 0.01
    found = fgsm(AttackedDefence(network, defence, draws=3), images, LABELS, eps, seeds=SEEDS)
    seeds, at = Philox(SEEDS, images).integers(0, 2**31), images.clone().requires_grad_()
    noisy = [defence(at, Philox(seeds, images, number)) for number in range(3)]
    chance = torch.stack([network(each).softmax(dim=1) for each in noisy]).mean(dim=0)
    loss = -chance[torch.arange(5), LABELS].log().sum()
    (gradient,) = torch.autograd.grad(loss, at)
    torch.testing.assert_close(found, (images + eps * gradient.sign()).clamp(0, 1))


@pytest.mark.parametrize("draws", [1, 2])
def test_budgets_and_batches_share_an_images_draws(network, images, draws):
    model, budgets = AttackedDefence(network, RandomResizePad(0.6), draws), [0.01, 0.05]
    both = bim(model, images, LABELS, budgets, seeds=SEEDS, steps=3)
    for number, eps in enumerate(budgets):
        alone = bim(model, images[3:], LABELS[3:], eps, seeds=SEEDS[3:], steps=3)
        torch.testing.assert_close(both[number, 3:], alone)
    copied = bim(
        model, images, LABELS, budgets, seeds=SEEDS, steps=3, backward_rule=lambda each: each
    )
    assert torch.equal(copied, both)
    others = bim(model, images, LABELS, budgets, seeds=SEEDS + 1, steps=3)
    assert not torch.allclose(others, both)


def test_draws_are_new_for_each_gradient_and_the_same_in_its_passes(network, images):
    model, random = AttackedDefence(network, Smoothing(), name="mine"), random_of(images)
    with pytest.raises(ValueError, match=r"^defence=mine is randomised"):
        model(images)
    model.draw(random, 2)
    twice = torch.cat([images, images])
    first = model(twice)
    torch.testing.assert_close(first[:5], first[5:])
    assert torch.equal(model(twice), first)
    model.draw(random, 1)
    assert not torch.allclose(model(images), first[:5])
    with pytest.raises(ValueError, match=r"^defence=mine is randomised"):
        model(twice)
    with pytest.raises(ValueError, match=r"^defence=mine: IndexError: "):
        AttackedDefence(network, lambda images: images[:, 7], name="mine")(images)


def test_members_and_layers_are_those_behind_the_defence(images):
    ensemble = Ensemble([small(0), small(1)], "loss")
    source = Source(AttackedDefence(ensemble, BitDepth()), "0")
    plain = Source(ensemble, "0")
    for member in (0, 1):
        assert torch.equal(source.logits(images, member), small(member)(BitDepth()(images)))
    features = zip(source.features(images), plain.features(BitDepth()(images)), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in features)
    randomised = AttackedDefence(ensemble, RandomResizePad(0.6), draws=2)
    randomised.draw(random_of(images), 1)
    assert randomised(images).shape == (4, 5, 4)
    changed = cwa(randomised, images, LABELS, 0.05, seeds=SEEDS, steps=2)
    assert (changed - images).abs().amax(dim=(1, 2, 3)).min() > 0.01
