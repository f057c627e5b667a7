"""Training once, storing whole files, and going on after an interruption."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from src.data import ImageDataset, ImageRecords
from src.models import PixelClassifier, load_state
from src.training import Recipe, trained_weights
from src.training import checkpoint as module

TRAINER = {"accelerator": "cpu", "num_workers": 0, "progress_bar": False}


def pixels(position: int) -> np.ndarray:
    """Images whose class is their brightest channel: easy to learn."""
    image = np.random.default_rng(position).integers(0, 128, (8, 8, 3), dtype=np.uint8)
    image[:, :, position % 3] += 100
    return image


def dataset(count: int = 60) -> ImageDataset:
    labels = np.arange(count) % 3
    return ImageDataset(
        ImageRecords(labels, ("r", "g", "b"), pixels, lambda i: pixels(i).tobytes())
    )


def classifier() -> PixelClassifier:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )
    return PixelClassifier(network, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()


def recipe(**changes) -> Recipe:
    settings = {
        "epochs": 4,
        "batch_size": 10,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 5e-4,
        "gradient_clip": 1.0,
        "label_smoothing": 0.1,
        "crop_padding": 1,
        "flip": True,
        "precision": "32-true",
        "seed": 0,
    }
    return Recipe(**{**settings, **changes})


def train(path, **changes):
    return trained_weights(
        "net",
        path,
        classifier(),
        dataset(),
        dataset(30),
        recipe(**changes),
        trainer=TRAINER,
        make_logger=lambda work: None,
    )


class Stop(Callback):
    """Ends a training in its third epoch, as a power cut would."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("power cut")


def cut_short(path, monkeypatch) -> None:
    """Train until the third epoch."""

    def stopping(**words):
        return Trainer(**{**words, "callbacks": [*words["callbacks"], Stop()]})

    with monkeypatch.context() as patch:
        patch.setattr(module.pl, "Trainer", stopping)
        with pytest.raises(RuntimeError, match="power cut"):
            train(path)


@pytest.mark.parametrize("optimizer", [("sgd", 0.05, "32-true"), ("adamw", 0.01, "bf16-mixed")])
def test_learns_and_stores(tmp_path, optimizer):
    name, rate, precision = optimizer
    path = tmp_path / "net.safetensors"
    train(path, optimizer=name, learning_rate=rate, precision=precision)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["test_accuracy"] > 0.9
    network = classifier().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = load_state(path)
    assert set(after) == set(before)
    assert not torch.equal(after["1.running_mean"], before["1.running_mean"])  # norms learnt too
    assert not torch.equal(after["4.weight"], before["4.weight"])


def test_a_second_call_trains_nothing(tmp_path, monkeypatch):
    path = train(tmp_path / "net.safetensors")
    content = path.read_bytes()
    monkeypatch.setattr(module, "_train", lambda *args: pytest.fail("trained again"))
    assert train(path).read_bytes() == content


def test_an_interrupted_training_goes_on_and_ends_where_it_would_have(tmp_path, monkeypatch):
    whole = load_state(train(tmp_path / "whole.safetensors"))
    path = tmp_path / "cut.safetensors"
    cut_short(path, monkeypatch)
    assert not path.exists() and (path.with_suffix(".training") / "last.ckpt").exists()
    cut = load_state(train(path))
    assert not path.with_suffix(".training").exists()
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value)


def test_a_training_that_ended_but_was_not_stored_is_stored(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_weights", lambda *args: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(ValueError, match=r"net\.safetensors cannot be written: full"):
            train(path)
    assert not path.exists()
    cut = load_state(train(path))
    assert json.loads(path.with_suffix(".json").read_text())["test_accuracy"] > 0.9
    for name, value in load_state(train(tmp_path / "whole.safetensors")).items():
        torch.testing.assert_close(cut[name], value)


def test_two_processes_train_once(tmp_path):
    path = tmp_path / "net.safetensors"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=train, args=(path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".net.safetensors.lock",
        "net.json",
        "net.lock",
        "net.safetensors",
        "net.safetensors.sha256",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "training.epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": 1.5}, "training.batch_size must be a whole number"),
        ({"seed": 2**32}, "training.seed must be a whole number of at most 4294967295"),
        ({"learning_rate": 0}, "training.learning_rate must be a number"),
        ({"optimizer": "adam"}, "training.optimizer must be one of adamw, sgd, not adam"),
        ({"label_smoothing": 1}, "training.label_smoothing must be a number in"),
        (
            {"crop_padding": -1},
            "training.crop_padding must be a whole number",
        ),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_damaged_weights_are_named_set_aside_and_trained_again(tmp_path, caplog):
    path = train(tmp_path / "net.safetensors")
    content = path.read_bytes()
    flip_a_bit(path)
    assert train(path).read_bytes() == content
    assert f"{path} is damaged" in caplog.text
    assert (tmp_path / "net.safetensors.damaged").exists()


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path, monkeypatch, caplog):
    whole = load_state(train(tmp_path / "whole.safetensors"))
    path = tmp_path / "cut.safetensors"
    cut_short(path, monkeypatch)
    flip_a_bit(path.with_suffix(".training") / "last.ckpt")
    trained = load_state(train(path))
    assert "last.ckpt is damaged" in caplog.text
    for name, value in whole.items():
        torch.testing.assert_close(trained[name], value)
