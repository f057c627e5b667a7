"""Attacks of the user's own: what they may not do, and batches that take long."""

import time
from functools import partial

import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm
from src.config.settings import TrainerSettings
from src.data import ImageDataset, LabelledImages
from src.evaluation import Attacker, AttackError, Transfer, Variants, evaluate

TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)
BUDGETS = (4.0, 8.0)


@pytest.fixture
def dataset() -> ImageDataset:
    pixels = torch.randint(0, 256, (10, 8, 8, 3), generator=torch.Generator().manual_seed(0))
    return ImageDataset(LabelledImages(pixels.numpy().astype("uint8"), pixels[:, 0, 0, 0] % 3))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def run(dataset, model, attack, **words):
    source = Attacker(model, attack, BUDGETS, num_classes=3, name="mine", **words)
    return evaluate(dataset, Transfer({"a": model, "b": model}, source), TRAINER, "test")


def zero(tensor):
    tensor.data.zero_()  # which no version counter notices


WRITING = {
    "images": lambda given: given["images"].add_(0.1),
    "labels": lambda given: given["labels"].fill_(0),
    "budgets": lambda given: given["eps"].mul_(10),
    "true labels": lambda given: given["true_labels"].zero_(),
    "seeds": lambda given: given["seeds"].zero_(),
    "weights": lambda given: [p.mul_(2) for p in given["model"].parameters()],
    "hidden weights": lambda given: [zero(p) for p in given["model"].parameters()],
    "statistics": lambda given: [b.add_(1) for b in given["model"].buffers()],
    "mode": lambda given: given["model"].train(),
    "hook": lambda given: given["model"].model[1].register_forward_hook(lambda *call: -call[-1]),
    "setting": lambda given: setattr(given["model"].model[2], "eps", 0.1),
}


@pytest.mark.parametrize("what", WRITING)
def test_an_attack_that_changes_what_it_gets_fails(dataset, model, what):
    def attack(model, images, labels, eps, *, true_labels, seeds):
        found = fgsm(model, images, labels, eps)
        WRITING[what](locals())
        return found

    with pytest.raises(AttackError, match=r"^attack=mine (writes|changes) "):
        run(dataset, model, attack)


def test_an_attack_may_change_weights_that_it_puts_back(dataset, model):
    def attack(model, images, labels, eps):
        kept = [p.clone() for p in model.parameters()]
        for p in model.parameters():
            p.mul_(0.9)
        found = fgsm(model, images, labels, eps)
        for p, old in zip(model.parameters(), kept, strict=True):
            p.copy_(old)
        return found

    assert run(dataset, model, attack).gradients == 10


def with_nan(images):
    images[-1, -1, 0, 0, 0] = torch.nan
    return images


RETURNED = {
    "one image for all": lambda found: found[:, :1],
    "a column": lambda found: found[..., :1],
    "some images": lambda found: found[:, :2],
    "one budget": lambda found: found[0],
    "float64": lambda found: found.double(),
    "not a number": with_nan,
    "nothing": lambda found: None,
    "an error": lambda found: {}["lost"],
}


@pytest.mark.parametrize("what", RETURNED)
def test_what_is_no_image_is_refused_in_any_batch(dataset, model, what):
    calls = []

    def attack(model, images, labels, eps):
        calls.append(len(images))
        found = fgsm(model, images, labels, eps)
        return RETURNED[what](found) if len(calls) == 2 else found

    with pytest.raises(ValueError, match=r"^attack=mine(: KeyError: 'lost'$| returns )"):
        run(dataset, model, attack)
    assert calls == [4, 4]


# Batches that take long


class Slow(nn.Module):
    """Takes 5 ms for each image, and counts its calls in a buffer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        time.sleep(0.005 * len(images))
        return self.model(images)


def search(model, images, labels, eps):
    for _ in range(39):
        model(images)
    return torch.stack([images] * len(eps))


@pytest.mark.parametrize(
    ("attack", "controls", "known"),
    [(partial(bim, steps=20), False, 39), (partial(bim, steps=20), True, 0), (search, False, 0)],
)
def test_batches_that_take_too_long_are_cut(dataset, model, monkeypatch, attack, controls, known):
    for module in ("attacker", "lightning_module"):
        monkeypatch.setattr(f"src.evaluation.{module}.LIMIT", 0.8)
    monkeypatch.setattr(Transfer, "seconds", 0.8)
    variants, taken = Variants(controls=controls), []
    found, kept = {}, {"whole": [], "cut": []}
    for name, source in {"whole": model, "cut": Slow(model)}.items():
        words = {"num_classes": 3, "gradients_per_image": known}
        attacker = Attacker(source, attack, BUDGETS, **words)
        module = Transfer({"a": model}, attacker, variants, range(10), keep=kept[name].append)
        module.progress = taken.append if name == "cut" else module.progress
        trainer = TRAINER.model_copy(update={"batch_size": 10})
        found[name] = evaluate(dataset, module, trainer, "test")
    assert sum(taken) == 10 * (known or 1)
    assert found["cut"].gradients == found["whole"].gradients
    assert sum("float32" in parts for parts in kept["cut"]) > 1  # from which a killed pass goes on
    assert [list(parts) for parts in kept["whole"]] == [["images"]]
    for name in variants.names:
        table = found["whole"].tables[name]
        for column in ("index", "target", "eps_255", "predicted"):
            assert found["cut"].tables[name][column].equals(table[column]), (name, column)
    assert found["cut"].examples.keys() == found["whole"].examples.keys()
