"""Attacks of the user's own: what they may not do, and small batches."""

from functools import partial

import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm
from src.config.settings import TrainerSettings
from src.data import to_unit
from src.images.attacker import Attacker
from src.images.variants import Variants
from src.run.lightning_module import Transfer

TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
    return nn.Sequential(*layers).eval().requires_grad_(False)


WRITING = {
    "weights": lambda model: [p.mul_(2) for p in model.parameters()],
    "hidden weights": lambda model: [p.data.zero_() for p in model.parameters()],
    "statistics": lambda model: [b.add_(1) for b in model.buffers()],
    "mode": lambda model: model.train(),
    "hook": lambda model: model.model[1].register_forward_hook(lambda *call: -call[-1]),
    "setting": lambda model: setattr(model.model[2], "eps", 0.1),
}


@pytest.mark.parametrize("what", WRITING)
def test_an_attack_may_change_all_that_it_is_given(run, model, what):
    def attack(model, images, labels, eps, *, seeds):
        found = fgsm(model, images, labels, eps)
        WRITING[what](model)
        for copy in (images, labels, eps, seeds):
            copy.zero_()
        return found

    found, expected = run({"a": model, "b": model}, attack), run({"a": model, "b": model})
    assert found.tables == expected.tables and found.gradients == 11


def with_nan(images):
    images[-1, -1, 0, 0, 0] = torch.nan
    return images


RETURNED = {
    "one budget": lambda found: found[0],
    "float64": lambda found: found.double(),
    "not a number": with_nan,
    "nothing": lambda found: None,
    "an error": lambda found: {}["lost"],
}


@pytest.mark.parametrize("what", RETURNED)
def test_what_is_no_image_is_refused_in_any_batch(run, model, what):
    calls = []

    def attack(model, images, labels, eps):
        calls.append(len(images))
        found = fgsm(model, images, labels, eps)
        return RETURNED[what](found) if len(calls) == 2 else found

    with pytest.raises(ValueError, match=r"^attack=mine(: KeyError: 'lost'$| returns )"):
        run({"a": model}, attack, name="mine")
    assert calls == [4, 4]


def test_an_attack_with_one_budget_for_all_images_cannot_be_bisected(dataset, model):
    def attack(model, images, labels, eps):
        return images + eps.reshape(-1, 1, 1, 1, 1)

    batch = dataset[:4]
    attacker = Attacker(model, attack, (2.0,), num_classes=3)
    assert attacker(to_unit(batch.images), batch).images.shape == (1, 4, 3, 8, 8)
    with pytest.raises(ValueError, match=r"for eps of shape \(1, 4\) it must return"):
        attacker.perturbed(to_unit(batch.images), batch, torch.full((1, 4), 0.1))


@pytest.mark.parametrize("controls", [False, True])
def test_batches_hold_no_more_images_than_the_source_takes(run, model, monkeypatch, controls):
    monkeypatch.setattr(Transfer, "seconds", 0)
    words, trainer = {"variants": Variants(controls=controls)}, {"batch_size": 11}
    trainer, attack = TRAINER.model_copy(update=trainer), partial(bim, steps=2)
    whole = run({"a": model}, attack, trainer, words=words)
    parts = run({"a": model}, attack, trainer, words=words, max_images=3)
    assert (whole.parts, whole.gradients) == (1 + controls, parts.gradients)
    assert (parts.parts, parts.batch_size) == (4 + controls, 3)  # pairs stay together
    for name in words["variants"].names:
        for column in ("index", "target", "eps_255", "predicted"):
            assert parts.tables[name][column].equals(whole.tables[name][column]), (name, column)
    assert parts.images.keys() == whole.images.keys()
