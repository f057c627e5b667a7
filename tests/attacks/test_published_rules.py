"""Published rules once more, as plain loops over one image.

They are those of attacks whose stored reference (`test_references.py`) is missing or far from ours,
`ni` and `emi`, the examples of the documentation, and the step rule `mdcs`.
Nothing of `src.attacks` is used here but the random numbers, which both sides have to share. All is
float64, so that a rule that differs in one place differs by far more than the tolerance.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from src import attacks
from tests.attacks import published_rules as rules
from tests.attacks.published_case import (
    BUDGETS,
    MU,
    SIDE,
    STEPS,
    Case,
    decaying,
    enhanced,
    nesterov,
)

AIMED = {"targeted": True, "relative_step_size": None}
MIXED = {"probability": 0.7, "resize_rate": 1.3, "mix_probability": 0.5, "max_width": 1.0}
RULES = {
    "ni": (attacks.ni, nesterov),
    "emi": (attacks.emi, enhanced),
    "mdcs": (partial(attacks.mi, step_rule="mdcs"), decaying),
    "usmm": (partial(attacks.usmm, scales=4, lowest=0.2, highest=0.9, strength=0.6), rules.masked),
    "ops": (partial(attacks.ops, copies=3, radius=1.5), rules.sampled_operators),
    "l2t": (
        partial(attacks.l2t, copies=4, learning_rate=1e4),
        partial(rules.learned_operations, rate=1e4),
    ),
    "decowa": (partial(attacks.decowa, copies=3, rho=0.5), rules.warped),
    "s4st": (partial(attacks.s4st, colour=0.0, **AIMED), rules.strongly_scaled),
    "cfm": (partial(attacks.cfm, **AIMED, **MIXED), rules.mixed_up),
}


@pytest.mark.parametrize("name", RULES)
def test_is_the_published_rule(name, network, batch):
    ours, published = RULES[name]
    model = nn.Sequential(nn.Tanh(), *network().double())  # curved on either side of its layers
    images, labels = batch(3, SIDE)
    images, (others, classes) = images.double(), batch(6, SIDE, seed=2)
    pool, seeds = (others.double(), classes), torch.tensor([3, 1, 4])
    words = {"steps": STEPS, "decay": MU}
    eps = torch.tensor(BUDGETS, dtype=torch.float64)
    made = ours(model, images, labels, eps, seeds=seeds, pool=pool, **words).numpy()
    for k, budget in enumerate(BUDGETS):
        for n, (image, label) in enumerate(zip(images, labels, strict=True)):
            random = attacks.PerImageRandom(seeds[n, None], images, labels[n, None], pool)
            case = Case(model, image.numpy(), int(label), budget, random)
            expected = published(case)
            np.testing.assert_allclose(made[k, n], expected, atol=1e-12, rtol=0)
            assert np.abs(expected - case.clean).max() > 0.9 * budget
