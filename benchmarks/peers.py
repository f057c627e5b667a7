"""Another library's sweep, as its documentation says, in a process that imports nothing of `src`.

`python -m benchmarks.peers SPEC.json` reads what `benchmarks.prepare` wrote. As in the documented
examples, networks are in evaluation mode and their weights are not frozen, so that foolbox and
ART compute the gradients of the weights too.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks import STEPS

_STEP_SIZE = {"bim": 0.1, "pgd": 0.25, "mi": 0.1, "di": 0.1}  # as shares of the budget


class Files(NamedTuple):
    """Files that `benchmarks.prepare` wrote: images float32 in [0, 1], labels, and the networks."""

    images: Tensor
    labels: Tensor
    classes: int
    networks: dict[str, nn.Sequential]


class Library(NamedTuple):
    """A library's attack on one network, and its way to classify images.

    Attributes:
        craft: (images, labels, budgets in [0, 1] units) to adversarial images for each budget.
        classify: Images to predicted classes, (N,).
    """

    craft: Callable[[Tensor, Tensor, Sequence[float]], list[Any]]
    classify: Callable[[Any], np.ndarray]


def torchattacks(model: nn.Module, attack: str, files: Files, batch: int) -> Library:
    """One attack object a budget: https://adversarial-attacks-pytorch.readthedocs.io ."""
    import torchattacks

    kind = {"fgsm": "FGSM", "bim": "BIM", "pgd": "PGD", "mi": "MIFGSM", "di": "DIFGSM"}[attack]
    more = {"decay": 1.0} if attack == "di" else {}  # images keep their size, as ours do

    def craft(images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Any]:
        words = [{"eps": eps, **more} | _steps(attack, eps, "alpha", "steps") for eps in budgets]
        return [getattr(torchattacks, kind)(model, **each)(images, labels) for each in words]

    return Library(craft, _classify(model))


def foolbox(model: nn.Module, attack: str, files: Files, batch: int) -> Library:
    """One call for all budgets: https://foolbox.readthedocs.io ."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=files.images.device)
    kind = {"fgsm": "FGSM", "bim": "LinfBasicIterativeAttack", "pgd": "LinfPGD", "mi": "MIFGSM"}
    made = getattr(foolbox.attacks, kind[attack])(**_steps(attack, 1, "rel_stepsize", "steps"))

    def craft(images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Any]:
        _, clipped, _ = made(wrapped, images, labels, epsilons=list(budgets))
        return list(clipped)

    return Library(craft, _classify(model))


def art(model: nn.Module, attack: str, files: Files, batch: int) -> Library:
    """NumPy, one object a budget: https://adversarial-robustness-toolbox.readthedocs.io ."""
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(files.images.shape[1:]),
        nb_classes=files.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if files.images.device.type == "cpu" else "gpu",
    )
    kinds = {"fgsm": "FastGradientMethod", "bim": "BasicIterativeMethod"}
    kinds |= {"pgd": "ProjectedGradientDescent", "mi": "MomentumIterativeMethod"}
    common: dict[str, Any] = {"batch_size": batch}
    common |= {} if attack == "fgsm" else {"verbose": False}
    common |= {"num_random_init": 1} if attack == "pgd" else {}

    def craft(images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Any]:
        words = [{"eps": eps} | _steps(attack, eps, "eps_step", "max_iter") for eps in budgets]
        made = [getattr(evasion, kinds[attack])(estimator, **common, **each) for each in words]
        return [one.generate(x=images.cpu().numpy(), y=labels.cpu().numpy()) for one in made]

    def classify(images: Any) -> np.ndarray:
        logits = estimator.predict(np.asarray(torch.as_tensor(images).cpu()), batch_size=batch)
        return np.asarray(logits.argmax(axis=1))

    return Library(craft, classify)


def _steps(attack: str, eps: float, size: str, number: str) -> dict[str, Any]:
    """Return the iterations' arguments under the library's names."""
    return {} if attack == "fgsm" else {size: _STEP_SIZE[attack] * eps, number: STEPS}


def _classify(model: nn.Module) -> Callable[[Any], np.ndarray]:
    def classify(images: Any) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(model(images).argmax(1).cpu())

    return classify


class Peer(NamedTuple):
    """A library that is compared: its attack on a network, and the names of those attacks."""

    build: Callable[[nn.Module, str, Files, int], Library]
    attacks: tuple[str, ...]


PEERS = {
    "torchattacks": Peer(torchattacks, ("fgsm", "bim", "pgd", "mi", "di")),
    "foolbox": Peer(foolbox, ("fgsm", "bim", "pgd", "mi")),
    "art": Peer(art, ("fgsm", "bim", "pgd", "mi")),
}


def load(folder: str, models: Sequence[str], device: str) -> Files:
    """Read what `benchmarks.prepare` wrote, whose networks are whole ones, unpickled."""
    torch.backends.cudnn.allow_tf32 = False  # float32, as the program takes it
    with safe_open(Path(folder) / "images.safetensors", "pt") as file:
        images, labels = file.get_tensor("images"), file.get_tensor("labels")
        classes = int(file.metadata()["classes"])
    paths = {name: Path(folder) / f"{name}.pt" for name in models}
    networks = {
        name: torch.load(path, map_location=device, weights_only=False)
        for name, path in paths.items()
    }
    return Files((images.float() / 255).to(device), labels.to(device), classes, networks)


def sweep(spec: dict[str, Any]) -> None:
    """Craft on every network, classify with every one, and write what comes out.

    The file holds `predicted`, int64 (sources, targets, budgets, images), of which the first
    budget is 0, and `seconds`, of crafting and classifying adversarial images.
    """
    torch.manual_seed(0)
    np.random.seed(0)
    files, size = load(spec["folder"], spec["models"], spec["device"]), spec["batch_size"]
    made = [
        PEERS[spec["library"]].build(network, spec["attack"], files, size)
        for network in files.networks.values()
    ]
    budgets = [eps / 255 for eps in spec["budgets_255"]]
    images, labels = files.images, files.labels
    parts = [slice(first, first + size) for first in range(0, len(images), size)]
    predicted = np.empty((len(made), len(made), 1 + len(budgets), len(images)), dtype=np.int64)
    for part in parts:
        for number, target in enumerate(made):
            predicted[:, number, 0, part] = target.classify(images[part])
    start = time.perf_counter()
    for source, rows in zip(made, predicted, strict=True):
        for part in parts:
            crafted = source.craft(images[part], labels[part], budgets)
            for budget, adversarial in enumerate(crafted, 1):
                for number, target in enumerate(made):
                    rows[number, budget, part] = target.classify(adversarial)
    seconds = time.perf_counter() - start
    slow = {"src", "mlflow", "pytorch_lightning"} & {name.split(".")[0] for name in sys.modules}
    assert not slow, f"imported in a peer's process: {slow}"
    np.savez(f"{spec['result']}.tmp.npz", predicted=predicted, seconds=seconds)
    os.replace(f"{spec['result']}.tmp.npz", spec["result"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sweep(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
