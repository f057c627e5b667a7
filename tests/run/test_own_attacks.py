"""Attacks of the user's own: what they may not do, and small batches."""

import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm
from src.data import to_unit
from src.images.attacker import Attacker
from tests.job_context import TRAINER


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
    assert found.tables == expected.tables and found.results.gradients == 11


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
    assert calls == [3, 4]


def test_an_attack_with_one_budget_for_all_images_cannot_be_bisected(dataset, model):
    def attack(model, images, labels, eps):
        return images + eps.reshape(-1, 1, 1, 1, 1)

    batch = dataset[:4]
    attacker = Attacker(model, attack, num_classes=3)
    assert attacker(to_unit(batch.images), batch, (2.0,)).images.shape == (1, 4, 3, 8, 8)
    with pytest.raises(ValueError, match=r"for eps of shape \(1, 4\) it must return"):
        attacker.perturbed(to_unit(batch.images), batch, torch.full((1, 4), 0.1))


def test_batches_hold_no_more_images_than_their_gradients_allow(run, model):
    sizes = []

    def attack(model, images, labels, eps, *, seeds):
        sizes.append(len(images))
        return bim(model, images, labels, eps, steps=2)

    def parts(limit):
        trainer = TRAINER.model_copy(update={"batch_size": 11, "gradients_per_batch": limit})
        about = {"gradients": 3}
        return run({"a": model}, attack, trainer=trainer, about=about)

    whole, some = parts(1000), parts(9)
    assert sizes == [11, 3, 2, 2, 2, 2]  # neighbours stay together
    assert whole.results.gradients == some.results.gradients and some.results.batch_size == 3
    for name, table in some.results.predictions.items():
        for column in ("index", "target", "eps_255", "predicted"):
            assert table[column].equals(whole.tables[name][column]), (name, column)
    assert some.images.keys() == whole.images.keys()
