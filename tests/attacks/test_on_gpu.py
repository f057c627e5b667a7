"""Attacks on a GPU, and on a pretended one: the same images, and hardly a wait per step.

`make gpu` runs the tests that need a GPU.
"""

import copy
from functools import partial

import pytest
import torch

from tests.attacks.test_invariants import EPS, attacked, in_float64
from tests.pretended_device import pretended_device, to_device

FIRST, LAST = 2, 4


def run(attack, model, *arguments, **words):
    """Return an attack's images, and the copies and waits that it needed on the device."""
    model, *arguments = to_device((copy.deepcopy(model), *arguments))
    with pretended_device() as events:
        made = attack(model, *arguments, **words)
    return made.held, events


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

        run_of(FIRST)  # fills caches
        more = run_of(LAST)[1] - run_of(FIRST)[1]
        assert more.total() / (LAST - FIRST) <= (attack_name != "mi"), more


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
