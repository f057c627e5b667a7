"""Where walks begin, how large their batches are, and what smoothing keeps."""

import pytest
import torch
from torch import Tensor

from src.attacks import fgsm
from src.attacks.per_image_random import Draws
from src.attacks.schedule import Schedule
from src.attacks.smoothing import smooth

COUNT, SHAPE = 400, (3, 2, 2)
EPS = torch.tensor([0.05, 0.1]).reshape(2, 1, 1, 1, 1)


def changes(start: str, norm: str, share: float = 1.0) -> Tensor:
    """Return how far from grey images walks begin, over the budget: shape (2, COUNT, 12)."""
    images = torch.full((COUNT, *SHAPE), 0.5)
    labels = torch.zeros(COUNT, dtype=torch.int64)
    draws = Draws(torch.arange(COUNT), images, labels, (images, labels))
    plan = Schedule(random_start=start, start_radius=share)
    begin = plan.start(images.expand(2, *images.shape), EPS, norm, draws)
    change = (begin - images) / EPS
    torch.testing.assert_close(change[0], change[1], atol=1e-5, rtol=0)  # budgets share draws
    return change.flatten(2)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_uniform_start_fills_the_cube(share):
    change = changes("uniform", "linf", share) / share
    assert change.abs().max() <= 1 + 1e-5 and change.abs().max() > 0.99
    assert change.mean().abs() < 0.03
    assert change.std() == pytest.approx(3**-0.5, rel=0.03)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_sign_start_is_a_corner_of_the_cube(share):
    change = changes("sign", "linf", share) / share
    torch.testing.assert_close(change.abs(), torch.ones_like(change), atol=1e-5, rtol=0)
    assert change.mean().abs() < 0.05


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_uniform_start_fills_the_l2_ball(share):
    """The share of the volume within a radius r is r^D: that of each start is uniform in [0, 1]."""
    change = changes("uniform", "l2", share) / share
    volume = change.square().mean(2).sqrt() ** 12
    assert volume.max() <= 1 + 1e-4
    assert volume.mean() == pytest.approx(0.5, abs=0.05)
    assert volume.std() == pytest.approx(12**-0.5, abs=0.03)
    assert change.mean().abs() < 0.03


def test_no_random_start_is_the_image_itself():
    images = torch.full((2, *SHAPE), 0.3).expand(2, 2, *SHAPE)
    labels = torch.zeros(2, dtype=torch.int64)
    draws = Draws(torch.arange(2), images[0], labels, (images[0], labels))
    assert Schedule().start(images, EPS, "linf", draws) is images


def test_one_gradient_batch_serves_the_whole_grid_of_a_one_step_attack():
    sizes = []

    def model(images):
        sizes.append(len(images))
        return images.flatten(1)[:, :4]

    images, labels = torch.rand(6, 3, 4, 4), torch.zeros(6, dtype=torch.int64)
    fgsm(model, images, labels, torch.arange(1, 101) / 255, max_batch=4)
    assert sizes == [4, 2]


def test_smoothing_keeps_small_gradients_under_half_precision():
    gradient = 1e-6 * torch.randn(1, 2, 3, 16, 16)
    with torch.autocast("cpu", torch.float16):
        narrow = smooth(gradient, 7)
    assert torch.equal(narrow, smooth(gradient, 7))


def test_images_mixed_in_are_of_another_class():
    count = 200
    pool = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 2, 2), torch.arange(8) % 4
    labels = torch.arange(count) % 4
    draws = Draws(torch.arange(count), torch.zeros(count, 3, 2, 2), labels, pool)
    mixed = draws.others()[:, 0, 0, 0].long()
    assert (mixed % 4 != labels).all() and len(mixed.unique()) == 8
