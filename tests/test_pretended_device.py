"""Defences and whole passes on a pretended device, and the branches that only a GPU takes."""

import copy
import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from src.api.inputs import Inputs
from src.attacks import lgv, mi, pgd, uap
from src.cache.rows import Rows
from src.config.sections import TrainerSettings
from src.data import ImageDataset, LabelledImages
from src.defences import AttackedDefence, BitDepth, Jpeg, Median, RandomResizePad, Smoothing
from src.models import PixelClassifier
from src.run import passes, trainer
from src.run.trainer import speed_key
from src.utils import devices
from tests.job_context import evaluate, make_context, plan_modules
from tests.own_measurement import OWN
from tests.pretended_device import (
    DEVICE,
    DeviceTensor,
    WrongDeviceError,
    pretended_device,
    to_device,
)

DEFENCES = {
    "bit_depth": BitDepth(),
    "jpeg": Jpeg(),
    "median": Median(),
    "random_resize_pad": RandomResizePad(),
    "smoothing": Smoothing(copies=3),
}
SIDE = 16


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 5),
        )
        layers[-1].weight.data *= 8
    classifier = PixelClassifier(layers, (0.5,) * 3, (0.25,) * 3).eval().requires_grad_(False)
    classifier.feature_layer = "2"
    return classifier


def images(count: int = 5) -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=generator).to(torch.uint8)
    with torch.no_grad():
        labels = network(0)(levels.permute(0, 3, 1, 2) / 255).argmax(1)
    return ImageDataset(LabelledImages(levels.numpy(), labels.numpy()), num_classes=5)


class Runner:
    """A trainer of one process, on the pretended device."""

    world_size, global_rank = 1, 0
    strategy = SimpleNamespace(barrier=lambda: None)

    def predict(self, module, batches, return_predictions):
        to_device(module)
        with torch.no_grad():
            for number, batch in enumerate(batches):
                module.predict_step(to_device(batch), number)


def tables(folder: Path, attack, device: torch.device, **words) -> dict[str, pd.DataFrame]:
    networks = {"a": network(0), "b": network(1)}
    job = make_context(images(), networks, attack, (1.0, 8.0), reference=8.0, **words)
    job = dataclasses.replace(job, device=device)
    results = evaluate(job, Rows(folder)).tables
    found = {**results.predictions, **results.diagnostics, "clean": results.clean}
    return {name: table.to_pandas() for name, table in found.items()}


PASSES = {
    "every diagnostic": {
        "attack": partial(pgd, steps=2),
        "keys": {"steps": 2},
        "diagnostics": {
            "bisection": 1,
            "iterations": [1, 2],
            "tables": ["all"],
        },
        "measurements": OWN,
        "controls": True,
        "variants": ["uint8"],
    },
    "every defence": {"attack": partial(mi, steps=2), "defences": DEFENCES},
    "target labels in L2": {
        "attack": partial(mi, steps=2, norm="l2"),
        "norm": "l2",
        "target_label": "least_likely",
        "controls": True,
    },
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("every") else [])
        for name in PASSES
    ],
)
def test_a_pass_computes_on_one_device_what_it_computes_on_a_cpu(name, tmp_path, monkeypatch):
    words = PASSES[name]
    expected = tables(tmp_path / "cpu", device=torch.device("cpu"), **words)
    monkeypatch.setattr(passes, "make_trainer", lambda settings: Runner())
    with pretended_device() as events:
        found = tables(tmp_path / "device", device=DEVICE, **words)
    assert events.total() and found.keys() == expected.keys()
    for table, rows in found.items():
        pd.testing.assert_frame_equal(
            rows, expected[table], check_exact=False, atol=1e-5, obj=table
        )


@pytest.mark.parametrize("name", DEFENCES)
def test_an_attack_through_a_defence_computes_on_one_device(name):
    """Adaptive attacks take the gradient of the defence."""
    pixels = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    labels, model = torch.arange(4), AttackedDefence(network(0), DEFENCES[name], draws=2)
    expected = mi(copy.deepcopy(model), pixels, labels, 0.03, steps=2)
    with pretended_device():
        moved = to_device((copy.deepcopy(model), pixels, labels))
        found = mi(*moved, 0.03, steps=2)
    assert torch.equal(found.held, expected)


@pytest.mark.parametrize("attack", [uap, lgv])
def test_a_fitted_attack_is_fitted_and_used_on_one_device(attack):
    pixels = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    arguments = network(0), pixels, torch.arange(6) % 5, 0.03
    words = {"fit_batch": 3, "epochs": 1}
    with pretended_device():
        states = attack.fit(*to_device(arguments), **words)
        found = attack(*to_device(arguments), states=states, **words)
    assert isinstance(found, DeviceTensor)


def test_mixed_devices_copies_and_waits_are_noticed():
    cpu, moved = torch.ones(3), to_device(torch.ones(3))
    with pretended_device() as events:
        assert float((moved * torch.tensor(2.0)).sum()) == 6  # a single number of the CPU
        assert events.total() == 1
        moved.new_tensor([1.0]), cpu.to(DEVICE), torch.tensor([1.0], device=DEVICE)
        moved.cpu(), moved.tolist(), moved[moved > 0], moved.nonzero(), moved[torch.tensor([0])]
        assert events.total() == 9
        for mix in (torch.add, torch.dot, torch.maximum):
            with pytest.raises(WrongDeviceError):
                mix(moved, cpu)
        with pytest.raises(WrongDeviceError):
            torch.stack([moved[0], torch.tensor(1.0)])
        with pytest.raises(WrongDeviceError):
            moved.numpy()


def test_branches_for_cuda_are_in_one_place():
    source = Path(devices.__file__).parents[1]
    asking = ('== "cuda"', '!= "cuda"', ".is_cuda")
    files = [path for path in source.rglob("*.py") if any(w in path.read_text() for w in asking)]
    assert files == [Path(devices.__file__)]


def test_what_depends_on_cuda_runs_with_a_pretended_type(monkeypatch):
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 400))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "card 1")
    monkeypatch.setattr(Inputs, "__init__", lambda self: setattr(self, "device", gpu))
    settings = plan_modules({"a": network(0)}).settings
    assert devices.computes_in_bfloat16("cuda")
    assert Inputs().trainer == {"accelerator": "gpu", "devices": [1]}
    with monkeypatch.context() as patch:
        patch.setattr("src.run.trainer.device_of", lambda accelerator: "cuda")
        assert speed_key(settings, 8).endswith("8 pixels, 32-true, card 1")
    states, larger = ({0.0: {"weights": torch.ones(size)}} for size in (25, 26))
    assert devices.move_states(states, torch.device("cpu")) is states
    assert devices.move_states(larger, gpu) is larger  # more than a quarter of the free memory
    for module in (devices, trainer):
        monkeypatch.setattr(module, "is_cuda", lambda device: True)
    (moved,) = devices.move_states(states, DEVICE).values()
    assert moved["weights"].device == DEVICE
    automatic = TrainerSettings(accelerator="cpu")
    settings = settings.model_copy(update={"trainer": automatic})
    assert trainer.for_device(settings).trainer.batch_size == 1000
