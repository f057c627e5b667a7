"""Cost of each attack beside that of the bare gradients it takes: CPU time and operations."""

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from inspect import isfunction, signature
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import src.attacks
from src import load_classifier
from src.config import CONF
from src.data import load_dataset
from src.models import Ensemble
from src.utils.processes import keep_freed_memory

IMAGES = (4, 24)
EPS = 8 / 255
SHORT = {
    **{"steps": 5, "first_steps": 5, "warm_up_steps": 2, "inner_steps": 2, "late_start": 0},
    **{"copies": 2, "scales": 2, "admixed": 1, "neighbours": 2, "samples": 3},
    **{"masks": 8, "points": 8},
}
"""Settings that make an attack short: its costs are those of a gradient."""


class Pass(NamedTuple):
    """A batch that went through a network, (B, 3, H, W), and whether a gradient followed."""

    network: nn.Module
    images: Tensor
    gradient: bool


class _Operations(TorchDispatchMode):
    """Count the operations that torch dispatches."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def names() -> list[str]:
    """Return the names of this program's attacks, without those that are fitted first."""
    functions = {name: value for name, value in vars(src.attacks).items() if isfunction(value)}
    described = {name: value.about for name, value in functions.items() if hasattr(value, "about")}
    return sorted(name for name, about in described.items() if about.category != "fitted")


def costs(rounds: int) -> Iterator[dict[str, Any]]:
    """Print and yield the cost of each attack: CPU time over bare gradients, and operations.

    Args:
        rounds: Number of times that an attack and its bare gradients take turns; the least time of
            either counts.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    for name in names():
        one = _cost(name, rounds)
        print(*(its if key == "attack" else f"{key} {its:.4g}" for key, its in one.items()))
        yield one


def _cost(name: str, rounds: int) -> dict[str, Any]:
    few, many = (operations(name, count) for count in IMAGES)
    attack, bare = prepare(name, IMAGES[-1])
    times = [(_seconds(attack), _seconds(bare)) for _ in range(rounds)]
    whole, alone = map(min, zip(*times, strict=True))
    counts = {"operations_4": few[0], "operations_24": many[0], "bare": many[1]}
    return {"attack": name, "ratio": whole / alone, **counts}


def operations(name: str, images: int) -> tuple[float, float]:
    """Return the operations per gradient of an attack on some images, and of the bare gradients."""
    counts = []
    for call in prepare(name, images):
        with _Operations() as seen:
            gradients = call()
        counts.append(seen.count / gradients)
    return counts[0], counts[1]


def prepare(name: str, images: int) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return an attack and its bare gradients: functions that return the number of gradients.

    The attack runs once, so that the batches that its networks see are known.
    """
    data = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})[:images]
    source, pixels, labels = _source(name), data.images.float() / 255, data.labels
    attack = getattr(src.attacks, name)
    keys = {key: value for key, value in SHORT.items() if key in signature(attack).parameters}
    passes: list[Pass] = []
    networks = [*getattr(source, "members", [source])]

    def note(number: int, network: nn.Module, inputs: tuple[Tensor]) -> None:
        gradient = torch.is_grad_enabled()
        passes.append(Pass(networks[number], inputs[0].detach().clone(), gradient))

    hooks = [
        network.register_forward_pre_hook(partial(note, number))
        for number, network in enumerate(networks)
    ]
    attack(source, pixels, labels, EPS, **keys)
    for hook in hooks:
        hook.remove()
    gradients = sum(one.gradient for one in passes)

    def run() -> int:
        attack(source, pixels, labels, EPS, **keys)
        return gradients

    def bare() -> int:
        for one in passes:
            with torch.set_grad_enabled(one.gradient):
                variable = one.images.requires_grad_(one.gradient)
                logits = one.network(variable)
                loss = functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
            if one.gradient:
                torch.autograd.grad(loss, variable)
        return gradients

    return run, bare


@cache
def _source(name: str) -> nn.Module:
    """Return the smallest source in the package that has what an attack needs."""
    about = OmegaConf.load(CONF / "attack" / f"{name}.yaml").about
    if about.get("members"):
        return Ensemble([_network("resnet_small"), _network("vgg_small")], "logits")
    return _network("vit_small" if "attention" in about.get("needs", ()) else "resnet_small")


@cache
def _network(name: str) -> nn.Module:
    model = load_classifier(name, "dataset=cifar10_mini")
    return model.to(memory_format=torch.channels_last)


def _seconds(call: Callable[[], int]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
