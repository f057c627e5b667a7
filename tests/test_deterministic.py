"""Deterministic kernels: switches and their end, and what this program's own code calls."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.data import ImageDataset, LabelledImages
from src.defences import AttackedDefence, BitDepth, Jpeg, Median, Smoothing
from src.models import PixelClassifier, build_classifier
from src.models.architectures import vgg16
from src.utils.devices import deterministic
from tests.job_context import run_modules
from tests.nondeterministic import LIST, refuse_nondeterministic

DEFENCES = {
    "bit_depth": BitDepth(),
    "jpeg": Jpeg(),
    "jpeg, moved": Jpeg(offset=3),
    "median": Median(),
    "smoothing": Smoothing(),
}


MODELS = [file.stem for file in sorted((CONF / "model").glob("[!_]*.yaml"))]
MODELS = [name for name in MODELS if name not in ("answers", "timm", "torchvision")]


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
    with pytest.warns(UserWarning) as shown, deterministic("cuda", kernels):
        for _ in range(2):
            torch.zeros(3).put_(place, torch.ones(1))
        warnings.warn("Flash Attention defaults to a non-deterministic algorithm.", stacklevel=1)
        warnings.warn(
            "but this operation is not deterministic because it uses CuBLAS and you "
            "have CUDA >= 10.2.",
            stacklevel=1,
        )
        warnings.warn("something else", stacklevel=1)
    assert kernels == {"put_", "Flash Attention", "CuBLAS"}
    assert [str(one.message) for one in shown] == ["something else"]


CUBLAS = [  # whether CUDA runs, the variable's value before and after
    (False, None, ":4096:8"),
    (False, ":16:8", ":16:8"),
    (True, ":16:8", ":16:8"),
    (True, None, None),
]
CODE = """
import os, subprocess, sys
import torch, torch.nn.attention
name = "CUBLAS_WORKSPACE_CONFIG"
torch.use_deterministic_algorithms(False)  # loads what all processes need
for runs, stated, _ in {cases}:  # each in a process that has not imported `src`
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    os.environ.pop(name, None)
    if stated:
        os.environ[name] = stated
    torch.cuda.is_initialized = lambda: runs
    import src
    from src.utils.devices import deterministic
    chosen = []
    for _ in range(2):
        with deterministic("cuda", set()):
            chosen.append(torch.are_deterministic_algorithms_enabled())
    code = f"import os; print({{chosen}}, os.environ.get('{{name}}'))"
    subprocess.run([sys.executable, "-c", code], check=True)
    sys.exit()
"""


@pytest.mark.slow
def test_cublas_is_deterministic_unless_it_runs_already():
    command = [sys.executable, "-c", CODE.format(cases=CUBLAS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{[after is not None] * 2} {after}" for *_, after in CUBLAS
    ]
    assert done.stderr.count("Set CUBLAS_WORKSPACE_CONFIG") == 1


def test_the_list_is_that_of_the_documentation():
    if torch.__version__.split("+")[0] != LIST["torch"]:
        pytest.skip(f"the list is that of torch {LIST['torch']}")
    text = " ".join(torch.use_deterministic_algorithms.__doc__.split())
    text = text.split(":class:`RuntimeError` when ``mode=True``: ")[1]
    text = text.split(" In addition, several operations")[0]
    assert text == " ".join(f"* {line}" for line in LIST["kernels"])


@pytest.mark.parametrize("name", DEFENCES)
def test_adaptive_attacks_on_defences_are_deterministic_on_a_gpu(name):
    images = torch.rand(2, 3, 21, 21).requires_grad_()
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 21 * 21, 5))
    defended = AttackedDefence(model, DEFENCES[name])
    if defended.randomised:
        defended._seeds = torch.tensor([1, 2])
    with refuse_nondeterministic():
        defended(images).sum().backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize(
    "name",
    [
        name if name == "resnet_small" else pytest.param(name, marks=pytest.mark.slow)
        for name in MODELS
    ],
)
def test_networks_of_the_catalogue_are_deterministic_on_a_gpu(name):
    config = compose_words(CONF, [f"source={name}", "targets=[vgg_small]", "attack=fgsm"])
    settings = read_job(config, config.hydra).model[name]
    network = {**settings.network, "pretrained": False}
    network = network if "pretrained" in settings.network else settings.network
    words = {"mean": (0, 0, 0), "std": (1, 1, 1), "input_size": settings.input_size}
    classifier = build_classifier(name, network, num_classes=10, image_size=32, **words)
    images = torch.rand(1, 3, 32, 32).requires_grad_()
    with refuse_nondeterministic():
        classifier(images).sum().backward()


@pytest.mark.slow
def test_vgg16_is_deterministic_on_a_gpu_and_the_same_at_224_pixels():
    torch.manual_seed(0)
    network, images = vgg16(10, 224).eval(), torch.rand(1, 3, 224, 224).requires_grad_()
    with refuse_nondeterministic():
        logits = network(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images)
    network.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    assert torch.equal(network(images), logits)
    with refuse_nondeterministic(), pytest.raises(RuntimeError, match="_adaptive_avg_pool2d"):
        network(images).sum().backward()
    assert torch.equal(torch.autograd.grad(network(images).sum(), images)[0], gradient)


@pytest.mark.slow
def test_a_pass_with_all_diagnostics_is_deterministic_on_a_gpu():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    dataset = ImageDataset(LabelledImages(pixels, np.arange(3), ("x", "y", "z")))
    networks = {}
    for name in ("a", "b"):
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))
        networks[name] = PixelClassifier(layers, (0, 0, 0), (1, 1, 1)).eval().requires_grad_(False)
        networks[name].feature_layer = "network.0"
    words = {"tables": ["all"], "bisection": 1, "n_images": 3}
    defences = {name: DEFENCES[name] for name in ("jpeg", "median", "smoothing")}
    with refuse_nondeterministic():
        found = run_modules(dataset, networks, diagnostics=words, defences=defences, controls=True)
    assert len(found.tables) >= 10
