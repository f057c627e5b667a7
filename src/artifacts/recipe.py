"""Digests of everything that decides a job's rows or a model's logits."""

import hashlib
import json
from typing import Any

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
_PREPROCESSING = ("network", "mean", "std", "input_size")


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
