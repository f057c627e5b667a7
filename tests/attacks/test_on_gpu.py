"""Attacks on a GPU, and on a pretended one: the same images, and hardly a wait per step.

`make gpu` runs the tests that need a GPU.
"""

import copy
from collections import Counter
from functools import partial

import pytest
import torch

from src.attacks import lgv, mi
from src.defences import AttackedDefence, BitDepth, Jpeg, Median, RandomResizePad, Smoothing
from tests.attacks.test_invariants import EPS, attacked, in_float64
from tests.pretended_device import pretended_device, to_device

FIRST, LAST = 2, 4
DEFENCES = {BitDepth(): 1, Median(): 1, RandomResizePad(): 1, Smoothing(): 1, Jpeg(): 2}
"""Copies and waits per step: Pillow compresses on the CPU, so images go there and back."""


def run(attack, model, *arguments, **words):
    """Return an attack's images, and the copies and waits that it needed on the device."""
    model, *arguments = to_device((copy.deepcopy(model), *arguments))
    with pretended_device() as events:
        made = attack(model, *arguments, **words)
    return made.held, events


def per_step(run_of) -> tuple[float, Counter[str]]:
    """Return the copies and waits per step from the second step on, and where they are."""
    run_of(FIRST)  # fills caches
    more = run_of(LAST)[1] - run_of(FIRST)[1]
    return more.total() / (LAST - FIRST), more


@pytest.mark.few
def test_an_attack_makes_the_images_of_a_cpu_and_its_steps_neither_copy_nor_wait(
    attack_name, norm, small, source, batch
):
    (images, labels), pool = batch(), batch(6, seed=2)
    attack, model = small(attack_name, norm=norm), source("logits")
    expected = attacked(attack, copy.deepcopy(model), images, labels, EPS.tolist(), pool)
    arguments = model, images, labels, EPS, pool
    made, _ = run(partial(attacked, attack), *arguments)
    assert torch.equal(made, expected)
    if "steps" in attack.settings:

        def run_of(steps):
            return run(partial(attacked, small(attack_name, norm=norm, steps=steps)), *arguments)

        count, places = per_step(run_of)
        assert count <= (attack_name != "mi"), places


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: type(defence).__name__)
def test_a_step_through_a_defence_neither_copies_nor_waits(defence, network, batch):
    images, labels = batch()
    model = AttackedDefence(network(), defence, draws=2)
    count, places = per_step(
        lambda steps: run(partial(mi, steps=steps), model, images, labels, 0.1)
    )
    assert count <= DEFENCES[defence], places


def test_a_step_on_collected_weights_neither_copies_nor_waits(network, batch):
    """They stay on the device, see `move_states`."""
    given, words = (network(), *batch(), 0.1), {"fit_batch": 2, "epochs": 1}
    attack = partial(lgv, states=to_device(lgv.fit(*given, **words)), **words)
    count, places = per_step(lambda steps: run(partial(attack, steps=steps), *given))
    assert count <= 1, places


@pytest.mark.few
@pytest.mark.gpu
def test_an_attack_on_a_gpu_gives_the_images_that_it_gives_on_a_cpu(
    attack_name, small, source, batch
):
    images, labels, pool = in_float64(batch)
    results = []
    for device in ("cpu", "cuda"):
        model = source("logits").double().to(device)
        x, y, *others = (tensor.to(device) for tensor in (images, labels, *pool))
        results.append(attacked(small(attack_name), model, x, y, EPS.to(device), tuple(others)))
    assert results[1].is_cuda
    differ = (results[1].cpu() - results[0]).abs() > 1e-6
    assert differ.double().mean() < 0.01  # where a sign or a draw is decided by the last digit
