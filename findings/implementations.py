"""Judge attacks of several libraries by the update rules of their authors' code.

    python -m findings.implementations FOLDER [LIBRARY/VARIANT ...]

Each library lies in a folder of its own, such as `pip install --no-deps --target
FOLDER/torchattack torchattack==1.7.2`; TransferAttack is a clone. Without a name, all rows of the
table are computed again and stored.
"""

import json
import sys
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from findings.update_rules import OTHERS, RULES, Tools, judge, run
from src import load_classifier, transfer
from src.data import load_dataset

TABLE = Path(__file__).parents[1] / "docs" / "results" / "implementations" / "rows.csv"
DATA = {"_target_": "src.data.cifar10_mini.cifar10_mini"}
NETWORKS = ("resnet_small", "vgg_small", "inception_small", "mobilenet_small", "vit_small")
PUBLISHED: dict[str, Any] = {"steps": 10, "step": 0.8 / 255, "mu": 1.0, "kernel": 3, "copies": 5}
"""Settings for success at 8/255: ten steps, and a kernel for images of 32 pixels."""


@cache
def _network(name: str) -> Any:
    network = load_classifier(name, "dataset=cifar10_mini")
    return network.to(memory_format=torch.contiguous_format)  # a class takes views of gradients


def _settings(words: str, meanings: dict[str, Any]) -> dict[str, Any]:
    """Read pairs such as `alpha=step steps=10`: a name and a meaning, or a value in JSON."""
    pairs = (pair.split("=") for pair in words.split())
    return {key: meanings[word] if word in meanings else json.loads(word) for key, word in pairs}


def craft(row: Any, c: Tools, network: Any, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Return the images that a row's class makes in some steps, with the settings of `c`."""
    meanings = {name: getattr(c, name) for name in vars(Tools)} | {
        "n": steps,
        "labels": labels,
        "step_of_eps": c.step / c.eps,
        "radius_of_eps": c.radius / c.eps,
    }
    words = _settings(row.arguments, meanings)
    module, _, name = row["class"].rpartition(".")
    made = getattr(import_module(module), name)
    match row.library:
        case "this program" | "adv-lib" | "cleverhans":
            return made(network, images, **words)
        case "foolbox":
            foolbox, eps = import_module("foolbox"), words.pop("eps")
            model = foolbox.PyTorchModel(network.eval(), bounds=(0, 1), device=images.device)
            return made(**words).run(model, images, foolbox.Misclassification(labels), epsilon=eps)
        case "ART":
            classifier = import_module("art.estimators.classification").PyTorchClassifier
            size, loss = tuple(images.shape[1:]), nn.CrossEntropyLoss()
            attack = made(classifier(network, loss, size, 10, clip_values=(0, 1)), **words)
            return torch.from_numpy(attack.generate(images.numpy(), np.eye(10)[labels.numpy()]))
    start = torch.zeros_like(images)
    if row.library == "TransferAttack":  # it returns the change, and loads a network itself
        made, start = type(name, (made,), {"load_model": lambda self, model: network}), images
    with patch.object(Tensor, "cuda", lambda tensor: tensor):
        attack = made(network, **words)
        vars(attack).update({"alpha": c.step} if "alpha" in words else {})  # which some replace
        return start + attack(images, labels)


def compute(row: Any) -> dict[str, Any]:
    """Judge a row by the readings of its rule, and by the rule that explains it.

    The images are of CIFAR-10 or, for a kernel that is wide for these, parts of two photographs.
    Their classes are those that the network predicts.

    Returns:
        What `judge` returns for the `nearest` reading, and whether the row is `explained`.
    """
    network = _network(NETWORKS[0]).double()
    pixels = load_dataset("test", DATA)[:8].images
    if row.images == "photographs":
        whole = np.stack(import_module("sklearn.datasets").load_sample_images().images)
        parts = [whole[:, top : top + 64, 200:264] for top in (0, 120, 240)]
        pixels = torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2)
    images = pixels.contiguous().to(getattr(torch, row.numbers)) / 255
    with torch.no_grad():
        labels = network(images.double()).argmax(1)
    c = Tools(network, images, labels, **_settings(row.settings, {}))
    start, visited = row.variant == "pgd", row.iterates == "visited"
    judged = partial(judge, attack=partial(craft, row, c), c=c, random_start=start, visited=visited)
    names = [name for name in RULES if name.split(",")[0] == row.variant]
    results = [{"nearest": name, **judged(RULES[name])} for name in names]
    best = max(results, key=lambda result: (result["equal_steps"], -result["different"]))
    different = "" if best["equal_steps"] == c.steps else best["equal_steps"] + 1
    other = judged(OTHERS[row.variant])["what"] if row.verdict == "another rule" else None
    return {"first_different": different, **best, "as_explained": other == "" if different else ""}


def points(row: Any, reading: str) -> dict[str, Any]:
    """Compare how much a row's class and a reading of its rule fool of the other networks.

    Returns:
        `points` that the class fools more in the mean over the networks, and their 95 % interval
        from `low` to `high` over the `counted` images.
    """
    settings = PUBLISHED | ({"copies": 20, "radius": 28 / 255} if row.variant == "gra" else {})
    networks = {name: _network(name).float() for name in NETWORKS}
    images, labels, _ = load_dataset("test", DATA)[:500]
    both = {
        "class": lambda model, x, y, eps: craft(
            row, Tools(model, x, y, **settings), model, x, y, 10
        ),
        "rule": lambda model, x, y, eps: run(RULES[reading], Tools(model, x, y, **settings)),
    }
    source = {NETWORKS[0]: networks[NETWORKS[0]]}
    results = transfer(source, networks, images, labels, attacks=both, progress_bar=False)
    second = results.rankings.iloc[1]
    sign = 100 if second.attack == "class" else -100
    low, high = sorted(sign * second[f"difference_{end}"] for end in ("low", "high"))
    return {"points": sign * second.difference, "low": low, "high": high, "counted": second.images}


def markdown(table: pd.DataFrame) -> str:
    """Lay out a table in Markdown."""
    lines = [[*table], ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(folder: str, *names: str) -> None:
    """Compute some rows of the table, or all, with the libraries in a folder."""
    sys.path[:0] = [str(library.resolve()) for library in Path(folder).iterdir()]
    sys.modules["visdom"] = MagicMock()  # adv-lib imports it for its plots
    table = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    for place, row in table.iterrows():
        if not names or f"{row.library}/{row.variant}" in names:
            results = compute(row)
            if row.verdict == "another rule":
                results |= points(row, results["nearest"])
            texts = {k: f"{v:.4g}" if isinstance(v, float) else f"{v}" for k, v in results.items()}
            print(f"{row.library}/{row.variant}", texts, flush=True)
            table.loc[place, [*texts]] = [*texts.values()]
    if not names:
        table.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
