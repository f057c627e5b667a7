"""What every attack keeps to, as one table."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from src.attacks import bim, fgsm
from src.evaluation.module import GradientCount

ATTACKS = {
    "fgsm": fgsm,
    "bim": bim,
    "bim, 3 long steps": lambda *args: bim(*args, steps=3, step_size_255=20),
}
GRADIENTS = {
    "fgsm": lambda k: 1,
    "bim": lambda k: 1 + 9 * k,
    "bim, 3 long steps": lambda k: 1 + 2 * k,
}


def network() -> nn.Module:
    """A small network with everything that has a mode: batch norm and dropout."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    ]
    return nn.Sequential(*layers).eval()


def batch(count: int = 5, size: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator) / 255
    return images, torch.randint(0, 4, (count,), generator=generator)


@pytest.fixture(params=ATTACKS)
def attack(request):
    return ATTACKS[request.param]


EPS = torch.tensor([0.25, 1, 8, 64]) / 255


def test_stays_inside_the_ball_and_the_pixel_range(attack):
    images, labels = batch()
    for eps, adversarial in zip(EPS, attack(network(), images, labels, EPS), strict=True):
        assert (adversarial - images).abs().max() <= eps + 1e-6
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert not torch.equal(adversarial, images)


def test_zero_budget_changes_nothing(attack):
    images, labels = batch()
    assert torch.equal(attack(network(), images, labels, 0.0), images)


def test_leaves_everything_as_it_was(attack):
    images, labels = batch()
    model = network()
    model[4].train()  # an odd mixture of modes must survive too
    before = (images.clone(), labels.clone(), torch.get_rng_state())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    adversarial = attack(model, images, labels, EPS)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not adversarial.requires_grad and not images.requires_grad


def test_works_where_gradients_are_switched_off(attack):
    images, labels = batch()
    expected = attack(network(), images, labels, EPS)
    with torch.no_grad():
        assert torch.equal(attack(network(), images, labels, EPS), expected)


def test_grid_equals_one_budget_at_a_time(attack):
    images, labels = batch()
    together = attack(network(), images, labels, EPS)
    alone = torch.stack([attack(network(), images, labels, eps) for eps in EPS])
    assert together.shape == (len(EPS), *images.shape)
    assert torch.equal(together, alone)


def test_is_deterministic(attack):
    images, labels = batch()
    assert torch.equal(
        attack(network(), images, labels, EPS), attack(network(), images, labels, EPS)
    )


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 7), cut=st.integers(0, 7), eps=st.floats(0, 1), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ATTACKS)
def test_batch_split_does_not_matter(name, count, cut, eps, seed):
    images, labels = batch(count, seed=seed)
    model = network().double()  # in double precision no sign depends on rounding
    images = images.double()
    whole = ATTACKS[name](model, images, labels, eps)
    cut = min(cut, count)
    parts = [
        ATTACKS[name](model, images[part], labels[part], eps)
        for part in (slice(0, cut), slice(cut, None))
        if len(images[part])
    ]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-12)


@pytest.mark.parametrize("name", ATTACKS)
def test_takes_the_stated_number_of_gradients(name):
    images, labels = batch()
    counted = GradientCount(network())
    ATTACKS[name](counted, images, labels, EPS)
    assert counted.images == GRADIENTS[name](len(EPS)) * len(images)


def test_raises_the_loss(attack):
    images, labels = batch()
    model = network()
    clean = nn.functional.cross_entropy(model(images), labels)
    attacked = nn.functional.cross_entropy(model(attack(model, images, labels, 8 / 255)), labels)
    assert attacked > clean


@pytest.mark.parametrize("eps", [-0.1, 1.5, float("nan"), [[0.1]]])
def test_refuses_a_budget_that_is_none(attack, eps):
    with pytest.raises(ValueError, match="eps must be"):
        attack(network(), *batch(), eps)
