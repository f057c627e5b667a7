"""Attack `resnet_small_robust` with several losses and restarts.

`python -m findings.robust` stores in docs/results/robust.json how many of the package's test images
are correct when clean, and after each loss. An image that is once misled is not attacked again.
"""

import json
from collections.abc import Callable
from math import cos, pi
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from src import load_classifier
from src.attacks.losses import margin
from src.data.cifar10_mini import cifar10_mini
from src.utils.files import write_text

RESULT = Path(__file__).parents[1] / "docs" / "results" / "robust.json"
EPS = 4 / 255
STEPS, RESTARTS, BATCH = 100, 5, 100


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce, Hein 2020, arXiv 2003.01690, equation 6)."""
    ordered = logits.sort(dim=1, descending=True).values
    return margin(logits, labels, False) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda logits, labels: cross_entropy(logits, labels, reduction="none"),
    "margin": lambda logits, labels: margin(logits, labels, False),
    "dlr": dlr,
}


def misled(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, loss: str, seed: int
) -> Tensor:
    """Tell which of N images any iterate of PGD misleads, with steps that fall from eps to 0."""
    start = torch.empty_like(images).uniform_(
        -EPS, EPS, generator=torch.Generator().manual_seed(seed)
    )
    points = (images + start).clamp(0, 1)
    found = torch.zeros(len(images), dtype=torch.bool)
    for step in range(STEPS):
        points = points.detach().requires_grad_()
        logits = model(points)
        found |= logits.argmax(1) != labels
        (gradient,) = torch.autograd.grad(LOSSES[loss](logits, labels).sum(), points)
        size = EPS * (1 + cos(pi * step / STEPS)) / 2
        points = points.detach() + size * gradient.sign()
        points = points.clamp(images - EPS, images + EPS).clamp(0, 1)
    with torch.no_grad():
        return found | (model(points).argmax(1) != labels)


def main() -> None:
    """Attack all test images and store the counts."""
    model = load_classifier("resnet_small_robust", "dataset=cifar10_mini")
    data = cifar10_mini("test")
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(data.targets)
    with torch.no_grad():
        left = torch.cat([model(part).argmax(1) for part in images.split(BATCH)]) == labels
    counts = {"images": len(labels), "clean": int(left.sum())}
    for loss in LOSSES:
        for seed in range(RESTARTS):
            for places in left.nonzero()[:, 0].split(BATCH):
                left[places] = ~misled(model, images[places], labels[places], loss, seed)
        counts[loss] = int(left.sum())
        print(counts, flush=True)
    write_text(RESULT, json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
