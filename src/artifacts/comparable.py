"""Likeness of jobs and models by their records: equal digests, and shared facts."""

import hashlib
import json
import re
from typing import Any

from ..utils.model_names import ModelRef
from ..utils.package import is_asset
from .record import JobRecord

_FACTS = {
    *("attack", "source", "backward_rule", "layer", "norm", "targets", "defences", "storage"),
    *("budgets", "reference", "protocol", "dataset", "class_names", "values"),
    *("precision", "device", "code", "versions"),
}
_SECTIONS = ("attack", "ensemble", "source_defence", "source_draws", "defence")
_ARITHMETIC = ("attack_precision", "fold_batch_norms", "gradient_batch")
_CHOICE = {"n_images", "seed", "images"}
"""Keys of `dataset` that choose images, and change nothing about them.

Records of version 0.4.0 and earlier ones have `n_images` there.
"""
_TAGGED = ("timm/", "torchvision/")
"""Providers whose names end in a tag of the weights, as in `resnet50.a1_in1k`."""
_PREPROCESSING = ("network", "mean", "std", "input_size")
RELATED_BY = {"same weights", "same architecture", "same family"}
_COMMON = {"_target_", "model_name", "name", "num_classes", "image_size", "img_size", "stem"}
_COMMON |= {"pretrained", "weights"}


def recipe(record: JobRecord) -> str:
    """Return a digest of everything that decides a job's rows, except which images, and seeds."""
    settings = [record.config.get(name) for name in _SECTIONS]
    settings += [record.config["trainer"].get(name) for name in _ARITHMETIC]
    dataset = record.config["dataset"]
    settings.append({key: dataset[key] for key in dataset.keys() - _CHOICE})
    models = {name: model_digest(record, name) for name in record.weights}
    defences = record.config.get("defence", {}).values()
    parts = [record.config["attack"].get("settings", {}), *defences]
    if any("function" in part for part in parts):  # from Python: no key identifies it
        settings.append(record.crafting)
    return digest([record.model_dump(mode="json", include=_FACTS), settings, models])


def model_digest(record: JobRecord, name: str) -> str:
    """Return a digest of everything that decides a model's logits: weights, settings and code."""
    model = record.config["model"].get(name, {})  # an ensemble has no settings
    settings = {key: model[key] for key in _PREPROCESSING if key in model}
    return digest([record.weights.get(name), settings, record.code.get(name)])


def digest(content: Any) -> str:
    """Return a digest of plain values, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def overlaps(record: JobRecord, source: str, target: str) -> tuple[str, ...]:
    """Return the facts that a target shares with a source or one of its members.

    - `same weights`: equal digests.
    - `same architecture`: same network name (timm's and torchvision's without tag), arguments.
    - `same family`: same first word of the name before a number, such as `resnet`.
    - `same pretraining`: weights `included` or fine-tuned, with the same tag or name.
    - `same data`: last trained on the job's data set, on the embedded images, or on the data set
      named by the same tag.
    """
    facts, members = _facts(record, target), ModelRef.parse(source).members
    shared = [facts.items() & _facts(record, member).items() for member in members]
    return tuple(name for name in facts if any((name, facts[name]) in its for its in shared))


def _facts(record: JobRecord, name: str) -> dict[str, str]:
    model = record.config["model"].get(name, {})
    network, weights = model.get("network", {}), str(model.get("weights", ""))
    target = str(network.get("_target_", "torch.nn"))  # parts of torch.nn are no architecture
    stated = network.get("model_name") or network.get("name") or target.rpartition(".")[2]
    stated = "" if target.startswith("torch.nn") else str(stated).lower()
    # Elsewhere a dot may part a package from a class, or belong to a repository.
    tagged = "model_name" in network or stated.startswith(_TAGGED)
    architecture, _, tag = stated.partition(".") if tagged else (stated, "", "")
    family = re.match(r"(?:tf_|wide_)?([a-z]+?)(?=v?\d|_|$)", architecture)
    others = {key: value for key, value in network.items() if key not in _COMMON}
    start = tag or "DEFAULT" if network.get("pretrained") else network.get("weights")
    start = start if weights in ("None", "included") else None
    included = start and (tag.rpartition("_")[2] or "in1k")
    of_file = is_asset(weights) and "cifar10_mini"
    facts = {
        "same weights": record.weights.get(name),
        "same architecture": architecture and architecture + json.dumps(others, sort_keys=True),
        "same family": family and family[1],
        "same pretraining": start,
        "same data": {"None": record.dataset, "included": included}.get(weights, of_file),
    }
    return {name: value for name, value in facts.items() if value}
