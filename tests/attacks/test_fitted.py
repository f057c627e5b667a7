"""Attacks that fit a state to training images before they attack others."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from src import attacks
from src.attacks import TrainingBatch, TrainingImages
from tests.attacks.conftest import FITTED

EPS = 8 / 255


def fitted(images, labels, **settings):
    """Return the keywords of an attack that is fitted to a few images."""
    data = TrainingImages.of(images, labels)
    return {"training_images": data, "epochs": 1, "fit_batch": 2, **settings}


def kept(images, labels, states, **words):
    """Return training images that keep the states of one attack on one source by budget."""

    def fit_once(eps, fit):
        return states[eps] if eps in states else states.setdefault(eps, fit())

    return replace(TrainingImages.of(images, labels, **words), fitted=fit_once)


def small(name, model, images, labels, norm):
    """Return an attack as a function of images, labels and budgets, with a small fit."""
    attack, words = getattr(attacks, name), {"norm": norm}
    if name == "generator":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()).to(images)
        return partial(attack, model, network=network, norm=norm)
    words |= {"fit_batch": 3, "epochs": 2, "training_images": kept(images, labels, {})}
    words |= {"copies": 2, "steps": 10} if name == "mba" else {}
    return partial(attack, model, **words)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", FITTED)
def test_invariants(name, norm, network, batch):
    model, (images, labels), (others, classes) = network().double(), batch(6, seed=2), batch()
    images, others = images.double(), others.double()
    eps = torch.tensor([0.25, 8, 64, 0]).double() / 255
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    model.train()
    attack = small(name, model, images, labels, norm)
    whole = attack(others, classes, eps)
    assert torch.equal(attack(others, classes, eps), whole) and not whole.requires_grad
    assert model.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    change = (whole - others).flatten(2)
    sizes = change.abs().amax(-1) if norm == "linf" else change.square().mean(-1).sqrt()
    assert (sizes <= eps[:, None] + 1e-7).all() and (sizes[:3] > 0.2 * eps[:3, None]).all()
    assert whole.min() >= 0 and whole.max() <= 1 and torch.equal(whole[3], others)
    for rows in ([2, 0, 3, 1], [1]):
        for part in ([0, 1, 2, 3], [1], [2, 0]):
            again = attack(others[rows], classes[rows], eps[part], seeds=torch.tensor(rows))
            torch.testing.assert_close(again, whole[part][:, rows], atol=1e-12, rtol=0)


def test_one_step_on_one_image_is_the_fast_gradient_sign_method(network, batch):
    model, (images, labels) = network(), batch(1)
    universal = attacks.uap(model, images, labels, EPS, **fitted(images, labels, fit_step=1.0))
    assert torch.equal(universal, attacks.fgsm(model, images, labels, EPS))


def test_a_targeted_fit_lowers_the_loss_of_the_targets(network, batch):
    model, (images, labels) = network(), batch(6)
    goals = (labels + 1) % 5
    data = TrainingImages.of(images, labels, target_labels=goals)
    words = {"training_images": data, "epochs": 4, "fit_batch": 2, "targeted": True}
    moved = attacks.uap(model, images, goals, EPS, **words)
    before, after = (nn.functional.cross_entropy(model(x), goals) for x in (images, moved))
    assert after < before


@pytest.mark.parametrize("attack", [attacks.lgv, partial(attacks.mba, copies=1)])
def test_no_training_leaves_the_base_attack(attack, source, batch):
    model, (images, labels) = source("loss"), batch()
    words = {"steps": 3, "relative_step_size": 0.5}
    few = fitted(images, labels, epochs=0)
    adversarial = attack(model, images, labels, EPS, **few, **words)
    assert torch.equal(adversarial, attacks.bim(model, images, labels, EPS, **words))


@pytest.mark.parametrize("name", ["lgv", "mba"])
def test_training_and_steps_are_the_papers(name, batch):
    """Of one linear layer; each epoch has two batches, and each step one or two gradients."""
    model, (images, labels) = nn.Sequential(nn.Flatten(), nn.Linear(432, 5)).double(), batch()
    images, flat, copies = images.double(), name == "mba", 1 + (name == "mba")
    weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    words = {"epochs": 2, "fit_batch": 2, "weights_per_epoch": 2, "weight_decay": 0.01}
    attack, momentum, seen, found = getattr(attacks, name), 0.0, [], images
    words["training_images"] = TrainingImages.of(images, labels, seed=5)

    def gradient(weights, x, y):
        x, weights = (leaf.detach().clone().requires_grad_() for leaf in (x, weights))
        logits = x.flatten(1) @ weights[:2160].view(5, 432).T + weights[2160:]
        return torch.autograd.grad(nn.functional.cross_entropy(logits, y), (weights, x))

    for epoch in range(2):
        generator = torch.Generator().manual_seed(5 * 1_000_003 + epoch)
        for part in torch.randperm(4, generator=generator).split(2):
            g, _ = gradient(weights, images[part], labels[part])
            h, _ = gradient(weights + 0.1 * flat * g / g.norm(), images[part], labels[part])
            momentum = 0.9 * momentum + g + (h - g) / 0.1 + 0.01 * weights
            weights = weights - 0.05 * momentum
            seen.append(weights)
    mean, spread = torch.stack(seen).mean(0), torch.stack(seen).std(0, correction=0)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    for step in range(2):
        total = 0
        for number in range(copies * step, copies * (step + 1)):
            noise = partial(torch.randn, generator=torch.Generator().manual_seed(number))
            drawn = [noise(shape, dtype=mean.dtype).flatten() for shape in ((5,), (5, 432))]
            sampled = mean + 1.5 * spread * torch.cat(drawn[::-1]) if flat else seen[order[number]]
            total = total + gradient(sampled, found, labels)[1]
        found = (found + EPS / 2 * total.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    short = {"steps": 2, "relative_step_size": 0.5, **({"copies": 2} if flat else {})}
    made = attack(model, images, labels, EPS, **words, **short)
    torch.testing.assert_close(made, found, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["uap", "lgv", "mba"])
def test_fits_repeat_to_the_bit(network, batch, name):
    model, (images, labels), states = network(), batch(5), [{}, {}]

    def read(positions, generator):
        where = torch.tensor(positions)
        noise = torch.rand(len(where), generator=generator) if generator else torch.zeros(1)
        moved = (images[where] + 0.01 * noise.view(-1, 1, 1, 1)).clamp(0, 1)
        return TrainingBatch(moved, labels[where], labels[where], where)

    for held in states:
        data = TrainingImages(len(images), read, 3, fitted=kept(images, labels, held).fitted)
        words = {"training_images": data, "epochs": 3, "fit_batch": 2}
        getattr(attacks, name)(model, images, labels, EPS, **words)
    ((eps, one),), (other,) = states[0].items(), states[1].values()
    assert eps == (EPS if name == "uap" else 0) and one.keys() == other.keys()
    assert all(torch.equal(other[key], value) for key, value in one.items())


def test_attacks_without_training_images_and_other_numbers_of_labels_are_refused(network, batch):
    model, (images, labels) = network(), batch()
    for attack in (attacks.uap, attacks.lgv, attacks.mba):
        with pytest.raises(ValueError, match="pass training_images"):
            attack(model, images, labels, EPS)
    with pytest.raises(ValueError, match="one whole number per image"):
        TrainingImages.of(images, labels[:-1])
    with pytest.raises(ValueError, match="diverged"):
        attacks.lgv(model, images, labels, EPS, **fitted(images, labels, learning_rate=1e30))


def test_a_perturbation_comes_from_a_file_of_any_form(network, batch, tmp_path):
    model, (images, labels) = network(), batch()
    levels = torch.randint(-8, 9, (3, 12, 12), generator=torch.Generator().manual_seed(0))
    change = levels / 255
    torch.save(change[None], tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", change.permute(1, 2, 0).numpy())
    grey = (levels + 128).to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(grey).save(tmp_path / "a.png")
    save_file({"perturbation": change}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.npy", "a.safetensors", "a.png"):
        file = str(tmp_path / name)
        adversarial = attacks.uap(model, images, labels, EPS, file=file)
        assert torch.allclose(adversarial, (images + change).clamp(0, 1), atol=1e-6)
    half = attacks.uap(model, images, labels, EPS / 2, file=file, shrink=True)
    assert torch.allclose(half, (images + change / 2).clamp(0, 1), atol=1e-6)
    larger = batch(height=24)[0]
    resized = attacks.uap(model, larger, labels, EPS, file=file, resize=True)
    assert resized.shape == larger.shape


class Code:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return (print, ("run",))


BAD = {
    "shape.pt": torch.zeros(2, 3),
    "nan.pt": torch.full((3, 12, 12), torch.nan),
    "grey.pt": torch.full((3, 12, 12), 4.0),
    "size.pt": torch.zeros(3, 8, 8),
    "large.pt": torch.full((3, 12, 12), 16 / 255),
    "code.pt": Code(),
    "two.pt": {"a": torch.zeros(3, 12, 12)},
}


def test_files_without_perturbation_are_refused_and_run_no_code(network, batch, tmp_path, capsys):
    for name, held in BAD.items():
        torch.save(held, tmp_path / name)
    np.save(tmp_path / "code.npy", np.array([Code()], dtype=object), allow_pickle=True)
    (tmp_path / "none.png").write_text("no picture")
    for name in [*BAD, "code.npy", "none.png", "missing.pt"]:
        with pytest.raises(ValueError, match=name) as refused:
            attacks.uap(network(), *batch(), EPS, file=str(tmp_path / name))
        assert "\n" not in str(refused.value) and "run" not in capsys.readouterr().out
