"""A sweep of torchattacks, as its documentation says, in a process that imports nothing of `src`.

`python -m benchmarks.theirs SPEC.json` reads what `benchmarks.beside` wrote. As in the documented
examples, networks are in evaluation mode and their weights are not frozen.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ATTACKS = {"fgsm": "FGSM", "bim": "BIM", "pgd": "PGD", "mi": "MIFGSM", "di": "DIFGSM"}
"""The library's classes by our names."""
STEPS = 10
_STEP_SIZE = {"bim": 0.1, "pgd": 0.25, "mi": 0.1, "di": 0.1}  # as shares of the budget


def craft(network: nn.Module, attack: str, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Attack images: https://adversarial-attacks-pytorch.readthedocs.io ."""
    import torchattacks

    words = {} if attack == "fgsm" else {"alpha": _STEP_SIZE[attack] * eps, "steps": STEPS}
    words |= {"decay": 1.0} if attack == "di" else {}  # images keep their size, as ours do
    made: Tensor = getattr(torchattacks, ATTACKS[attack])(network, eps=eps, **words)(images, labels)
    return made


def sweep(spec: dict[str, Any]) -> None:
    """Craft on every network, classify with every one, and write what comes out.

    The file holds `predicted`, int64 (sources, targets, budgets, images), of which the first
    budget is 0, and `seconds`, of crafting and classifying adversarial images.
    """
    torch.manual_seed(0)
    given = torch.load(spec["data"], weights_only=False)
    networks, budgets, size = given["networks"], spec["budgets"], spec["batch"]
    images, labels = given["images"].float() / 255, given["labels"]
    parts = [slice(first, first + size) for first in range(0, len(images), size)]
    shape = (len(networks), len(networks), 1 + len(budgets), len(images))
    predicted = np.empty(shape, dtype=np.int64)

    def classify(place: tuple[int | slice, int], part: slice, adversarial: Tensor) -> None:
        for number, target in enumerate(networks):
            with torch.no_grad():
                predicted[place[0], number, place[1], part] = target(adversarial).argmax(1)

    for part in parts:
        classify((slice(None), 0), part, images[part])
    start = time.perf_counter()
    for row, source in enumerate(networks):
        for part in parts:
            for budget, eps in enumerate(budgets, 1):
                made = craft(source, spec["attack"], images[part], labels[part], eps / 255)
                classify((row, budget), part, made)
    seconds = time.perf_counter() - start
    slow = {"src", "mlflow", "pytorch_lightning"} & {name.split(".")[0] for name in sys.modules}
    assert not slow, f"imported in the library's process: {slow}"
    np.savez(f"{spec['result']}.tmp.npz", predicted=predicted, seconds=seconds)
    os.replace(f"{spec['result']}.tmp.npz", spec["result"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sweep(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
