"""Classes of a clone of TransferAttack: of a stand-in of its shape, and of a real one."""

import os
import re
import sys
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch

from src import attacks
from src.api.transfer import transfer
from src.attacks import adapt
from src.defences import AttackedDefence
from src.images.attacker import CountedModel
from src.models import Ensemble, PixelClassifier

EPS = torch.tensor([2, 8, 16], dtype=torch.float64) / 255
CLASSES = ("signs", "aimed", "inner", "several")
"""Classes that run, all but `inner` on every network."""
FAULTY = ("broken", "ended", "missing")
FILES = {
    "__init__.py": f"""
import importlib
attack_zoo = dict.fromkeys({CLASSES + FAULTY}, ".gradient.some")
attack_zoo |= {{"several": ".ensemble.several", "missing": ".missing"}}
def load_attack_class(name):
    return getattr(importlib.import_module(attack_zoo[name], __package__), name.title())
""",
    "utils.py": """
import torch
class EnsembleModel(torch.nn.Module):
    def __init__(self, models):
        super().__init__()
        self.models = models
    def forward(self, images):
        return sum(model(images) for model in self.models) / len(self.models)
""",
    "attack.py": """
import torch
class Attack:
    def __init__(self, model_name, epsilon=16/255, alpha=1.6/255, epoch=10, targeted=False,
                 norm='linfty', device=None):
        self.model = self.load_model(model_name)
        self.epsilon, self.alpha, self.epoch, self.targeted = epsilon, alpha, epoch, targeted
    def load_model(self, model_name):
        raise AssertionError("it would be downloaded")
    def __call__(self, data, label):
        self.model.cuda()
        return self.forward(data.cuda(), label.cuda())
    def forward(self, data, label):
        assert not self.targeted or (label[0] != label[1]).all()
        sign, label = (-1, label[1]) if self.targeted else (1, label)
        delta = torch.zeros_like(data).requires_grad_()
        for _ in range(self.epoch):
            loss = torch.nn.functional.cross_entropy(self.model(data + delta), label)
            step = sign * self.alpha * torch.autograd.grad(loss, delta)[0].view(-1).sign()
            delta = (delta + step.view_as(data)).clamp(-self.epsilon, self.epsilon)
            delta = ((data + delta).clamp(0, 1) - data).detach().requires_grad_()
        return delta.detach()
""",
    "missing.py": "import package_of_no_one",
    "gradient/some.py": """
import torch
from ..attack import Attack
class Signs(Attack):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
class Aimed(Attack):
    def __init__(self, model_name, epsilon=16/255, alpha=2/255, epoch=4, targeted=True):
        super().__init__(model_name, epsilon, alpha, epoch, targeted)
class Inner(Attack):
    def __init__(self, model_name, epsilon=16/255, alpha=1.6/255, epoch=3):
        super().__init__(model_name, epsilon, alpha, epoch)
        assert self.model[1][0].weight.shape == (8, 3, 3, 3)
class Broken(Attack):
    def forward(self, data, label):
        raise RuntimeError("no layer4 here\\nand more")
class Ended(Attack):
    def forward(self, data, label):
        print("Selected layer is not there")
        exit()
""",
    "ensemble/several.py": """
from ..attack import Attack
class Several(Attack):
    def __init__(self, model_name, epsilon=16/255, alpha=1.6/255, epoch=2):
        super().__init__(model_name, epsilon, alpha, epoch)
        assert len(model_name) == len(self.model.models)
""",
}
"""A package of the shape of TransferAttack's."""


@pytest.fixture
def clone(tmp_path) -> str:
    """A stand-in for a clone."""
    for name, text in FILES.items():
        file = tmp_path / "clone" / "transferattack" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return str(tmp_path / "clone")


@pytest.fixture
def classifier(network) -> PixelClassifier:
    return PixelClassifier(network(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()


def attack_of(name: str, root: str) -> Any:
    return getattr(attacks.transferattack, name).in_root(root)


def test_makes_the_images_of_our_own_attack_in_any_layout(clone, classifier, batch):
    images, labels = batch()
    model = classifier.double().to(memory_format=torch.channels_last)
    images = images.double().contiguous(memory_format=torch.channels_last)
    defended = AttackedDefence(model, lambda images: images.flip(-1))
    for source, targeted in ((model, False), (model, True), (defended, False)):
        given = (source, images, labels, EPS)
        expected = attacks.bim(*given, steps=5, relative_step_size=0.1, targeted=targeted)
        words = {"epoch": 5, "targeted": targeted, "true_labels": labels - 1}
        found = attack_of("signs", clone)(*given, **words)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    found = attacks.transferattack.signs(*given, root=clone, epoch=5, alpha=2 / 255)
    torch.testing.assert_close(found, attacks.bim(*given, steps=5, step_size_255=2.0))
    assert "transferattack" not in sys.modules


def test_a_class_of_ones_own_needs_no_edit_of_the_clone(clone, network, batch, monkeypatch):
    monkeypatch.syspath_prepend(clone)
    base = import_module("transferattack.attack").Attack
    for name in ("transferattack", "transferattack.attack"):
        del sys.modules[name]

    class Mine(base):
        def __init__(self, model_name, *, epsilon=16 / 255, alpha=None, epoch=4, **kwargs):
            super().__init__(model_name, epsilon, alpha or epsilon / epoch, epoch, **kwargs)

    given = (network(), *batch(), EPS.float())
    expected = attacks.bim(*given, steps=5, relative_step_size=0.2)
    found = adapt(partial(Mine, epoch=5))(*given)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    loading = type("Loading", (Mine,), {"load_model": lambda self, name: name})
    for kind, said in ((loading, "loads its own network"), (object.__new__(Mine), "class Mine")):
        with pytest.raises(ValueError, match=said):
            adapt(kind)


def test_counts_gradients_and_reads_layers_behind_the_normalisation(clone, classifier, batch):
    counted = CountedModel(classifier)
    attack_of("inner", clone)(counted, *batch(), EPS.float(), max_batch=3, epoch=4)
    assert counted.counts.gradients == counted.counts.forwards == 3 * 4 * 4


def test_an_ensemble_is_a_list_of_models_also_of_one_for_a_class_that_needs_it(
    clone, network, batch
):
    attack, members = attack_of("several", clone), [network(0), network(1)]
    counted = CountedModel(Ensemble(members, "logits"))
    found = attack(counted, *batch(), EPS.float())
    assert counted.counts.gradients == 2 * 3 * 2 * 4
    expected = attacks.bim(counted, *batch(), EPS.float(), steps=2, relative_step_size=0.1)
    torch.testing.assert_close(found, expected)
    attack(network(0), *batch(), 0.1)
    with pytest.raises(ValueError, match="ensemble=loss: "):
        attack(Ensemble(members, "loss"), *batch(), 0.1)


REFUSED = {
    "attack.name=sings": "attack.name=sings: .*mean signs",
    "+attack.stepz=3": "attack.stepz: .* alpha, epoch, root, norm",
    "attack.root=nowhere": "attack.root=nowhere: name the folder",
    "attack.name=missing": "attack.name=missing: .*'package_of_no_one'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refuses_in_one_sentence(words, clone, run_job, capfd):
    given = {"attack": "transferattack", "attack.root": clone, "attack.name": "signs"}
    given |= dict([words.split("=")])
    assert run_job(*map("=".join, given.items())) == 2
    lines = capfd.readouterr().err.strip().split("\n")
    assert re.search(REFUSED[words], lines[-1]) and "Traceback" not in lines[0]


def test_transfer_takes_a_class_and_gives_a_targeted_one_both_labels(clone, classifier, batch):
    images, labels = batch()
    call = partial(transfer, {"a": classifier}, {"a": classifier}, images, labels, eps=8 / 255)
    for name, rule in {"signs": None, "aimed": "next"}.items():
        chosen = {"transferattack": {"name": name, "root": clone}, "mine": attack_of(name, clone)}
        frame = call(attacks=chosen, target_labels=rule, progress_bar=False)
        label = f"transferattack.{name}" + f" (target_label={rule})" * bool(rule)
        assert {*frame.attack} == {label, "mine"}
    for name, targeted, reason in (
        ("aimed", False, r"attack\.target_label="),
        ("inner", True, r"attack\.target_label="),
        ("ended", False, "exits the program: Selected layer is not there"),
    ):
        with pytest.raises(ValueError, match=reason):
            attack_of(name, clone)(classifier, images, labels, 0.1, targeted=targeted)


def test_the_command_tries_every_class(clone, run_in, printed_by, tmp_path):
    words = ("transferattack", "--root", clone)
    status, text = printed_by(partial(run_in, module="src.attacks.__main__"), tmp_path, *words)
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.strip().split("\n")}
    assert status == 0 and lines["signs"] == lines["aimed"] == "yes"
    assert lines["broken"] == "no   RuntimeError: no layer4 here"
    assert "3 of 7 classes of transferattack run on resnet_small." in text


@pytest.mark.skipif("TRANSFERATTACK" not in os.environ, reason="needs TRANSFERATTACK=CLONE")
@pytest.mark.parametrize("name", ["adaea", "smer", "mig", "anda", "awt"])
def test_runs_what_this_program_has_by_name_only(name, source, batch):
    model = source("logits" if name in ("adaea", "smer") else "single")
    before = [tensor.clone() for tensor in model.state_dict().values()]
    images, labels = batch(1 if name == "anda" else 4)
    attack = attack_of(name, os.environ["TRANSFERATTACK"])
    found, again = (attack(model, images, labels, 8 / 255, epoch=2) for _ in range(2))
    assert torch.equal(found, again) and found.min() >= 0 and found.max() <= 1
    assert 1 / 255 < (found - images).abs().amax() < 8.001 / 255
    assert all(map(torch.equal, before, model.state_dict().values()))
