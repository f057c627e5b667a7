"""Trainings: their numbers and bounds, one for all processes, and what an interruption leaves."""

import itertools
import os
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.utils.data import DistributedSampler

from src.api.classifier import load_classifier
from src.config.sections import TrainerSettings, TrainingSettings
from src.data import ImageDataset, LabelledImages, to_unit
from src.models import PixelClassifier, load_weights, weight_facts
from src.run.models import training_attack
from src.training import FineTuning, Training, augment
from tests.conftest import at_once

STEPS, EVALUATED = 6, 3  # batches of an epoch; at the end as many are evaluated once more
TRAINER = TrainerSettings(accelerator="cpu", progress_bar=False)


def dataset(count: int = 60) -> ImageDataset:
    """Images whose class is their brightest channel: easy to learn."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(0).integers(0, 128, (count, 8, 8, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, :, label] += 100
    return ImageDataset(LabelledImages(images, labels, ("r", "g", "b")))


def classifier() -> PixelClassifier:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    return PixelClassifier(nn.Sequential(*layers), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()


def train(path, model=None, **changes):
    images = (model or classifier(), dataset(), dataset(30))
    Training("net", path, *images, recipe(**changes), TRAINER, then=("other",)).run_once()
    return path


def recipe(**changes) -> TrainingSettings:
    settings = {"epochs": 4, "batch_size": 10, "optimizer": "sgd", "learning_rate": 0.05}
    settings |= {"weight_decay": 5e-4, "gradient_clip": 1.0, "label_smoothing": 0.1}
    settings |= {"dropout": None, "crop_padding": 1, "flip": True, "precision": "32-true"}
    return TrainingSettings(**settings | {"seed": 0} | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a training that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole") / "net.safetensors")


def assert_same_weights(path, other):
    torch.testing.assert_close(load_file(path), load_file(other))


def cut_short(path, monkeypatch, model=None) -> None:
    """Train for two epochs and a batch more, as in a power cut."""
    checks = itertools.count()

    def check():
        if next(checks) > 2 * (STEPS + EVALUATED):
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("src.utils.stopping.raise_if_interrupted", check)
        with pytest.raises(RuntimeError, match="power cut"):
            train(path, model=model)
    assert not path.exists() and (path.with_suffix(".training") / "last.ckpt").exists()


def with_dropout():
    model = classifier()
    model.network[3] = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    return model


def test_dropout_can_be_switched_off(whole, tmp_path):
    for dropout in (0, None):
        path = train(tmp_path / f"{dropout}.safetensors", model=with_dropout(), dropout=dropout)
        same = torch.allclose(load_file(path)["4.weight"], load_file(whole)["4.weight"])
        assert same == (dropout == 0)


def test_an_interrupted_training_ends_where_it_would_have(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "cut.safetensors"
    uncut = train(tmp_path / "uncut.safetensors", model=with_dropout())
    cut_short(path, monkeypatch, with_dropout())
    assert_same_weights(train(path, model=with_dropout()), uncut)
    metrics, expected = (pd.read_csv(file.with_suffix(".csv")) for file in (path, uncut))
    assert_frame_equal(metrics, expected)
    assert not path.with_suffix(".training").exists()
    assert "net: 60 images, 4 epochs (resuming); then other" in caplog.text


def test_the_test_images_of_an_epoch_do_not_change_the_weights(whole, tmp_path, monkeypatch):
    counts, real = [], FineTuning.validation_step

    def step(module, batch, number):
        counts.append(len(batch.labels))
        real(module, batch, number)

    monkeypatch.setattr(FineTuning, "validation_step", step)
    assert_same_weights(train(tmp_path / "net.safetensors", evaluate_on=6), whole)
    assert counts == 4 * [6] + 3 * [10]
    trained, tested = classifier(), dataset(30)[:]
    load_weights(trained.network, whole)
    right = trained(to_unit(tested.images)).argmax(1) == tested.labels
    assert weight_facts(whole).tested == (right.sum(), 30)


ADVERSARIAL = {"attack": "bim", "eps": 16, "steps": 3, "clean_share": 0.3, "batch_size": 10}


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [("sgd", {"batch_size": 60}), ("adamw", {"batch_size": 60}), ("sgd", ADVERSARIAL)],
)
def test_a_training_is_that_of_a_hand_written_loop(tmp_path, optimizer, words):
    more = {"optimizer": optimizer, "weight_decay": 0.5, "gradient_clip": 0.2}
    settings = recipe(epochs=2, **more, **words)
    given = (classifier(), dataset(), dataset(30), settings, TRAINER)
    path, craft, size = tmp_path / "net.safetensors", training_attack(settings), settings.batch_size
    Training("net", path, *given, craft=craft).run_once()
    model = classifier().train()
    torch.manual_seed(0)
    kinds = [[p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False)]
    groups = [{"params": kinds[0], "weight_decay": 0.5}, {"params": kinds[1], "weight_decay": 0}]
    makers = {"adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, nesterov=True)}
    momentum = {"momentum": 0.95} if optimizer == "sgd" else {}
    stepping = makers[optimizer](groups, lr=0.05, **momentum)
    steps = max(5, 2 * 60 // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(stepping, 0.05, steps, pct_start=0.25)
    sampler = DistributedSampler(dataset(), num_replicas=1, rank=0, seed=0)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for part in [order[at : at + size] for at in range(0, 60, size)]:
            batch, step = dataset()[part], schedule.last_epoch
            generator = torch.Generator().manual_seed(step)
            clean = to_unit(augment(batch.images, 1, True, generator))
            model.eval()
            attacked = clean.clone()
            for _ in range(3):
                point = attacked.detach().requires_grad_()
                loss = functional.cross_entropy(model(point), batch.labels)
                (gradient,) = torch.autograd.grad(loss, point)
                moved = point + 16 / 255 / 3 * gradient.sign()
                attacked = moved.clamp(clean - 16 / 255, clean + 16 / 255).clamp(0, 1).detach()
            model.train()
            logits = model(torch.cat([clean[:3], attacked[3:]]) if craft else clean)
            loss = functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
            stepping.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)
            stepping.step()
            schedule.step()
    trained, expected = load_file(path), model.eval().network.state_dict()
    if optimizer == "adamw":  # which scales up the rounding that is this bias's whole gradient
        del trained["0.bias"], trained["1.running_mean"]
    for name, value in trained.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    written, tested = classifier(), dataset(30)[:]
    load_weights(written.network, path)
    right = (written(to_unit(tested.images)).argmax(1) == tested.labels).float().mean()
    noted = pd.read_csv(path.with_suffix(".csv"), index_col="variable")["value"]
    assert noted["test_accuracy"].iloc[-1] == pytest.approx(right.item())


def test_what_is_no_adversarial_training_is_refused():
    for changes, told in (
        ({"eps": 2}, "needs training.attack"),
        ({"attack": "fgsm", "steps": 3}, "attack.steps"),
        ({"attack": "uap"}, "training.attack=uap"),
    ):
        with pytest.raises(ValueError, match=told):
            training_attack(recipe(**changes))


def test_two_processes_train_once(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    real = Training._fit

    def fit(*given):
        (tmp_path / f"trained by {os.getpid()}").touch()
        return real(*given)

    monkeypatch.setattr(Training, "_fit", fit)
    at_once(*[partial(train, path)] * 2)
    assert len([*tmp_path.glob("trained by *")]) == 1 and path.exists()


def test_a_damaged_checkpoint_begins_the_training_anew(tmp_path, monkeypatch, whole, caplog):
    path = tmp_path / "net.safetensors"
    cut_short(path, monkeypatch)
    checkpoint = path.with_suffix(".training") / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert_same_weights(train(path), whole)
    assert f"{checkpoint} is damaged (" in caplog.text and "weights_only" not in caplog.text


def test_each_result_of_augment_is_a_crop_of_the_padded_image_or_of_its_mirror():
    random = torch.Generator().manual_seed(0)
    before = torch.randint(1, 256, (16, 3, 6, 6), generator=random, dtype=torch.uint8)
    assert torch.equal(augment(before, 0, False, random), before)
    seen, padded = set(), functional.pad(before, (2, 2, 2, 2))
    for old, new in zip(padded, augment(before, 2, True, random), strict=True):
        places = []
        for row, column, flip in itertools.product(range(5), range(5), (False, True)):
            part = old[:, row : row + 6, column : column + 6]
            if torch.equal(new, part.flip(2) if flip else part):
                places.append((row, column, flip))
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 8 and {place[2] for place in seen} == {False, True}


RECIPE = ["model.fine.weights=null", "dataset.n_train=200"]
RECIPE += ["training.epochs=2", "training.batch_size=10", "dataset.n_test=100"]
RECIPE += ["clean_accuracy_check.action=stop"]


@pytest.mark.slow
def test_a_network_at_chance_stops_each_job_that_needs_it(run_job, workspace, capsys):
    words = [*RECIPE, "training.learning_rate=1e-9", "attack=fgsm"]
    assert run_job("-m", *words, "targets=[coarse],[fine]") == 1
    printed = capsys.readouterr().out
    assert "FAILED 1-fgsm-coarse: model fine is at chance" in printed
    assert printed.count("FAILED") == printed.count("Trained fine: ") == 1
    assert run_job(*words, "targets=[fine]") == 2  # its weights are known now
    out, err = capsys.readouterr()
    assert "model fine is at chance" in err and "Training" not in out + err


def test_too_few_or_too_many_training_images_are_refused(workspace):
    for count in (9, 201):
        more = ["dataset=cifar10_mini", f"training.n_images={count}"]
        with pytest.raises(ValueError, match=rf"n_images={count}: .*10 \(classes\) to 200 "):
            load_classifier("fine", *RECIPE, *more, config_dir="conf")
