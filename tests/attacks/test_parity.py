"""Attacks of other libraries: beside our own, and inside what the program does.

A sign makes nothing of rounding but everything of a gradient that is nothing but rounding, so
images are compared in float64. Random parts are switched off.
"""

import random
import re
import sys
import warnings
from typing import Any

import pytest
import torch

from src import attacks
from src.config import resolvers
from src.config.compose import compose_words
from src.config.errors import explain
from src.config.read import read_job
from src.config.settings import Settings
from src.images.attacker import CountedModel
from src.run.check_job import attack_function

REASON = "a dev-only library: pip install --no-deps torchattacks torchattack foolbox eagerpy"
EPS = torch.tensor([2, 8, 16], dtype=torch.float64) / 255
SEEDS = torch.tensor([5, 17, 3, 1 << 32])


@pytest.fixture(autouse=True)
def installed(request) -> None:
    """Skip a test whose name has a library that is not installed."""
    for name in ("torchattacks", "torchattack", "foolbox"):
        if re.search(rf"{name}\b", request.node.name.replace("_", " ")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # as the program does
                pytest.importorskip(name, reason=REASON, exc_type=ImportError)


def attack_of(name: str) -> Any:
    library, _, kind = name.partition(".")
    return getattr(getattr(attacks, library), kind)


SIX, OURS = {"steps": 6}, {"steps": 6, "step_size_255": 2.0}
FIXED, STILL = {"steps": 6, "alpha": 2 / 255}, {"random_start": False}
SHARE = {"steps": 6, "rel_stepsize": 1 / 6}
SAME = {
    "torchattacks.FGSM": (attacks.fgsm, {}, {}, "linf"),
    "torchattacks.BIM": (attacks.bim, OURS, FIXED, "linf"),
    "torchattacks.MIFGSM": (attacks.mi, OURS, FIXED, "linf"),
    "torchattacks.NIFGSM": (attacks.ni, OURS, FIXED, "linf"),
    "torchattacks.SINIFGSM": (attacks.si_ni, OURS, FIXED, "linf"),
    "torchattack.MIFGSM": (attacks.mi, SIX, SIX, "linf"),
    "torchattack.PGD": (attacks.bim, SIX, SIX | STILL, "linf"),
    "foolbox.LinfFastGradientAttack": (attacks.fgsm, {}, {}, "linf"),
    "foolbox.L2PGD": (attacks.bim, SIX, SHARE | STILL, "l2"),
}
"""Attacks that we have too: ours, its settings, the library's, and the norm."""


@pytest.mark.parametrize("name", SAME)
def test_makes_the_images_of_our_own_attack_with_the_gradients_counted(name, network, batch):
    ours, words, their_words, norm = SAME[name]
    (images, labels), model = batch(), CountedModel(network().double())
    for targeted in [False] if "FastGradient" in name else [False, True]:
        given = (model, images.double(), labels, EPS)
        expected = ours(*given, norm=norm, targeted=targeted, **words)
        before = model.counts.gradients
        found = attack_of(name)(*given, norm=norm, targeted=targeted, max_batch=3, **their_words)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        steps = their_words.get("steps", 1) * (5 if "SINI" in name else 1)
        assert model.counts.gradients - before == 4 * 3 * steps


@pytest.mark.parametrize("name", ["torchattacks.PGD", "torchattack.DIFGSM", "foolbox.LinfPGD"])
def test_draws_by_the_seeds_alone_and_leaves_everything_as_it_was(name, network, batch):
    images, model = batch()[0], network().train()
    labels = network()(images).argmax(1)
    before = images.clone(), labels.clone()

    def run(seeds: torch.Tensor) -> torch.Tensor:
        given = (CountedModel(model), images, labels, EPS.float())
        return attack_of(name)(*given, seeds=seeds, steps=2)

    states = torch.get_rng_state(), random.getstate()
    with torch.no_grad():
        found = run(SEEDS)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    torch.manual_seed(99)
    assert torch.equal(found, run(SEEDS)) and not torch.equal(found, run(SEEDS + 1))
    assert all(map(torch.equal, before, (images, labels)))
    assert model.training and all(each.grad is None for each in model.parameters())
    assert (found[2] - images).abs().amax() > 0.2 * EPS[2]


def read(*words: str) -> Settings:
    config = compose_words(resolvers.CONF, ["dataset=cifar10_mini", *words])
    settings = read_job(config, config.hydra)
    attack_function(settings.attack)
    return settings


REFUSED = {
    "torchattacks attack.name=MIFSGM": r"^attack=torchattacks.MIFSGM: .*MIFSGM: .* mean MIFGSM",
    "torchattacks +attack.stepz=3": "attack.stepz: .*torchattacks.MIFGSM .*steps",
    "torchattacks attack.norm=l2": "^attack.norm=l2: ",
    "torchattack attack.name=Attack": "attack.name=Attack: ",
    "torchattack +attack.eps=0.1": "attack.eps: .*epsilon.grid=",
    "torchattacks +attack.gradients=9": "gradients=9: .*MIFGSM",
    "foolbox +attack.steps=x": "^attack.steps=x: ",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_job_is_refused_in_one_sentence(words):
    with pytest.raises(ValueError, match=REFUSED[words]) as caught:
        read(*f"attack={words}".split(" "))
    assert "\n" not in explain(caught.value)


TRIED = {
    "torchattacks.TPGD": "[Tt]arget.* not supported",
    "torchattack.SGM": "changes layers",
    "torchattack.CDA": "checkpoint_path=FILE",
    "torchattack.SSP": "another network",
}


@pytest.mark.parametrize("name", TRIED)
def test_a_class_that_cannot_run_says_why_as_it_is_tried(name, network, batch):
    targeted = not name.startswith("torchattack.")
    with pytest.raises(ValueError, match=TRIED[name]):
        attack_of(name)(network(), *batch(), 0.1, targeted=targeted)


def test_torchattacks_take_neither_an_ensemble_of_losses_nor_budgets_of_images(source, batch):
    own = EPS[:, None].expand(3, 4)
    for kind, eps, said in (("loss", EPS, "ensemble=loss"), ("single", own, "per image")):
        with pytest.raises(ValueError, match=said):
            attacks.torchattacks.FGSM(CountedModel(source(kind)), *batch(), eps)


def test_a_library_that_is_not_installed_is_named_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ValueError, match="pip install --no-deps torchattacks") as caught:
        read("attack=torchattacks")
    assert "\n" not in explain(caught.value)
