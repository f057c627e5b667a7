"""Small sources, small images and every attack of `conf/attack/`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from src.attacks import PerImageRandom
from src.models import Ensemble
from src.utils.about import About
from src.utils.call_target import call_target
from src.utils.hydra_versions import VERSION_BASE

CONF = Path(__file__).resolve().parents[2] / "conf"
OTHERS = {"none", "saved", "torchattacks", "transferattack"}
"""Those of libraries have tests of their own."""
EVERY = sorted({file.stem for file in (CONF / "attack").glob("*.yaml")} - OTHERS)
CLASSES = 5
TWICE = ("warm_up_steps", "copies", "scales", "admixed", "neighbours", "inner_steps", "masks")
SMALL = {
    **dict.fromkeys((*TWICE, "points", "first_steps"), 2),
    **{"steps": 3, "samples": 3, "kernel_size": 5, "mix_probability": 0.5, "max_width": 1.0},
}
"""Settings that make an attack quick, or random in small networks, for the keys that it has."""

with initialize_config_dir(str(CONF), **VERSION_BASE):
    _config = compose(overrides=[f"+attack@{name}={name}" for name in EVERY])
SECTIONS: Any = OmegaConf.to_container(_config, resolve=True)
"""Resolved sections of all attacks, by name; one by one they take six times as long."""
FITTED = [name for name in EVERY if SECTIONS[name]["about"]["category"] == "fitted"]
"""Those that are fitted first, which have invariants of their own."""
ATTACKS = [name for name in EVERY if name not in FITTED]
QUICK = {"fgsm", "mi", "pgd", "vmi", "ghost", "fia", "rap", "svre"}
"""Attacks of most kinds, whose every norm is tried by `make test`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test that asks for `attack_name` run for every config file, and for every `norm`.

    Norms differ in the step and the projection that attacks share. `make test` therefore takes
    the further norms of a few attacks, and these attacks alone for the mark `few`.
    """
    slow = {name: [] if name in QUICK else pytest.mark.slow for name in ATTACKS}
    few = metafunc.definition.get_closest_marker("few")
    marks = slow if few else {name: [] for name in ATTACKS}
    if {"attack_name", "norm"} <= set(metafunc.fixturenames):
        pairs = []
        for name in ATTACKS:
            first, *others = About(**SECTIONS[name]["about"]).norms
            pairs.append(pytest.param(name, first, marks=marks[name]))
            pairs += [pytest.param(name, norm, marks=slow[name]) for norm in others]
        metafunc.parametrize(("attack_name", "norm"), pairs)
    elif "attack_name" in metafunc.fixturenames:
        names = [pytest.param(name, marks=marks[name]) for name in ATTACKS]
        metafunc.parametrize("attack_name", names)


def random_for(images: Tensor, seeds: list[int] | None = None) -> PerImageRandom:
    """Return the random numbers of images, (..., N, 3, H, W), all of class 0."""
    images = images.reshape(-1, *images.shape[-3:])
    numbers, labels = torch.tensor(seeds or range(len(images))), torch.zeros(len(images)).long()
    return PerImageRandom(numbers, images, labels, (images, labels))


class Quarters(nn.Module):
    """The means of the four quarters; a GPU's adaptive pooling is not deterministic."""

    def forward(self, z: Tensor) -> Tensor:
        return z.unflatten(3, (2, -1)).mean(4).unflatten(2, (2, -1)).mean(3)


def _head() -> list[nn.Module]:
    return [Quarters(), nn.Flatten(), nn.Linear(32, CLASSES)]


def _plain() -> nn.Sequential:
    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5)]
    return nn.Sequential(*stem, *_head())


def _residual() -> nn.Sequential:
    """Return a network with identity shortcuts, ReLUs that work in place and a max-pool."""
    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    stage = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8), nn.Dropout(0.5))
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), stage, *_head())


def _attentive() -> nn.Sequential:
    """Return a transformer of two blocks for images of any even size."""
    words = {"img_size": 12, "patch_size": 2, "dynamic_img_size": True, "proj_drop_rate": 0.5}
    network = VisionTransformer(num_classes=0, embed_dim=16, depth=2, num_heads=2, **words)
    return nn.Sequential(network, nn.Flatten(), nn.Linear(16, CLASSES))


KINDS = {
    **{"skip connections": _residual, "skip connections or ReLUs": _residual},
    **{"ReLUs": _residual, "attention": _attentive},
}
"""Small networks by what an attack needs."""


@pytest.fixture
def network(request) -> Callable[..., nn.Module]:
    """A function that makes a small network with all that has a mode, such as dropout.

    In a test of an attack by name it has what the attack needs.
    """
    parameters = getattr(request.node, "callspec", None)
    name = parameters.params.get("attack_name") if parameters else None
    needs = About(**SECTIONS[name]["about"]).needs if name else ()
    built = next((KINDS[need] for need in needs if need in KINDS), _plain)

    def make(seed: int = 0, build: Callable[[], nn.Sequential] = built) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = build()
            layers[-1].weight.data *= 4  # steep enough for budgets to matter
            if isinstance(layers[1], nn.BatchNorm2d):
                layers[1].running_var.fill_(0.3)
            layers.feature_layer = "1"  # between what is linear and what is not
        return layers.eval()

    return make


@pytest.fixture
def source(network) -> Callable[[str], nn.Module]:
    """A function that makes a source: `single`, or what an ensemble of two averages."""

    def make(kind: str) -> nn.Module:
        return network(0) if kind == "single" else Ensemble([network(0), network(1)], kind)

    return make


@pytest.fixture(scope="session")
def batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """A function that makes 8-bit images, black and white among their values, with classes."""

    def make(count: int = 4, height: int = 12, seed: int = 1) -> tuple[Tensor, Tensor]:
        generator, shape = torch.Generator().manual_seed(seed), (count, 3, height, height)
        images = torch.randint(-20, 276, shape, generator=generator).clamp(0, 255) / 255
        return images, torch.randint(0, CLASSES, (count,), generator=generator)

    return make


class Configured(NamedTuple):
    """An attack of a config: its function, and all keys of its section."""

    function: Callable[..., Tensor]
    settings: Mapping[str, Any]


@pytest.fixture(scope="session")
def small() -> Callable[..., Configured]:
    """A function that makes an attack of a config file, with keys that make it quick."""

    def make(name: str, **changes) -> Configured:
        quick = {key: value for key, value in SMALL.items() if key in SECTIONS[name]}
        keys = {**SECTIONS[name], **quick, **changes}
        others = ("name", "target_label", "about")
        words = {key: value for key, value in keys.items() if key not in others}
        return Configured(call_target({**words, "_partial_": True}), keys)

    return make
