"""The judge of attacks tells a rule from its mutants, and accepts harmless rewrites."""

import pandas as pd
import pytest
import torch

from findings.implementations import TABLE, compute
from findings.update_rules import RULES, Tools, judge, run

ROWS = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
WITHOUT_MOMENTUM = {"fgsm", "bim", "pgd", "di", "ti_bim", "pi_patchwise"}


def sum_of_signs(own):
    own.accumulate = lambda momentum, gradient: own.mu * momentum + gradient.sign()


def overwritten(own):
    own.accumulate = lambda momentum, gradient: own.mu * gradient + own.unit(gradient)


def wrong_side(own):
    own.accumulate = lambda momentum, gradient: momentum + own.mu * own.unit(gradient)


def not_projected(own):
    own.clip = lambda x: x


def not_cleared(own):
    """Sum the gradients of a step, or those of all steps if a step takes one."""
    sums, clip = [], own.clip

    def grad(point):
        sums.append(Tools.grad(own, point) + (sums[-1] if sums else 0))
        return sums[-1]

    def end_of_step(x):
        own.gradients = getattr(own, "gradients", len(sums))
        if own.gradients > 1:
            sums.clear()
        return clip(x)

    own.grad, own.clip = grad, end_of_step


MUTANTS = (sum_of_signs, overwritten, wrong_side, not_projected, not_cleared)


def sum_of_one(own):
    own.unit = lambda gradient: gradient / gradient.abs().sum((1, 2, 3), keepdim=True)


def pixels_first(own):
    images, eps = own.images, own.eps
    own.clip = lambda x: x.clamp(0, 1).clamp(images - eps, images + eps)


def summed_loss(own):
    own.grad = lambda point: len(own.images) * Tools.grad(own, point)


def judged(name, change=None):
    """Return whether a run of a rule, perhaps with a changed function, follows the rule."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.SiLU()
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * 144, 5)).double()
    for weights in network.parameters():
        weights.data *= 4  # so that gradients change from step to step
    images = (torch.rand(3, 3, 16, 16, dtype=torch.float64) * 1.2 - 0.1).clamp(0, 1)
    settings = {"kernel": 5, "radius": 0.3} | ({"steps": 1} if name == "fgsm" else {})
    tools = Tools(network, images, torch.tensor([0, 3, 4]), **settings)

    def attack(network, images, labels, steps):
        own = Tools(network, images, labels, **settings)
        if change:
            change(own)
        own.steps = steps
        start = images + tools.eps * (2 * torch.rand_like(images) - 1)
        return run(RULES[name], own, tools.clip(start) if name == "pgd" else None)

    judgement = judge(RULES[name], attack, tools, random_start=name == "pgd")
    return judgement["equal_steps"] == tools.steps


@pytest.mark.parametrize("name", RULES)
def test_a_rule_follows_itself_and_its_mutants_are_caught(name):
    assert judged(name)
    for change in MUTANTS:
        same = name.partition(",")[0] in WITHOUT_MOMENTUM and change in (
            sum_of_signs,
            overwritten,
            wrong_side,
        )
        same |= name == "fgsm" and change is not_cleared  # it takes one gradient
        assert judged(name, change) == same, change


@pytest.mark.parametrize("change", [sum_of_one, pixels_first, summed_loss])
def test_a_harmless_rewrite_follows(change):
    assert all(judged(name, change) for name in ("mi", "ti_mi", "si_mi", "vmi", "gra"))


def test_stored_verdicts_are_those_of_the_comparison():
    differs, another = ROWS["first_different"] != "", ROWS["verdict"] == "another rule"
    assert len(ROWS) >= 30 and (differs == (ROWS["verdict"] != "follows")).all()
    needed = ROWS.loc[another, ["place", "does", "points", "low", "high"]]
    assert (needed != "").all(axis=None) and (ROWS.loc[another, "as_explained"] == "True").all()


@pytest.mark.parametrize("variant", ["ni", "ti_mi", "vni"])
def test_a_row_of_this_program_is_computed_again(variant):
    (row,) = ROWS.query("library == 'this program' and variant == @variant").iloc
    result = compute(row)
    assert (result["nearest"], result["what"]) == (variant, "")
