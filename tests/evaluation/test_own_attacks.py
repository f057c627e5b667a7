"""Attacks of the user's own, and what they may not do."""

import pytest
import torch
from torch import nn

from src.attacks import fgsm
from src.config.settings import TrainerSettings
from src.data import ImageDataset, LabelledImages
from src.evaluation import Attacker, AttackError, Transfer, evaluate

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
    "weights": lambda given: [p.mul_(2) for p in given["model"].parameters()],
    "hidden weights": lambda given: [zero(p) for p in given["model"].parameters()],
    "statistics": lambda given: [b.add_(1) for b in given["model"].buffers()],
    "mode": lambda given: given["model"].train(),
    "hook": lambda given: given["model"].model[1].register_forward_hook(lambda *call: -call[-1]),
    "setting": lambda given: setattr(given["model"].model[2], "eps", 0.1),
}


@pytest.mark.parametrize("what", WRITING)
def test_an_attack_that_changes_its_source_fails(dataset, model, what):
    def attack(model, images, labels, eps, *, true_labels, seeds):
        found = fgsm(model, images, labels, eps)
        WRITING[what](locals())
        return found

    with pytest.raises(AttackError, match=r"^attack=mine changes its source"):
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
