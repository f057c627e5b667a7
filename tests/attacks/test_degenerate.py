"""Attacks that are others once a setting is taken away, to the bit where nothing is rounded."""

from functools import partial

import pytest
import torch

from src import attacks

GRID = torch.tensor([1, 8, 32]) / 255
SAME = {
    "no decay": ("mi", {"decay": 0.0}, "bim", {}),
    "radius 0": ("vmi", {"radius": 0, "neighbours": 2}, "mi", {}),
    "one upright block": ("bsr", {"copies": 1, "blocks": 1, "max_angle": 0}, "mi", {}),
}
"""An attack with settings that make it another one."""


@pytest.mark.parametrize("case", SAME)
def test_the_same_to_the_bit(case, network, batch):
    name, own, other, others = SAME[case]
    given = network(), *batch(), 8 / 255
    for words in ({}, {"norm": "l2", "targeted": True}):
        result = getattr(attacks, name)(*given, **own, **words)
        assert torch.equal(result, getattr(attacks, other)(*given, **others, **words))
        assert not torch.equal(result, given[1])


@pytest.mark.parametrize("targeted", [False, True])
def test_the_best_restart_and_the_best_iterate_have_the_highest_loss(targeted, network, batch):
    """Of long steps, whose losses fall now and then, and up to any step and at any budget."""
    model, (images, labels) = network(), batch(8)
    attack = partial(attacks.pgd, model, images, labels, GRID, loss="margin", targeted=targeted)

    def losses(grid):
        return torch.stack([attacks.LOSSES["margin"](model(one), labels, targeted) for one in grid])

    one, five = (losses(attack(steps=2, restarts=restarts)) for restarts in (1, 5))
    assert (five >= one - 1e-6).all() and (five > one + 1e-6).any(dim=1).all()
    words = {"steps": 6, "relative_step_size": 1.5}
    iterates = attack(**words, iterates=range(1, 7))
    every = torch.stack([losses(grid) for grid in iterates])
    assert (every[-1] < every.amax(dim=0)).any()
    found = attack(**words, iterates=[2, 6], keep_best=True)
    for number, steps in enumerate((2, 6)):
        best = every[:steps].argmax(dim=0)[None, ..., None, None, None].expand_as(iterates[:1])
        assert torch.equal(found[number], iterates.gather(0, best)[0])
    assert torch.equal(attack(**words, keep_best=True), found[1])
