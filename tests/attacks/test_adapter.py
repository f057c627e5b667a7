"""Attacks as people bring them: functions, and objects of classes of their own."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from src import attacks
from src.api.transfer import transfer
from src.attacks import adapt
from src.images.attacker import CountedModel

EPS = torch.tensor([2, 8, 16]) / 255
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


def stacked(model, images, labels, eps):
    return torch.stack([fgsm(model, images, labels, each) for each in eps])


stacked.all_budgets = True
FUNCTIONS = {
    "module": Module(),
    "in place": partial(in_place, memory=torch.zeros(4, 3, 12, 12)),
    "all budgets": stacked,
    "ours": attacks.fgsm,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_run_at_each_budget(name, network, batch):
    """In another layout too, in which a gradient cannot be viewed."""
    (images, labels), model = batch(), CountedModel(nn.Sequential(network()))
    expected = attacks.fgsm(model.model, images, labels, EPS)
    layout = torch.contiguous_format if name == "all budgets" else torch.channels_last
    strided = images.to(memory_format=layout, copy=True)
    found = adapt(FUNCTIONS[name])(model.to(memory_format=layout), strided, labels.clone(), EPS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


WRONG = {
    "one image": lambda model, images, labels, eps: images[0],
    "unstated": lambda model, images, labels, eps: torch.stack([images, images]),
    "views": lambda model, images, labels, eps: images + eps.view(-1, 1, 1, 1, 1),
    "nothing": lambda model, images, labels, eps: None,
}


@pytest.mark.parametrize("name", WRONG)
def test_the_contract_is_stated_and_not_guessed(name, network, batch):
    for eps, said in ((EPS, "all_budgets = True"), (EPS[:, None].expand(3, 4), "one budget")):
        with pytest.raises(ValueError, match=said):
            adapt(WRONG[name])(network(), *batch(), eps)


def test_an_error_in_transfer_is_one_sentence_with_the_users_own_lines(network, batch):
    model, (images, labels) = network(), batch(height=8)
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    with pytest.raises(ValueError, match=r"^attack=mine: KeyError: 'lost'$") as caught:
        transfer(*given, attacks={"mine": lambda *arguments: {}["lost"]}, **WORDS)
    assert len(caught.traceback) < 5 and isinstance(caught.value.__cause__, KeyError)
    for name in ("my attack", "average"):
        with pytest.raises(ValueError, match=f"^attacks.*{name}"):
            transfer(*given, attacks={name: fgsm}, **WORDS)


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
    library = pytest.importorskip("torchattacks")
    return library.PGD(model, eps=0.5, alpha=2 / 255, steps=3, random_start=False)


def of_foolbox(model):
    library = pytest.importorskip("foolbox")
    return library.attacks.LinfPGD(abs_stepsize=2 / 255, steps=3, random_start=False)


OBJECTS = {
    "torchattacks": of_torchattacks,
    "torchattack": lambda model: Own(model, eps=0.5),
    "foolbox": of_foolbox,
}
"""Functions that build an object on a model and for another budget."""


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_attacks_the_source_at_each_budget(name, network, batch):
    (images, labels), model = batch(), CountedModel(network())
    built = OBJECTS[name](network(7))
    attack = adapt(built)
    for targeted in (False, True):
        given = (model, images, labels, EPS)
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


def returns(change):
    return type("Odd", (Own,), {"__call__": lambda self, x, y: change(x)})


NORMAL = "Own normalises images"
REFUSED = {
    "no budget": (lambda model: object.__new__(Own), "Own has no attribute eps"),
    "a class": (lambda model: Own, "Own is a class"),
    "normalisation": (lambda model: changed(Own(model), normalization_used=True), NORMAL),
    "normalize": (lambda model: Own(model, lambda x: 2 * x), NORMAL),
    "a layer": (lambda model: changed(Own(model), layer=model[0]), "Own has layers"),
    "norm": (lambda model: partial(Own(model), norm="l2"), "only .*linf"),
    "None": (returns(lambda x: None), "^Odd returns NoneType"),
    "short": (returns(lambda x: x[:1]), r"^Odd returns .*\(1, "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_object_that_would_attack_otherwise_than_in_its_library_is_refused(name, network, batch):
    build, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        adapt(build(network()))(network(), *batch(), EPS)


@pytest.mark.parametrize("kind", ["torchattacks", "foolbox"])
def test_an_object_with_an_l2_ball_is_run_and_recorded_in_it(kind, network, batch):
    library = pytest.importorskip(kind)
    model, (images, labels) = network(), batch(height=8)
    attack = library.PGDL2(model) if kind == "torchattacks" else library.attacks.L2PGD()
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    frame = transfer(*given, attacks={"mine": attack}, **WORDS)
    assert set(frame["norm"]) == {"l2"}
