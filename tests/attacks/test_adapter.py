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


def in_place(model, images, labels, eps):
    found = fgsm(model, images, labels, eps)
    images.copy_(found.detach())
    labels.zero_()
    model.model[0].register_forward_hook(lambda *call: -call[-1])
    return images


def stacked(model, images, labels, eps):
    return torch.stack([fgsm(model, images, labels, each) for each in eps])


stacked.all_budgets = True
FUNCTIONS = {
    "partial": partial(fgsm),
    "bound method": Module().forward,
    "module": Module(),
    "in place": in_place,
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


def test_a_function_gets_each_budget_as_a_number_and_may_reuse_its_memory(network, batch):
    memory = []

    def attack(model, images, labels, eps, kept):
        assert type(eps) is float
        kept.append(kept[0].copy_(images + eps) if kept else images + eps)
        return kept[0]

    images, labels = batch()
    found = adapt(partial(attack, kept=memory))(network(), images, labels, EPS)
    torch.testing.assert_close(found, images + EPS.view(-1, 1, 1, 1, 1))
    assert len(memory) == 3


WRONG = {
    "one image": lambda model, images, labels, eps: images[0],
    "unstated": lambda model, images, labels, eps: torch.stack([images, images]),
    "views": lambda model, images, labels, eps: images + eps.view(-1, 1, 1, 1, 1),
    "loops": lambda model, images, labels, eps: torch.stack([images + each for each in eps]),
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
    with pytest.raises(ValueError, match=r"mine .*`targeted`"):
        transfer(*given, attacks={"mine": fgsm}, target_labels="next", **WORDS)


def three_steps(logits: Any, images: Tensor, labels: Tensor, eps: float, sign: int) -> Tensor:
    found = images.clone()
    for _ in range(3):
        found.requires_grad_()
        loss = sign * cross_entropy(logits(found), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, found)
        found = (found.detach() + eps / 3 * gradient.sign() - images).clamp(-eps, eps)
        found = (images + found).clamp(0, 1)
    return found


def torchattacks_class() -> Any:
    pytest.importorskip("torchattacks")
    from torchattacks.attack import Attack

    class Own(Attack):
        def __init__(self, model, eps=8 / 255, **more):
            super().__init__("Own", model)
            self.eps, self.name = eps, "Own attack of mine"
            self.supported_mode = ["default", "targeted"]

        def forward(self, images, labels):
            sign = -1 if self.targeted else 1
            return three_steps(self.get_logits, images, labels, self.eps, sign)

    return Own


class TorchattackBase:
    """Stand-in for the base class of the package torchattack."""

    __module__ = "torchattack.attack"


class OfTorchattack(TorchattackBase):
    def __init__(self, model, normalize=torch.clone, device=None, eps=8 / 255, targeted=False):
        self.model, self.normalize, self.device = model, normalize, device
        self.eps, self.targeted = eps, targeted

    def __call__(self, x, y):
        sign = -1 if self.targeted else 1
        return three_steps(lambda x: self.model(self.normalize(x)), x, y, self.eps, sign)


def foolbox_class() -> Any:
    foolbox, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")

    class Own(foolbox.attacks.base.FixedEpsilonAttack):
        distance = foolbox.distances.linf

        def run(self, model, inputs, criterion, *, epsilon, **keywords):
            targets = getattr(criterion, "target_classes", None)
            labels, sign = (criterion.labels, 1) if targets is None else (targets, -1)
            found = three_steps(model, inputs.raw, labels.raw, epsilon, sign)  # of eagerpy
            return eagerpy.astensor(found)

    return Own


OBJECTS = {
    "torchattacks": lambda model: torchattacks_class()(model, eps=0.5),
    "keywords": lambda model: torchattacks_class()(model, eps=0.5, number=3, other=1),
    "torchattack": lambda model: OfTorchattack(model, eps=0.5),
    "foolbox": lambda model: foolbox_class()(),
}
"""Functions that build an object of a class of one's own, on a model and for another budget."""


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_of_an_own_class_attacks_the_source_at_each_budget(name, network, batch):
    (images, labels), model = batch(), CountedModel(network())
    built = OBJECTS[name](network(7))
    attack = adapt(built)
    for targeted in (False, True):
        given = (model, images, labels, EPS)
        expected = attacks.bim(*given, steps=3, relative_step_size=1 / 3, targeted=targeted)
        found = attack(*given, targeted=targeted)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    model.counts.gradients = 0
    attack(*given)
    assert model.counts.gradients == 3 * 3 * len(images)
    assert getattr(built, "eps", 0.5) == 0.5  # as it was
    if name == "torchattacks":
        built.set_mode_targeted_random(quiet=True)  # no target labels: untargeted
        untargeted = attacks.bim(*given, steps=3, relative_step_size=1 / 3)
        torch.testing.assert_close(adapt(built)(*given), untargeted, atol=1e-6, rtol=0)


def changed(change):
    """Return a function that builds an object of torchattacks and changes it or its model."""

    def build(model):
        attack = torchattacks_class()(model)
        change(attack, next(model.children()))
        return attack

    return build


def returns(change):
    kind = type("Odd", (OfTorchattack,), {"__call__": lambda self, x, y: change(x)})
    return lambda model: kind(model)


def of_norm_1(model):
    return pytest.importorskip("foolbox").attacks.L1FastGradientAttack()


REFUSED = {
    "no budget": (changed(lambda its, _: delattr(its, "eps")), "Own has no attribute eps"),
    "a class": (lambda model: torchattacks_class(), "Own is a class"),
    "normalisation": (
        changed(lambda its, _: its.set_normalization_used([0.5] * 3, [0.5] * 3)),
        "Own normalises images",
    ),
    "normalize": (lambda model: OfTorchattack(model, lambda x: 2 * x), "OfTorchattack normalises"),
    "a layer": (changed(lambda its, layer: setattr(its, "layer", layer)), "Own has layers"),
    "a hook": (
        changed(lambda _, layer: layer.register_forward_hook(lambda *call: None)),
        "Own has layers",
    ),
    "norm": (lambda model: partial(torchattacks_class()(model), norm="l2"), "only .*linf"),
    "norm 1": (of_norm_1, "norm 1"),
    "None": (returns(lambda x: None), "^Odd returns NoneType"),
    "tuple": (returns(lambda x: (x, x)), "^Odd returns tuple"),
    "short": (returns(lambda x: x[:1]), r"^Odd returns .*\(1, "),
    "bytes": (returns(lambda x: (255 * x).byte()), "^Odd returns .*uint8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_object_that_would_attack_otherwise_than_in_its_library_is_refused(name, network, batch):
    build, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        adapt(build(network()))(network(), *batch(), EPS)


def test_what_an_object_adds_beyond_its_budget_is_returned_for_its_user_to_be_told(network, batch):
    images, labels = batch()
    counting = network()
    counting.expect_images = lambda its: None
    found = adapt(returns(lambda x: x + 0.5)(network()))(counting, images, labels, EPS)
    torch.testing.assert_close(found, (images + 0.5).expand(3, *images.shape))


def test_an_object_for_another_budget_is_named_once_with_the_way_on(network, batch, caplog):
    attack = adapt(type("Warned", (OfTorchattack,), {})(network(), eps=0.25))
    attack(network(), *batch(), 0.25)
    assert not caplog.text
    attack(network(), *batch(), EPS)
    assert caplog.text.count("lambda model, images, labels, eps: Warned(model, eps=eps)") == 1
    library = type("MIFGSM", (OfTorchattack,), {"__module__": "torchattack.mifgsm"})
    used = library(network(), eps=16 / 255)
    used.steps, used.alpha = 10, 1.6 / 255  # a step fixed by an earlier call
    adapt(used)(network(), *batch(), EPS)
    assert "MIFGSM was built for another budget" in caplog.text


@pytest.mark.parametrize("kind", ["torchattacks", "foolbox"])
def test_an_object_with_an_l2_ball_is_run_and_recorded_in_it(kind, network, batch):
    library = pytest.importorskip(kind)
    model, (images, labels) = network(), batch(height=8)
    attack = library.PGDL2(model) if kind == "torchattacks" else library.attacks.L2PGD()
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    frame = transfer(*given, attacks={"mine": attack}, **WORDS)
    assert set(frame["norm"]) == {"l2"}
    assert frame.jobs[0].record.config["attack"]["settings"]["steps"] > 0
