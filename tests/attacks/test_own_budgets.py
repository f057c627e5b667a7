"""A budget for each image, where the length of a step is fixed, and what is refused."""

from functools import partial

import pytest
import torch

from src.attacks import bim, iterate, pgd

SEEDS = torch.tensor([5, 17, 3, 1000])
OWN = torch.tensor([[0.5, 1, 2, 0.125]], dtype=torch.float64) / 255


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [partial(bim, steps=4), partial(pgd, steps=4, restarts=2), partial(bim, steps=1)],
    ids=["bim", "pgd", "one step"],
)
def test_a_fixed_step_may_be_longer_than_all_of_them(attack, norm, network, batch):
    """In a grid its largest budget decides; here that belongs to one image alone."""
    images, labels = batch()
    images, model = images.double(), network().double()
    words = {"norm": norm, "step_size_255": 3}
    result = attack(model, images, labels, OWN, seeds=SEEDS, **words)
    beside = torch.cat([OWN, torch.full_like(OWN, 16 / 255)])  # a grid that it fits
    expected = torch.stack(
        [
            attack(
                model,
                images[n, None],
                labels[n, None],
                beside[:, n],
                seeds=SEEDS[n, None],
                **words,
            )[0, 0]
            for n in range(4)
        ]
    )
    torch.testing.assert_close(result[0], expected, atol=1e-12, rtol=0)


def test_other_limits_of_steps_still_hold(network, batch):
    with pytest.raises(ValueError, match="relative_step_size=2 is longer than the budget"):
        iterate(network(), *batch(), OWN, relative_step_size=2.0)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1), (4, 1), (1, 1, 4), (5, 2)])
def test_refuses_budgets_that_fit_no_images(shape, network, batch):
    with pytest.raises(ValueError, match=r"^eps must be one number .* each of the 4 images"):
        iterate(network(), *batch(), torch.full(shape, 0.1))
