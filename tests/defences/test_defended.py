"""Sources and targets behind a defence: gradients, and what a defence is given and returns."""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import PerImageRandom, Philox, Source, bim, cwa, fgsm
from src.defences import (
    AttackedDefence,
    BitDepth,
    Defended,
    Jpeg,
    Median,
    RandomResizePad,
    Smoothing,
)
from src.models import Ensemble

INDEX = torch.tensor([5, 2, 9, 4, 11])
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


def test_budgets_and_batches_share_an_images_draws(network, images):
    model, budgets = AttackedDefence(network, RandomResizePad(0.6), 2), [0.01, 0.05]
    both = bim(model, images, LABELS, budgets, seeds=SEEDS, steps=3)
    for number, eps in enumerate(budgets):
        alone = bim(model, images[3:], LABELS[3:], eps, seeds=SEEDS[3:], steps=3)
        torch.testing.assert_close(both[number, 3:], alone)
    others = bim(model, images, LABELS, budgets, seeds=SEEDS + 1, steps=3)
    assert not torch.allclose(others, both)


def test_a_call_without_draws_and_an_error_name_the_defence(network, images):
    with pytest.raises(ValueError, match=r"^defence=mine is randomised"):
        AttackedDefence(network, Smoothing(), name="mine")(images)
    with pytest.raises(ValueError, match=r"^defence=mine: IndexError: "):
        AttackedDefence(network, lambda images: images[:, 7], name="mine")(images)


def test_members_and_layers_are_those_behind_the_defence(images):
    ensemble = Ensemble([small(0), small(1)], "loss")
    source = Source(AttackedDefence(ensemble, BitDepth()), "0")
    features, shown = source.features(images), BitDepth()(images)
    for member in (0, 1):
        assert torch.equal(source.logits(images, member), small(member)(shown))
        assert torch.equal(features[member], small(member)[0](shown))
    randomised = AttackedDefence(ensemble, RandomResizePad(0.6), draws=2)
    changed = cwa(randomised, images, LABELS, 0.05, seeds=SEEDS, steps=2)
    assert (changed - images).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_a_defence_changes_copies_alone_and_may_round(images):
    before = images.clone()
    assert Defended(nn.Flatten(), lambda images: images.mul_(0))(images, INDEX).max() == 0
    assert torch.equal(images, before)
    Defended(nn.Flatten(), with_value(1 + 5e-7))(images, INDEX)


class NoiseModule(nn.Module):
    def forward(self, images: Tensor, random: Philox) -> Tensor:
        return (images + 0.1 * random.normal(*images.shape[1:])).clamp(0, 1)


def test_a_module_may_draw(images):
    target = Defended(nn.Flatten(), NoiseModule(), repeats=2, seed=7)
    assert target.randomised and target(images, INDEX).shape == (2, 5, 240)


def fails(images: Tensor) -> Tensor:
    raise KeyError("no palette")


def with_value(value: float):
    def defence(images: Tensor) -> Tensor:
        images[2, 1, 3, 4] = value
        return images

    return defence


def votes(found: object):
    def defence(images: Tensor) -> Tensor:
        return images

    defence.classify = lambda classifier, images: found
    return defence


REFUSED = [
    (fails, "KeyError: 'no palette'$"),
    (lambda images: images[:, :1], r"\(5, 3, 8, 10\), not \(5, 1, 8, 10\)"),
    (lambda images: images.numpy(), "not ndarray"),
    *[(with_value(value), "image 9") for value in (torch.nan, 1.00001, -0.00001)],
    *[(votes(found), "logits") for found in (None, torch.zeros(4, 10))],
]


def test_what_is_no_image_and_no_vote_is_refused(images):
    for defence, refusal in REFUSED:
        with pytest.raises(ValueError, match=f"^defence=mine.*{refusal}"):
            Defended(nn.Flatten(), defence, name="mine")(images, INDEX)


class Lost(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).where(torch.arange(len(images))[:, None] != 3, float("nan"))


def test_targets_without_finite_logits_do_not_abstain(images):
    with pytest.raises(ValueError, match=r"BitDepth.* NaN or infinity for image 4"):
        Defended(Lost(), BitDepth())(images, INDEX)
    with pytest.raises(ValueError, match=r"^defence=rs: .* NaN or infinity"):
        Defended(Lost(), Smoothing(), name="rs")(images, INDEX)
