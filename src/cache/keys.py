"""Keys: digests of named parts that decide numbers, including code and arithmetic.

A function `NAME_parts` returns the parts of a key as plain data by name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.sections import MeasurementSettings, ModelSettings, TrainingSettings
from ..config.settings import Settings
from ..utils.model_names import NO_DEFENCE
from .code_digest import code_of, program_digest, version

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")
_SHOWN = 40  # characters of a value that is shown as it is
FITTING = 3
"""Version of the fits; it rises if the same key would give another fit."""
TRAINING = 1
"""Version of the trainings, part of the names of weight files.

It rises if equal settings give other weights: after a change to `src.training`, to images or
networks, or to a default of a recipe."""


def content_key(parts: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return a short hash of plain values; equal content gives equal keys."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def lasting_key(parts: Mapping[str, Any]) -> str:
    """Return a hash of the parts' values in their order, without their names.

    Trained weights and fits took hours. Their files have been named by these values from the first
    version on, so a new name or place of a part must not change the key.
    """
    return content_key([*parts.values()])


def clean_parts(settings: Settings, device: str) -> dict[str, Any]:
    """Return the parts of all rows' keys: this program's code and the arithmetic."""
    trainer = settings.trainer
    arithmetic = {"precision": trainer.precision, "fold_batch_norms": trainer.fold_batch_norms}
    versions = {name: version(name) for name in _LIBRARIES}
    return {"program": program_digest(), **arithmetic, "device": device, **versions}


def rows_place(
    common: Mapping[str, Any],
    attack: str | None,
    models: Sequence[str],
    table: str,
    budgets: Sequence[float],
    others: Any,
) -> tuple[str, str]:
    """Return the folder of rows in the cache and the key that they have in it.

    The folder stands for the attack's key or, without an attack, for the keys of the models.
    """
    rows = {"table": table, "budgets": budgets, "parts": others, "models": models}
    return attack or content_key({**common, "models": models}), content_key(rows)


def defence_parts(settings: Settings, name: str) -> dict[str, Any]:
    """Return the parts of a defence's lasting key: everything that decides its output."""
    defence = settings.defence[name]
    code = code_of(defence.call)
    return {"settings": defence.model_dump(), "code": code, "seed": settings.seed}


def source_defence_parts(settings: Settings) -> list[Any]:
    """Return the key of the defence in front of the source, or False, and its number of draws."""
    name = settings.source_defence
    key = name != NO_DEFENCE and lasting_key(defence_parts(settings, name))
    return [key, settings.source_draws]


def network_settings(model: ModelSettings) -> dict[str, Any]:
    """Return the settings that decide what a model computes, without its weights."""
    keys = {"network", "mean", "std", "input_size"}
    if model.channels != "RGB":  # the keys of earlier weights lack it
        keys.add("channels")
    return model.model_dump(include=keys)


def model_parts(
    model: ModelSettings, weights: str, layers: str, state: str, seed: int | None
) -> dict[str, Any]:
    """Return the parts of a model's lasting key: everything that decides its logits.

    `weights` is their digest. A `seed` stands for a network that has no digest.
    """
    network = network_settings(model)
    parts = {"network": network, "code": code_of(network), "weights": weights}
    parts |= {"layers": layers, "state": state}
    # What has no digest follows at least the seed of the command that builds it.
    return parts if seed is None else parts | {"command": None, "seed": seed}


def weights_parts(
    model: ModelSettings, recipe: TrainingSettings, layers: str, shapes: Any, images: str
) -> dict[str, Any]:
    """Return the parts of the lasting key of trained weights; `images` is a digest.

    This program's code and library versions do not count: an upgrade must not cause retraining.
    """
    network, others = network_settings(model), {"device", "evaluate_on"}  # do not affect weights
    return {
        "training": TRAINING,
        "network": [network, code_of(network, upgrades=False), shapes, layers],
        "images": images,
        "recipe": recipe.model_dump(exclude=others, exclude_defaults=True),
    }


def fit_parts(
    settings: Settings, eps_255: float, call: str, part: str, images: list[Any], source: list[str]
) -> dict[str, Any]:
    """Return the parts of the lasting key of a fit at a budget; 0: it serves all budgets.

    As for trained weights, this program's code and library versions do not count. `images` are the
    rule of the target labels and the digest of the images, `source` the keys of the models.
    """
    training = settings.training
    return {
        "settings": [FITTING, eps_255, call, part, settings.attack.norm],
        "code": code_of(settings.attack.settings, upgrades=False),
        "images": [*images, settings.ensemble, settings.seed],
        "source": source,
        "source_defence": source_defence_parts(settings),
        "passes": [settings.trainer.attack_precision, training.crop_padding, training.flip],
    }


def attack_parts(
    settings: Settings, device: str, saved: str | None, source: list[str], others: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parts of the key of adversarial images, except the image and its budget.

    `saved` is the digest of a saved set, `source` has the keys of the models. `others` are facts of
    the images, the call, the fit and, for an attack that does not keep images apart, the batches.
    """
    attack, trainer = settings.attack, settings.trainer
    return {
        **clean_parts(settings, device),
        "attack": attack.settings,
        "code": saved or code_of(attack.settings),
        "norm": attack.norm,
        "target_label": attack.target_label,
        "source": source,
        "source_defence": source_defence_parts(settings),
        "ensemble": settings.ensemble,
        "layers": settings.layers,
        "seed": settings.seed,
        "gradient_batch": trainer.gradient_batch,
        "attack_precision": trainer.attack_precision,
        **others,
    }


def measurement_key(section: MeasurementSettings) -> str:
    """Return the key of a user's measurement: its code and settings."""
    return content_key({"settings": section.call, "code": code_of(section.call)})


def described(parts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return parts as text by dotted name: short values as they are, long ones as a digest."""
    texts = dict[str, str]()
    for name, value in parts.items():
        if isinstance(value, Mapping):
            texts |= described(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            texts[f"{prefix}{name}"] = text if len(text) <= _SHOWN else content_key([value])
    return texts


def code_keys(settings: Settings) -> dict[str, str]:
    """Return digests of a job's code: `program`, `attack`, and one per model by name."""
    parts = {"attack": settings.attack.settings}
    parts |= {name: settings.model[name].network for name in settings.models}
    parts |= {f"defence.{name}": defence.call for name, defence in settings.defence.items()}
    return {"program": program_digest()} | {
        name: content_key([code_of(part)]) for name, part in parts.items()
    }
