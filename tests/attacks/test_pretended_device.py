"""Attacks on a pretended device: no tensor on the wrong device, and hardly a wait per step."""

import copy

import pytest
import torch

from tests.attacks.conftest import ATTACKS, SECTIONS
from tests.attacks.test_invariants import EPS, attacked
from tests.pretended_device import pretended_device, to_device

EXCEPTIONS: dict[str, tuple[float, str]] = {}
"""Attacks with more than one copy or wait per step: how many, and why."""
FIRST, LAST = 3, 7


def run(attack, model, images, labels, pool, **words):
    """Return an attack's images and the copies and waits that it needs on the device."""
    model, *others = to_device([copy.deepcopy(model), images, labels, pool])
    with pretended_device() as events:
        made = attacked(attack, model, *others[:2], EPS.tolist(), tuple(others[2]), **words)
    return made.held, events


def test_an_attack_computes_on_one_device(attack_name, norm, small, source, batch):
    """Its images are those of a CPU; the settings are short, so steps are counted elsewhere."""
    (images, labels), pool = batch(), batch(6, seed=2)
    attack, model = small(attack_name, norm=norm), source("logits")
    expected = attacked(attack, copy.deepcopy(model), images, labels, EPS.tolist(), pool)
    made, _ = run(attack, model, images, labels, pool)
    assert torch.equal(made, expected)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "steps" in SECTIONS[name]])
def test_a_step_neither_copies_nor_waits(name, small, source, batch):
    (images, labels), pool = batch(), batch(6, seed=2)
    counts = {}
    for steps in (FIRST, FIRST, LAST):  # the first run fills caches
        attack = small(name, steps=steps)
        _, counts[steps] = run(attack, source("logits"), images, labels, pool)
    more = counts[LAST] - counts[FIRST]
    allowed = {"mi": 0}.get(name, EXCEPTIONS.get(name, (1,))[0])
    assert more.total() / (LAST - FIRST) <= allowed, more
