"""Exact answers on a linear model, whose optimum is known in closed form."""

import pytest
import torch
from torch import Tensor

from src.attacks import bim, fgsm


@pytest.fixture
def linear():
    """Two classes, logits (+w.x, -w.x): the loss of class 0 rises most along -sign(w)."""
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25, 1.5, -1.0, 2.0, 0.75, -3.0, 1.0, 1.0])

    def model(images: Tensor) -> Tensor:
        score = images.flatten(1) @ weight
        return torch.stack([score, -score], dim=1)

    return model, weight.sign().reshape(1, 3, 2, 2)


def test_fgsm_is_the_optimum_of_the_ball(linear):
    model, direction = linear
    images = torch.full((2, 3, 2, 2), 0.5)
    adversarial = fgsm(model, images, torch.tensor([0, 1]), 0.1)
    torch.testing.assert_close(adversarial[:1], images[:1] - 0.1 * direction)
    torch.testing.assert_close(adversarial[1:], images[1:] + 0.1 * direction)


def test_fgsm_stops_at_the_pixel_range(linear):
    model, direction = linear
    images = torch.full((1, 3, 2, 2), 0.95)
    expected = (images + 0.1 * direction).clamp(0, 1)
    assert (expected == 1).any()
    torch.testing.assert_close(fgsm(model, images, torch.tensor([1]), 0.1), expected)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_bim_reaches_the_same_optimum(linear, steps):
    model, _ = linear
    images, labels = torch.full((1, 3, 2, 2), 0.5), torch.tensor([0])
    torch.testing.assert_close(
        bim(model, images, labels, 0.1, steps=steps), fgsm(model, images, labels, 0.1)
    )


def test_bim_walks_in_steps_of_the_given_size(linear):
    model, direction = linear
    images, labels = torch.full((1, 3, 2, 2), 0.5), torch.tensor([0])
    adversarial = bim(model, images, labels, 0.1, steps=3, step_size_255=2)
    torch.testing.assert_close(adversarial, images - 6 / 255 * direction)


def test_bim_projects_after_every_step():
    """The loss has a ridge at 0.6: a step past it must be taken back from the ball's border."""

    def model(images: Tensor) -> Tensor:
        distance = (images.flatten(1) - 0.6).abs().sum(1)
        return torch.stack([distance, torch.zeros_like(distance)], dim=1)

    images, labels = torch.full((1, 3, 2, 2), 0.55), torch.tensor([0])
    adversarial = bim(model, images, labels, 0.07, steps=2, step_size_255=0.2 * 255)
    torch.testing.assert_close(adversarial, torch.full_like(images, 0.48))


def test_bim_with_one_step_is_fgsm(linear):
    model, _ = linear
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 2, 2, generator=generator)
    labels = torch.tensor([0, 1, 1, 0])
    eps = torch.tensor([1, 8, 100]) / 255
    assert torch.equal(bim(model, images, labels, eps, steps=1), fgsm(model, images, labels, eps))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": 2.5}, "not 2.5"),
        ({"steps": True}, "not True"),
        ({"step_size_255": 0}, "step_size_255 must lie in"),
        ({"step_size_255": float("nan")}, "not nan"),
    ],
)
def test_bim_refuses_settings_that_make_no_attack(linear, settings, message):
    with pytest.raises(ValueError, match=message):
        bim(linear[0], torch.zeros(1, 3, 2, 2), torch.tensor([0]), 0.1, **settings)
