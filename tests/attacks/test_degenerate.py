"""Attacks that are others once a setting is taken away, to the bit where nothing is rounded.

Two attacks that compute the same numbers in the same batches give the same bits. Where sums are
taken in another order the comparison is in float64, in which no sign is close to turning.
"""

from functools import partial

import pytest
import torch

from src import attacks
from src.defences import AttackedDefence, Smoothing
from src.images.attacker import CountedModel
from src.models import Ensemble

EPS = 8 / 255
GRID = torch.tensor([1, 8, 32]) / 255
TEN = {"steps": 10, "relative_step_size": None}
CALIBRATED = {"steps": 10, "kernel_size": 5, "loss": "calibrated"}
LOGIT, FOUR = {"loss": "logit"}, {"steps": 3, "step_size_255": 4}
SAME = {
    "one step": ("bim", {"steps": 1}, "fgsm", {}),
    "no decay": ("mi", {"decay": 0.0}, "bim", {}),
    "no random start": ("pgd", {"random_start": None, "relative_step_size": None}, "bim", {}),
    "radius 0": ("vmi", {"radius": 0, "neighbours": 2}, "mi", {}),
    "one upright block": ("bsr", {"copies": 1, "blocks": 1, "max_angle": 0}, "mi", {}),
    "two steps": ("ni", {"steps": 2}, "pi_pregradient", {"steps": 2}),
    "delta 0 at one point": ("pgn", {"samples": 2, "zeta": 0, "delta": 0}, "mi", {}),
    "inner radius 0": ("rap", {"inner_radius": 0.0, **TEN}, "bim", {}),
    "no scaling": ("s4st", {"scaling": 0.0, "colour": 0.0, **TEN}, "ti", CALIBRATED),
    "one whole image": ("fia", {"masks": 1, "probability": 0, "layer": "6"}, "mi", LOGIT),
    "weight 1": ("ilpd", {"weight": 1, **TEN}, "bim", {}),
    "relative step": ("bim", {"steps": 3, "relative_step_size": 0.5}, "bim", FOUR),
}
"""An attack with settings that make it another one."""


@pytest.mark.parametrize("case", SAME)
def test_the_same_to_the_bit(case, network, batch):
    name, own, other, others = SAME[case]
    given = network(), *batch(), EPS
    for words in ({}, {"norm": "l2", "targeted": True}):
        result = getattr(attacks, name)(*given, **own, **words)
        assert torch.equal(result, getattr(attacks, other)(*given, **others, **words))
        assert not torch.equal(result, given[1])


def test_steps_of_pi_patchwise_that_exceed_the_budget_by_rounding_are_fgsm(network, batch):
    """Ten tenths of some of these budgets are more than the whole in float32."""
    given = (network(), *batch(2), torch.arange(1, 33) / 255)
    result = attacks.pi_patchwise(*given, steps=1, relative_step_size=0.1)
    torch.testing.assert_close(result, attacks.fgsm(*given), atol=1e-7, rtol=0)


@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
def test_an_ensemble_of_equals_is_its_member(average, network, batch):
    """A layer may be hooked once in a pass, so that the members must be two."""
    model, (images, labels) = network().double(), batch()
    ensemble = CountedModel(Ensemble([model, network().double()], average))
    layers = {"layer": ("1", "1")}
    for attack, words, more in (
        (attacks.bim, {"norm": "l2"}, {}),
        (attacks.ni, {}, {}),
        (attacks.fia, {"masks": 2}, layers),
        (attacks.ilpd, {"steps": 3, "norm": "l2"}, layers),
    ):
        result = attack(ensemble, images.double(), labels, EPS, **words, **more)
        expected = attack(model, images.double(), labels, EPS, **words)
        exact = average != "probabilities" and not more  # halves are exact, logarithms round
        torch.testing.assert_close(result, expected, atol=0 if exact else 1e-6, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_best_restart_and_the_best_iterate_have_the_highest_loss(
    loss, targeted, network, batch
):
    """Of long steps, whose losses fall now and then, and up to any step and at any budget."""
    model, (images, labels) = network(), batch(8)
    words = {"loss": loss, "targeted": targeted}

    def losses(grid):
        return torch.stack([attacks.LOSSES[loss](model(one), labels, targeted) for one in grid])

    one, five = (
        losses(attacks.pgd(model, images, labels, GRID, steps=2, restarts=restarts, **words))
        for restarts in (1, 5)
    )
    assert (five >= one - 1e-6).all() and (five > one + 1e-6).any(dim=1).all()
    attack = partial(
        attacks.pgd, model, images, labels, GRID, steps=6, relative_step_size=1.5, **words
    )
    iterates = attack(iterates=range(1, 7))
    every = torch.stack([losses(grid) for grid in iterates])
    assert (every[-1] < every.amax(dim=0)).any()
    found = attack(iterates=[2, 6], keep_best=True)
    for number, steps in enumerate((2, 6)):
        best = every[:steps].argmax(dim=0)[None, ..., None, None, None].expand_as(iterates[:1])
        assert torch.equal(found[number], iterates.gather(0, best)[0])
    assert torch.equal(attack(keep_best=True), found[1])


def test_looking_at_losses_leaves_random_numbers_alone(network, batch):
    """A run that keeps its best iterate takes the steps of one that does not."""
    source = AttackedDefence(network(), Smoothing(0.1))
    images, labels = batch(8)
    words = {"steps": 4, "restarts": 1}
    iterates = attacks.pgd(source, images, labels, EPS, iterates=range(1, 5), **words)
    best = attacks.pgd(source, images, labels, EPS, keep_best=True, **words)
    assert (best == iterates).flatten(2).all(dim=2).any(dim=0).all()


def test_averaged_logits_bound_the_passes_held_at_once(network, batch):
    """Three copies of two images are as many as six gradients. No images give none."""
    seen, model = [], network()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    words = {"copies": 3, "copies_average": "logits", "max_batch": 6, "steps": 2}
    attacks.si_ni(model, *batch(5), GRID, **words)
    assert max(seen) == 2
    images, labels = batch(4)
    for attack in (attacks.fgsm, attacks.mi, attacks.bsr):
        assert attack(model, images[:0], labels[:0], GRID).shape == (3, 0, *images.shape[1:])
