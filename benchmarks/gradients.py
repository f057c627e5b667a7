"""What explains times and differences: the networks' calls alone, and the signs of gradients.

`python -m benchmarks.gradients {calls,signs} SPEC.json` reads what `benchmarks.prepare` wrote.
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

import src.attacks
from benchmarks.peers import PEERS, load
from src.models import fold_batch_norms
from src.utils.files import write_text
from src.utils.processes import keep_freed_memory

REPEATS = 3


def calls(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Time one classification, and one gradient of the loss, of all images by each network.

    Returns:
        Seconds by network: `forward`, `gradient` and, if asked for, `bf16` (a gradient with
        `trainer.attack_precision=bf16`), in the sweep's batches and of the networks as the
        program takes them.
    """
    keep_freed_memory()
    files = load(spec["folder"], spec["models"], spec["device"])
    parts = [part.split(spec["batch_size"]) for part in (files.images, files.labels)]
    found: dict[str, dict[str, float]] = {"forward": {}, "gradient": {}}
    for name, plain in files.networks.items():
        network = _fast(plain)
        found["gradient"][name] = _seconds(lambda x, y, f=network: _gradient(f, x, y), *parts)
        with torch.no_grad():
            found["forward"][name] = _seconds(lambda x, _, f=network: f(x), *parts)
        if spec["bf16"]:
            lowered = torch.autocast(spec["device"], torch.bfloat16)(network.forward)
            found.setdefault("bf16", {})[name] = _seconds(partial(_gradient, lowered), *parts)
    return found


def signs(spec: dict[str, Any]) -> dict[str, float]:
    """Compare a peer's adversarial images, and the gradients behind them, with the program's.

    The program folds batch norms and has another order in memory, so that gradients differ by
    rounding, and by more where it switches a ReLU or the choice of a max-pooling.

    Returns:
        `images`, all that were compared, of every source; `images_differ`, those of which a
        pixel differs by more than a hundredth of the budget; `signs` of gradients at the clean
        images, one a value; `signs_differ`; `largest`, the largest gradient with such a sign, as
        a share of its image's largest.
    """
    eps, size, attack = spec["eps_255"] / 255, spec["batch_size"], spec["attack"]
    names = ("images", "images_differ", "signs", "signs_differ")
    found: dict[str, float] = {**dict.fromkeys(names, 0), "largest": 0.0}
    files, again = (load(spec["folder"], spec["models"], spec["device"]) for _ in range(2))
    x, y = files.images[:size], files.labels[:size]
    for name, plain in files.networks.items():
        folded = _fast(again.networks[name])
        theirs = PEERS[spec["library"]](plain, attack, files, size).craft(x, y, [eps])[0]
        ours = getattr(src.attacks, attack)(folded, x, y, eps)
        one, other = (_gradient(network, x, y) for network in (folded, plain))
        unlike = one.sign() != other.sign()
        share = one.abs() / one.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-38)
        differs = (ours - torch.as_tensor(theirs, device=x.device)).abs() > eps / 100
        found["images"] += len(x)
        found["images_differ"] += int(differs.flatten(1).any(1).sum())
        found["signs"] += unlike.numel()
        found["signs_differ"] += int(unlike.sum())
        found["largest"] = max(found["largest"], float((share * unlike).max()))
    return found


def _fast(network: nn.Sequential) -> nn.Module:
    """Return a network as the program attacks and evaluates it."""
    network.requires_grad_(False)
    network[-1] = fold_batch_norms(network[-1]).to(memory_format=torch.channels_last)
    return network


def _gradient(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    loss = functional.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def _seconds(call: Callable[..., object], *parts: tuple[Tensor, ...]) -> float:
    """Return the median time of a pass over all batches, after a batch that does not count."""
    call(*(part[0] for part in parts))
    passes = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for images, labels in zip(*parts, strict=True):
            call(images, labels)
        if parts[0][0].is_cuda:
            torch.cuda.synchronize()
        passes.append(time.perf_counter() - start)
    return median(passes)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    told = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    answer = {"calls": calls, "signs": signs}[sys.argv[1]](told)
    write_text(Path(told["result"]), json.dumps(answer))
