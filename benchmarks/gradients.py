"""Times of the networks' calls alone: predictions, and gradients in two precisions.

`python -m benchmarks.gradients SPEC.json` reads what `benchmarks.prepare` wrote.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers import load
from src.models import fold_batch_norms
from src.utils.files import write_text
from src.utils.processes import keep_freed_memory

REPEATS = 3


def calls(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Time one classification, and one gradient of the loss, of all images by each network.

    Returns:
        Seconds by network: `forward`, `gradient` and `bf16` (a gradient with
        `trainer.attack_precision=bf16`), in the sweep's batches and of the networks as the
        program takes them.
    """
    keep_freed_memory()
    files = load(spec["folder"], spec["models"], spec["device"])
    parts = [part.split(spec["batch_size"]) for part in (files.images, files.labels)]
    found: dict[str, dict[str, float]] = {"forward": {}, "gradient": {}, "bf16": {}}
    for name, plain in files.networks.items():
        network = _fast(plain)
        found["gradient"][name] = seconds(lambda x, y, f=network: gradient(f, x, y), *parts)
        with torch.no_grad():
            found["forward"][name] = seconds(lambda x, _, f=network: f(x), *parts)
        lowered = torch.autocast(spec["device"], torch.bfloat16)(network.forward)
        found["bf16"][name] = seconds(partial(gradient, lowered), *parts)
    return found


def _fast(network: nn.Sequential) -> nn.Module:
    """Return a network as the program attacks and evaluates it."""
    network.requires_grad_(False)
    network[-1] = fold_batch_norms(network[-1]).to(memory_format=torch.channels_last)
    return network


def gradient(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy with respect to images."""
    images = images.clone().requires_grad_()
    loss = functional.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def seconds(
    call: Callable[..., object], *parts: tuple[Tensor, ...], repeats: int = REPEATS
) -> float:
    """Return the median time of a pass over all batches, after a batch that does not count."""
    call(*(part[0] for part in parts))
    passes = []
    for _ in range(repeats):
        _synchronise(parts[0][0])
        start = time.perf_counter()
        for batch in zip(*parts, strict=True):
            call(*batch)
        _synchronise(parts[0][0])
        passes.append(time.perf_counter() - start)
    return median(passes)


def _synchronise(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write_text(Path(told["result"]), json.dumps(calls(told)))
