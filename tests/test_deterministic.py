"""What only a GPU does, without one: deterministic kernels, and everything on one device.

On a pretended device defences and whole passes compute what a CPU does.
"""

import copy
import dataclasses
import subprocess
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from src.attacks import TrainingImages, lgv, mi, pgd, uap
from src.cache.rows import Rows
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.config.sections import TrainerSettings
from src.data import ImageDataset, LabelledImages
from src.defences import AttackedDefence, BitDepth, Jpeg, Median, RandomResizePad, Smoothing
from src.models import PixelClassifier, build_classifier
from src.models.architectures import vgg16
from src.run import passes, trainer
from src.utils import devices
from src.utils.devices import deterministic
from tests.job_context import evaluate, make_context, plan_modules
from tests.nondeterministic import LIST, refuse_nondeterministic
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
    "moved_jpeg": Jpeg(offset=3),
    "median": Median(),
    "random_resize_pad": RandomResizePad(),
    "smoothing": Smoothing(copies=3),
}
SIDE = 16
MODELS = {file.stem for file in (CONF / "model").glob("[!_]*.yaml")}
MODELS -= {"answers", "timm", "torchvision", "resnet_small"}
slow = pytest.mark.slow


def switches() -> tuple:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )


@pytest.fixture
def restored():
    """Restore PyTorch's switches after a test."""
    mode, only, fill, chosen, benchmark, *_ = switches()
    yield
    torch.use_deterministic_algorithms(mode, warn_only=only)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = chosen, benchmark


@pytest.mark.parametrize("mode", [(False, False), (True, False), (True, True)])
def test_a_gpu_gets_deterministic_kernels_for_a_while(mode, restored):
    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
    torch.backends.cudnn.benchmark = True
    before, kernels = switches(), set()
    with pytest.raises(ZeroDivisionError), deterministic("cuda", kernels):
        assert switches() == (True, True, False, True, False, False, False)
        raise ZeroDivisionError
    assert switches() == before and not kernels
    with deterministic("cpu", kernels):
        assert switches() == before


def test_kernels_that_are_not_deterministic_are_named_and_other_warnings_are_shown(restored):
    kernels, place = set(), torch.tensor([0])
    attention = "Flash Attention defaults to a non-deterministic algorithm."
    product = "but this operation is not deterministic because it uses CuBLAS "
    with pytest.warns(UserWarning) as shown, deterministic("cuda", kernels):
        torch.zeros(3).put_(place, torch.ones(1))
        for text in (attention, product, "something else"):
            warnings.warn(text, stacklevel=1)
    assert kernels == {"put_", "Flash Attention", "CuBLAS"}
    assert [str(one.message) for one in shown] == ["something else"]


CODE = """
import os, torch
torch.cuda.is_initialized = lambda: {runs}
from src.utils.devices import deterministic
with deterministic("cuda", set()):
    print(torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
"""


@slow
@pytest.mark.parametrize(
    ("runs", "before", "after"),
    [(False, None, ":4096:8"), (True, ":16:8", ":16:8"), (True, None, None)],
)
def test_cublas_is_deterministic_unless_it_runs_already(runs, before, after, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    command = [sys.executable, "-c", CODE.format(runs=runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{after is not None} {after}\n"
    assert ("Set CUBLAS_WORKSPACE_CONFIG" in done.stderr) == (after is None)


def test_the_list_is_that_of_the_documentation():
    if torch.__version__.split("+")[0] != LIST["torch"]:
        pytest.skip(f"the list is that of torch {LIST['torch']}")
    text = " ".join(torch.use_deterministic_algorithms.__doc__.split())
    text = text.split(":class:`RuntimeError` when ``mode=True``: ")[1]
    text = text.split(" In addition, several operations")[0]
    assert text == " ".join(f"* {line}" for line in LIST["kernels"])


@pytest.mark.parametrize(
    "name", ["resnet_small", *(pytest.param(name, marks=slow) for name in sorted(MODELS))]
)
def test_networks_of_the_catalogue_are_deterministic_on_a_gpu(name):
    config = compose_words([f"source={name}", "targets=[vgg_small]", "attack=fgsm"])
    settings = read_job(config, config.hydra).model[name]
    network = {**settings.network, "pretrained": False}
    network = network if "pretrained" in settings.network else settings.network
    words = {"mean": (0, 0, 0), "std": (1, 1, 1), "input_size": settings.input_size}
    classifier = build_classifier(name, network, num_classes=10, image_size=32, **words)
    images = torch.rand(1, 3, 32, 32).requires_grad_()
    with refuse_nondeterministic():
        classifier(images).sum().backward()


@slow
def test_vgg16_is_deterministic_on_a_gpu_and_the_same_at_224_pixels():
    torch.manual_seed(0)
    network, images = vgg16(10, 224).eval(), torch.rand(1, 3, 224, 224).requires_grad_()
    with refuse_nondeterministic():
        logits = network(images)
        logits.sum().backward()
    network.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    assert torch.equal(network(images), logits)


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AvgPool2d(8),  # its adaptive form is not deterministic on a GPU
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
        "diagnostics": {"tables": ["all"]},
        "defences": {name: DEFENCES[name] for name in DEFENCES if name != "random_resize_pad"},
        "measurements": OWN,
        "controls": True,
        "variants": ["uint8"],
    },
    "target labels in L2": {
        "attack": partial(mi, steps=2, norm="l2"),
        "norm": "l2",
        "target_label": "least_likely",
        "controls": True,
    },
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow) if "every" in name else name for name in PASSES]
)
def test_a_pass_is_deterministic_and_computes_on_one_device(name, tmp_path, monkeypatch):
    words = PASSES[name]
    with refuse_nondeterministic():
        expected = tables(tmp_path / "cpu", device=torch.device("cpu"), **words)
    monkeypatch.setattr(passes, "make_trainer", lambda settings: Runner())
    with pretended_device() as events:
        found = tables(tmp_path / "device", device=DEVICE, **words)
    assert events.total() and found.keys() == expected.keys()
    for table, rows in found.items():
        pd.testing.assert_frame_equal(rows, expected[table], check_exact=False, atol=1e-5)


@pytest.mark.parametrize("name", DEFENCES)
def test_an_attack_through_a_defence_is_deterministic_and_computes_on_one_device(name):
    """Adaptive attacks take the gradient of the defence."""
    pixels = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    labels, model = torch.arange(4), AttackedDefence(network(0), DEFENCES[name], draws=2)
    with refuse_nondeterministic() if name != "random_resize_pad" else nullcontext():
        expected = mi(copy.deepcopy(model), pixels, labels, 0.03, steps=2)
    with pretended_device():
        moved = to_device((copy.deepcopy(model), pixels, labels))
        found = mi(*moved, 0.03, steps=2)
    assert torch.equal(found.held, expected)


@pytest.mark.parametrize("attack", [uap, lgv])
def test_a_fitted_attack_is_fitted_and_used_on_one_device(attack):
    pixels = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    arguments = network(0), pixels, torch.arange(6) % 5, 0.03
    with pretended_device():
        model, images, labels, eps = to_device(arguments)
        words = {"training_images": TrainingImages.of(images, labels), "fit_batch": 3, "epochs": 1}
        found = attack(model, images, labels, eps, **words)
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


def test_what_depends_on_cuda_runs_with_a_pretended_type(monkeypatch):
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 400))
    state, larger = ({"weights": torch.ones(size)} for size in (25, 26))
    assert devices.move_state(state, torch.device("cpu")) is state
    assert devices.move_state(larger, gpu) is larger  # more than a quarter of the free memory
    for module in (devices, trainer):
        monkeypatch.setattr(module, "is_cuda", lambda device: True)
    assert devices.move_state(state, DEVICE)["weights"].device == DEVICE
    settings = plan_modules({"a": network(0)}, trainer=TrainerSettings(accelerator="cpu")).settings
    assert trainer.for_device(settings).trainer.batch_size == 1000
