"""Attacks of other libraries and of people: beside our own, and inside what the program does.

A sign makes nothing of rounding but everything of a gradient that is nothing but rounding, so
images of library classes are compared in float64. Random parts are switched off.
"""

import random
import sys
import warnings
from functools import partial
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from src import attacks
from src.api.transfer import transfer
from src.attacks import adapt
from src.config.compose import compose_words
from src.config.errors import explain
from src.config.read import read_job
from src.config.settings import Settings
from src.images.attacker import CountedModel
from src.run.check_job import attack_function

REASON = "a dev-only library: pip install --no-deps torchattacks"
EPS = torch.tensor([2, 8, 16], dtype=torch.float64) / 255
SEEDS = torch.tensor([5, 17, 3, 1 << 32])


@pytest.fixture(autouse=True)
def installed(request) -> None:
    """Skip a test whose name has a library that is not installed."""
    if "torchattacks" in request.node.name:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as the program does
            pytest.importorskip("torchattacks", reason=REASON, exc_type=ImportError)


def attack_of(name: str) -> Any:
    library, _, kind = name.partition(".")
    return getattr(getattr(attacks, library), kind)


SAME = {
    "torchattacks.MIFGSM": attacks.mi,
    "torchattacks.NIFGSM": attacks.ni,
    "torchattacks.SINIFGSM": attacks.si_ni,
}
"""Attacks that we have too."""


@pytest.mark.parametrize("name", SAME)
def test_makes_the_images_of_our_own_attack_with_the_gradients_counted(name, network, batch):
    (images, labels), model = batch(), CountedModel(network().double())
    for targeted in (False, True):
        given = (model, images.double(), labels, EPS)
        expected = SAME[name](*given, targeted=targeted, steps=6, step_size_255=2.0)
        words = {"targeted": targeted, "max_batch": 3, "steps": 6, "alpha": 2 / 255}
        before = model.counts.gradients
        found = attack_of(name)(*given, **words)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        assert model.counts.gradients - before == 4 * 3 * 6 * (5 if "SINI" in name else 1)


def test_torchattacks_draw_by_the_seeds_alone_and_leave_everything_as_it_was(network, batch):
    images, model = batch()[0], network().train()
    labels = network()(images).argmax(1)
    before = images.clone(), labels.clone()

    def run(seeds: torch.Tensor) -> torch.Tensor:
        given = (CountedModel(model), images, labels, EPS.float())
        return attacks.torchattacks.PGD(*given, seeds=seeds, steps=2)

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
    config = compose_words(["dataset=cifar10_mini", *words])
    settings = read_job(config, config.hydra)
    attack_function(settings.attack)
    return settings


REFUSED = {
    "torchattacks attack.name=MIFSGM": r"^attack=torchattacks.MIFSGM: .*MIFSGM: .* mean MIFGSM",
    "torchattacks attack.norm=l2": "^attack.norm=l2: ",
    "torchattacks +attack.eps=0.1": "attack.eps: .*epsilon.grid=",
    "torchattacks +attack.gradients=9": "gradients=9: .*MIFGSM",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_job_is_refused_in_one_sentence(words):
    with pytest.raises(ValueError, match=REFUSED[words]) as caught:
        read(*f"attack={words}".split(" "))
    assert "\n" not in explain(caught.value)


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


LEVELS = torch.tensor([2, 8, 16]) / 255
WORDS = {"progress_bar": False, "eps": 8 / 255}


def fgsm(model: Any, images: Tensor, labels: Tensor, eps: Any) -> Tensor:
    """Return one step of the budget, in the user's own words."""
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    return (images + eps * gradient.view(-1).sign().view_as(images)).clamp(0, 1)


class Module(nn.Module):
    def forward(self, model, images, labels, eps):
        return fgsm(model, images, labels, eps)


def in_place(model, images, labels, eps, memory):
    """Change everything that is given, and return the same memory for each budget."""
    assert type(eps) is float
    memory.copy_(fgsm(model, images, labels, eps).detach())
    images.zero_()
    labels.zero_()
    model.model[0].register_forward_hook(lambda *call: -call[-1])
    return memory


FUNCTIONS = {
    "module": Module(),
    "in place": partial(in_place, memory=torch.zeros(4, 3, 12, 12)),
    "ours": attacks.fgsm,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_run_at_each_budget(name, network, batch):
    """In another layout too, in which a gradient cannot be viewed."""
    (images, labels), model = batch(), CountedModel(nn.Sequential(network()))
    expected = attacks.fgsm(model.model, images, labels, LEVELS)
    model, strided = (its.to(memory_format=torch.channels_last) for its in (model, images))
    found = adapt(FUNCTIONS[name])(model, strided, labels.clone(), LEVELS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


ALL_BUDGETS, NO_TENSOR = "all_budgets = True", r"instead of a tensor\. torch\.as_tensor"
WRONG = {
    "one image": (lambda model, images, labels, eps: images[0], ALL_BUDGETS),
    "unstated": (lambda model, images, labels, eps: torch.stack([images, images]), ALL_BUDGETS),
    "views": (lambda model, images, labels, eps: images + eps.view(-1, 1, 1, 1, 1), ALL_BUDGETS),
    "nothing": (lambda model, images, labels, eps: None, NO_TENSOR),
    "an array": (lambda model, images, labels, eps: images.numpy(), NO_TENSOR),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_contract_is_stated_and_not_guessed(name, network, batch):
    function, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence):
        adapt(function)(network(), *batch(), LEVELS)


def test_an_error_in_transfer_is_one_sentence_with_the_users_own_lines(network, batch):
    model, (images, labels) = network(), batch(height=8)
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    with pytest.raises(ValueError, match=r"^attack=mine: KeyError: 'lost'$") as caught:
        transfer(*given, attacks={"mine": lambda *arguments: {}["lost"]}, **WORDS)
    assert len(caught.traceback) < 5 and isinstance(caught.value.__cause__, KeyError)


class TorchattackBase:
    """Stand-in for the base class of the package torchattack."""

    __module__ = "torchattack.attack"


class Own(TorchattackBase):
    """Three steps of two grey levels, with or against the sign of the gradient."""

    def __init__(self, model, normalize=torch.clone, device=None, eps=8 / 255, targeted=False):
        self.model, self.normalize, self.device = model, normalize, device
        self.eps, self.targeted = eps, targeted

    def __call__(self, images, labels):
        found, way = images.clone(), -2 / 255 if self.targeted else 2 / 255
        for _ in range(3):
            loss = cross_entropy(self.model(self.normalize(found.requires_grad_())), labels)
            moved = found + way * torch.autograd.grad(loss, found)[0].sign()
            found = moved.detach().clamp(images - self.eps, images + self.eps).clamp(0, 1)
        return found


def of_torchattacks(model):
    words = {"eps": 0.5, "alpha": 2 / 255, "steps": 3, "random_start": False}
    return resolve_name("torchattacks.PGD")(model, **words)


def of_a_class_of_ones_own(model):
    return Own(model, eps=0.5)


OBJECTS = [of_torchattacks, of_a_class_of_ones_own]
"""Functions that build an object on a model and for another budget."""


@pytest.mark.parametrize("build", OBJECTS)
def test_an_object_attacks_the_source_at_each_budget(build, network, batch):
    (images, labels), model = batch(), CountedModel(network())
    built = build(network(7))
    attack = adapt(built)
    for targeted in (False, True):
        given = (model, images, labels, LEVELS)
        expected = attacks.bim(*given, steps=3, step_size_255=2.0, targeted=targeted)
        found = attack(*given, targeted=targeted)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    model.counts.gradients = 0
    attack(*given)
    assert model.counts.gradients == 3 * 3 * len(images)
    assert getattr(built, "eps", 0.5) == 0.5  # as it was


def changed(attack, **attributes):
    vars(attack).update(attributes)
    return attack


def of_foolbox():
    return type("LinfPGD", (), {"__module__": "foolbox.attacks"})()


def returns(change):
    return type("Odd", (Own,), {"__call__": lambda self, x, y: change(x)})


NORMAL = "Own normalises images"
UNUSABLE = {
    "no budget": (lambda model: object.__new__(Own), "Own has no attribute eps"),
    "a class": (lambda model: Own, "Own is a class"),
    "normalisation": (lambda model: changed(Own(model), normalization_used=True), NORMAL),
    "normalize": (lambda model: Own(model, lambda x: 2 * x), NORMAL),
    "a layer": (lambda model: changed(Own(model), layer=model[0]), "Own has layers"),
    "norm": (lambda model: partial(Own(model), norm="l2"), "only .*linf"),
    "foolbox": (lambda _: of_foolbox(), "LinfPGD is an attack of foolbox"),
    "target labels": (lambda model: Own(model, targeted=True), "Own is set to .* target_labels="),
    "mode": (lambda model: changed(Own(model), attack_mode="random"), "target_labels="),
    "a function": (lambda _: partial(attacks.mi, targeted=True), "target_labels="),
    "inside": (lambda model: changed(Own(model), other=Own(model, targeted=True)), "target_labels"),
    "unit": (lambda model: Own(model, eps=8), r"Own has eps=8, but pixels are in \[0, 1\]"),
    "None": (returns(lambda x: None), "^Odd returns NoneType"),
    "short": (returns(lambda x: x[:1]), r"^Odd returns .*\(1, "),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_object_that_would_attack_otherwise_than_in_its_library_is_refused(name, network, batch):
    build, sentence = UNUSABLE[name]
    with pytest.raises(ValueError, match=sentence):
        adapt(build(network()))(network(), *batch(), LEVELS)


def test_torchattacks_objects_with_an_l2_ball_are_run_and_recorded_in_it(network, batch):
    model, (images, labels) = network(), batch(height=8)
    attack = resolve_name("torchattacks.PGDL2")(model)
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    frame = transfer(*given, attacks={"mine": attack}, **WORDS)
    assert set(frame["norm"]) == {"l2"}
