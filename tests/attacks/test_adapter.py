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
    cross_entropy(model(leaf), labels, reduction="sum").backward()
    return (leaf + eps * leaf.grad.sign()).clamp(0, 1)


class Callable:
    def __call__(self, model, images, labels, eps):
        return fgsm(model, images, labels, eps)


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
    "function": fgsm,
    "lambda": lambda *arguments: fgsm(*arguments),
    "partial": partial(fgsm),
    "object": Callable(),
    "bound method": Callable().__call__,
    "module": Module(),
    "in place": in_place,
    "all budgets": stacked,
    "ours": attacks.fgsm,
    "part of ours": partial(attacks.fgsm),
}


@pytest.fixture
def counted(network) -> CountedModel:
    return CountedModel(nn.Sequential(network()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_run_at_each_budget(name, counted, batch):
    images, labels = batch()
    expected = attacks.fgsm(counted.model, images, labels, EPS)
    found = adapt(FUNCTIONS[name])(counted, images.clone(), labels.clone(), EPS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_function_gets_each_budget_as_a_number(counted, batch):
    budgets = []

    def attack(model, images, labels, eps):
        budgets.append(eps)
        return images

    adapt(attack)(counted, *batch(), EPS)
    assert [type(eps) for eps in budgets] == [float] * 3
    assert budgets == pytest.approx([2 / 255, 8 / 255, 16 / 255])


def views(model, images, labels, eps):
    return images + eps.view(-1, 1, 1, 1, 1)


WRONG = {
    "one image": lambda model, images, labels, eps: images[0],
    "unstated": lambda model, images, labels, eps: torch.stack([images, images]),
    "views": views,
    "loops": lambda model, images, labels, eps: torch.stack([images + each for each in eps]),
    "nothing": lambda model, images, labels, eps: None,
}


@pytest.mark.parametrize("name", WRONG)
def test_the_contract_is_stated_and_not_guessed(name, counted, batch):
    with pytest.raises(ValueError, match="must state all_budgets = True"):
        adapt(WRONG[name])(counted, *batch(), EPS)


def test_a_function_of_one_budget_takes_none_per_image(counted, batch):
    with pytest.raises(ValueError, match="one budget for all images"):
        adapt(fgsm)(counted, *batch(), EPS[:, None].expand(3, 4))


def test_an_error_in_transfer_is_one_sentence_with_the_users_own_lines(network, batch):
    def mistaken(model, images, labels, eps):
        return {}["lost"]

    model, (images, labels) = network(), batch(height=8)
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    with pytest.raises(ValueError, match=r"^attack=mine: KeyError: 'lost'$") as caught:
        transfer(*given, attacks={"mine": mistaken}, **WORDS)
    assert len(caught.traceback) < 5 and isinstance(caught.value.__cause__, KeyError)
    for name in ("my attack", "a/b", "average"):
        with pytest.raises(ValueError, match=f"^attacks.*{name}.*letters, digits and _") as caught:
            transfer(*given, attacks={name: fgsm}, **WORDS)
        assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="mine has no argument `targeted`"):
        transfer(*given, attacks={"mine": fgsm}, target_labels="next", **WORDS)


def torchattacks_class() -> Any:
    pytest.importorskip("torchattacks")
    from torchattacks.attack import Attack

    class Own(Attack):
        """Steps of a share of the budget, with settings under other names."""

        def __init__(self, model, eps=8 / 255, number=3, **more):
            super().__init__("Own", model)
            self.eps, self._number, self.name = eps, number, "Own attack of mine"
            self.supported_mode = ["default", "targeted"]

        def forward(self, images, labels):
            found, images = images.clone(), images.clone()
            for _ in range(self._number):
                found.requires_grad_()
                loss = cross_entropy(self.get_logits(found), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(-loss if self.targeted else loss, found)
                found = found.detach() + self.eps / self._number * gradient.sign()
                found = images + (found - images).clamp(-self.eps, self.eps)
                found = found.clamp(0, 1)
            return found

    return Own


class TorchattackBase:
    """Stand-in for the base class of the package torchattack."""

    __module__ = "torchattack.attack"

    def __init__(self, model, normalize, device):
        self.model, self.device = model, device
        self.normalize = normalize if normalize else lambda images: images

    def __call__(self, *arguments):
        return self.forward(*arguments)


class OfTorchattack(TorchattackBase):
    def __init__(self, model, normalize=None, device=None, eps=8 / 255, steps=3, targeted=False):
        super().__init__(model, normalize, device)
        self.eps, self.steps, self.targeted = eps, steps, targeted

    def forward(self, x, y):
        delta = torch.zeros_like(x)
        for _ in range(self.steps):
            delta.requires_grad_()
            loss = cross_entropy(self.model(self.normalize(x + delta)), y, reduction="sum")
            (gradient,) = torch.autograd.grad(-loss if self.targeted else loss, delta)
            delta = delta.detach() + self.eps / self.steps * gradient.sign()
            delta = (x + delta.clamp(-self.eps, self.eps)).clamp(0, 1) - x
        return x + delta


def foolbox_class() -> Any:
    foolbox, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")

    class Own(foolbox.attacks.base.FixedEpsilonAttack):
        distance = foolbox.distances.linf

        def run(self, model, inputs, criterion, *, epsilon, **keywords):
            targets = getattr(criterion, "target_classes", None)
            labels, sign = (criterion.labels, 1) if targets is None else (targets, -1)
            inputs, eps = inputs.raw, epsilon / 3  # foolbox passes tensors of eagerpy
            found = inputs.clone()
            for _ in range(3):
                found.requires_grad_()
                loss = sign * cross_entropy(model(found), labels.raw, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, found)
                found = (found.detach() + eps * gradient.sign() - inputs).clamp(-epsilon, epsilon)
                found = (inputs + found).clamp(0, 1)
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
    attack = adapt(OBJECTS[name](network(7)))
    for targeted in (False, True):
        given = (model, images, labels, EPS)
        expected = attacks.bim(*given, steps=3, relative_step_size=1 / 3, targeted=targeted)
        found = attack(*given, targeted=targeted)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    model.counts.gradients = 0
    attack(*given)
    assert model.counts.gradients == 3 * 3 * len(images)


def test_attributes_set_later_count_and_budgets_of_attacks_within_an_object_are_set(network, batch):
    own = torchattacks_class()

    class Nested(own):
        def __init__(self, model, eps=0.5):
            super().__init__(model, eps)
            self.inner = own(model, eps)

        def forward(self, images, labels):
            return self.inner(images, labels)

    attack = Nested(network(7))
    attack.inner._number = 2
    given = (network(), *batch(), EPS)
    expected = attacks.bim(*given, steps=2, relative_step_size=1 / 2)
    torch.testing.assert_close(adapt(attack)(*given), expected, atol=1e-6, rtol=0)
    assert attack.eps == attack.inner.eps == 0.5


def test_what_an_object_adds_beyond_its_budget_is_returned_for_its_user_to_be_told(network, batch):
    class Far(OfTorchattack):
        def forward(self, x, y):
            return x + 0.5

    images, labels = batch()
    counting = network()
    counting.expect_images = lambda its: None
    found = adapt(Far(network()))(counting, images, labels, EPS)
    torch.testing.assert_close(found, (images + 0.5).expand(3, *images.shape))


def without_budget(model):
    attack = torchattacks_class()(model)
    del attack.eps
    return attack


def normalised(model):
    attack = torchattacks_class()(model)
    attack.set_normalization_used([0.5] * 3, [0.5] * 3)
    return attack


def with_layer(model):
    attack = torchattacks_class()(model)
    attack.layer = next(model.children())
    return attack


def with_hook(model):
    next(model.children()).register_forward_hook(lambda *call: None)
    return torchattacks_class()(model)


REFUSED = {
    "no budget": (without_budget, "Own has no attribute eps.* Pass a function"),
    "a class": (lambda model: torchattacks_class(), "Own is a class. Pass an object"),
    "normalisation": (normalised, "Own normalises images.* Build it without"),
    "normalize": (
        lambda model: OfTorchattack(model, lambda images: 2 * images),
        "OfTorchattack normalises images.* Build it without",
    ),
    "a layer": (with_layer, r"Own has layers of the model .*Own\(model, eps=eps\)\(images, labels"),
    "a hook": (with_hook, "Own has layers of the model"),
    "another norm": (lambda model: partial(torchattacks_class()(model), norm="l2"), "only .*linf"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_object_that_would_attack_otherwise_than_in_its_library_is_refused(name, network, batch):
    build, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        adapt(build(network()))(network(), *batch(), EPS)


def test_an_object_in_the_mode_of_targets_is_untargeted_without_target_labels(network, batch):
    attack = torchattacks_class()(network())
    attack.set_mode_targeted_random(quiet=True)
    given = (network(), *batch(), EPS)
    expected = attacks.bim(*given, steps=3, relative_step_size=1 / 3)
    torch.testing.assert_close(adapt(attack)(*given), expected, atol=1e-6, rtol=0)


def test_an_object_for_another_budget_is_named_once_with_the_way_on(network, batch, caplog):
    class Warned(OfTorchattack):
        pass

    attack = adapt(Warned(network(), eps=0.25))
    attack(network(), *batch(), 0.25)
    assert not caplog.text
    attack(network(), *batch(), EPS)
    assert caplog.text.count("lambda model, images, labels, eps: Warned(model, eps=eps)") == 1


@pytest.mark.parametrize("kind", ["torchattacks", "foolbox"])
def test_an_object_with_an_l2_ball_is_run_and_recorded_in_it(kind, network, batch):
    library = pytest.importorskip(kind)
    model, (images, labels) = network(), batch(height=8)
    attack = library.PGDL2(model) if kind == "torchattacks" else library.attacks.L2PGD()
    given = {"a": model}, {"a": model}, (images * 255).to(torch.uint8), labels
    frame = transfer(*given, attacks={"mine": attack}, **WORDS)
    assert set(frame["norm"]) == {"l2"}
    assert frame.jobs[0].record.config["attack"]["settings"]["steps"] > 0


def test_foolbox_repeats_an_attack(network, batch):
    pytest.importorskip("foolbox")
    attack, given = adapt(foolbox_class()().repeat(2)), (network(), *batch(), EPS)
    expected = attacks.bim(*given, steps=3, relative_step_size=1 / 3)
    torch.testing.assert_close(attack(*given), expected, atol=1e-6, rtol=0)


def test_a_function_may_reuse_its_memory(network, batch):
    memory = []

    def attack(model, images, labels, eps):
        memory.append(memory[0].copy_(images + eps) if memory else images + eps)
        return memory[0]

    images, labels = batch()
    found = adapt(attack)(network(), images, labels, EPS)
    torch.testing.assert_close(found, images + EPS.view(-1, 1, 1, 1, 1))


def test_keywords_of_a_function_stay_those_of_its_user(network, batch):
    calls, images, labels = [], *batch()

    def attack(model, images, labels, eps, calls):
        calls.append(eps)
        return images

    adapt(partial(attack, calls=calls))(network(), images, labels, EPS)
    assert calls == EPS.tolist()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: None, "NoneType"),
        (lambda x: (x, x), "tuple"),
        (lambda x: x[:1], r"\(1, "),
        (lambda x: (255 * x).byte(), "uint8"),
        (lambda x: x[:, :1], "instead of floats"),
    ],
)
def test_what_an_object_returns_has_the_form_of_the_images(made, said, network, batch):
    class Odd(OfTorchattack):
        def forward(self, x, y):
            return made(x)

    with pytest.raises(ValueError, match=f"^Odd returns .*{said}"):
        adapt(Odd(network()))(network(), *batch(), EPS)


def test_an_object_with_another_norm_is_refused(network):
    foolbox = pytest.importorskip("foolbox")
    with pytest.raises(ValueError, match="norm 1"):
        adapt(foolbox.attacks.L1FastGradientAttack())


def test_gradients_can_be_viewed_whatever_the_layout_of_the_model(network, batch):
    def flat(model, images, labels, eps):
        images = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(images), labels), images)
        return (images + eps * gradient.view(len(images), -1).tanh().view_as(images)).detach()

    images, labels = batch()
    convolved = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))
    convolved(images)
    found = adapt(flat)(convolved, images, labels, EPS)
    last = convolved.to(memory_format=torch.channels_last)
    strided = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(adapt(flat)(last, strided, labels, EPS), found)


def test_a_step_fixed_by_an_earlier_call_is_said(network, batch, caplog):
    library = type("MIFGSM", (OfTorchattack,), {"__module__": "torchattack.mifgsm"})
    used = library(network(), eps=16 / 255, steps=10)
    used.alpha = used.eps / used.steps
    adapt(used)(network(), *batch(), EPS)
    assert "built for another budget" in caplog.text
