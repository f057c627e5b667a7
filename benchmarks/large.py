"""Cost of each attack on large images and networks: CPU time and memory beside bare gradients."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import src.attacks
from benchmarks.attacks import EPS, SHORT, kinds, names, record
from src.models import Ensemble, PixelClassifier
from src.models.batch_norm_folding import fold_batch_norms

IMAGES, BUDGETS = 10, 5  # of which memory is measured; time: of 4 images and one budget
SHORTER = SHORT | {"steps": 2, "first_steps": 2, "warm_up_steps": 0, "inner_steps": 1}
SHORTER |= {"samples": 2, "masks": 2, "points": 2, "neighbours": 1, "copies": 1}
_MIB = 2**20 if sys.platform == "darwin" else 2**10  # units of `ru_maxrss` in a mebibyte


def large_costs(pixels: int, done: set[str]) -> Iterator[dict[str, Any]]:
    """Print and yield the costs of the attacks that are not done, each from fresh processes.

    They are the CPU time over that of the bare gradients, and the peak memory above that of the
    networks at rest, of the attack and of one bare gradient, in MiB.
    """
    for name in names():
        if name not in done:
            bare = _bare_memory(tuple(kinds(name)), pixels)
            one = {"attack": name, **_measure("time", name, pixels)}
            one |= {**_measure("memory", name, pixels), "bare_mib": bare}
            print(one, flush=True)
            yield one


@cache
def _bare_memory(networks: tuple[str, ...], pixels: int) -> float:
    name = next(name for name in names() if tuple(kinds(name)) == networks)
    return float(_measure("bare", name, pixels)["mib"])


def _measure(what: str, name: str, pixels: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.large", what, name, str(pixels)]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        return {"error": made.stderr.strip().splitlines()[-1:]}
    result: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return result


def _source(name: str, images: Tensor) -> nn.Module:
    """Return ResNet-50, two of them or a vision transformer, with random weights."""
    members = []
    for kind in kinds(name):
        if kind == "vit":
            network = timm.create_model("vit_tiny_patch16_224", img_size=images.shape[-1])
        else:
            network = torchvision.models.resnet50()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            with torch.no_grad():  # sets means and variances, so that features stay in range
                network.train()(images)
            network = fold_batch_norms(network)
        member = PixelClassifier(network.eval().requires_grad_(False), 3 * [0.5], 3 * [0.5])
        member.feature_layer = "blocks.3" if kind == "vit" else "layer2"
        members.append(member.to(memory_format=torch.channels_last))
    return Ensemble(members, "logits") if members[1:] else members[0]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB


def _child(what: str, name: str, pixels: int) -> dict[str, float]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = torch.rand(IMAGES, 3, pixels, pixels)
    labels = torch.arange(IMAGES)
    source = _source(name, images[:2])
    if what == "time":
        run, bare = record(name, source, images[:4], labels[:4], EPS, SHORTER)
        times = []
        for call in (run, bare):
            start = time.process_time()
            gradients = call()
            times.append(time.process_time() - start)
        return {"ratio": times[0] / times[1], "seconds": times[0] / gradients}
    before = _peak()
    if what == "bare":
        variable = images.repeat(BUDGETS, 1, 1, 1).requires_grad_()
        loss = functional.cross_entropy(source(variable), labels.repeat(BUDGETS), reduction="sum")
        torch.autograd.grad(loss, variable)
    else:
        attack = getattr(src.attacks, name)
        keys = {key: SHORTER[key] for key in SHORTER if key in attack.__signature__.parameters}
        budgets = [EPS * (1 + n) / BUDGETS for n in range(BUDGETS)]
        attack(source, images, labels, budgets, **keys)
    return {"mib": _peak() - before}


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
