"""Keys: digests of named parts that decide numbers, including code and arithmetic.

A function `NAME_parts` returns the parts of a key as plain data by name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.attack_settings import AttackSettings
from ..config.sections import (
    DefenceSettings,
    ModelSettings,
    TrainingSettings,
    network_settings,
)
from .code_digest import code_of, program_digest, version

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")
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


def clean_parts(device: str, precision: str, fold_batch_norms: bool) -> dict[str, Any]:
    """Return the parts of all rows' keys: this program's code and the arithmetic."""
    arithmetic = {"precision": precision, "fold_batch_norms": fold_batch_norms, "device": device}
    versions = {name: version(name) for name in _LIBRARIES}
    return {"program": program_digest(), **arithmetic, **versions}


def defence_parts(defence: DefenceSettings, seed: int) -> dict[str, Any]:
    """Return the parts of a defence's lasting key: everything that decides its output."""
    return {"settings": defence.model_dump(), "code": code_of(defence.call), "seed": seed}


def model_parts(
    model: ModelSettings, weights: str, layers: str, state: str, seed: int | None
) -> dict[str, Any]:
    """Return the parts of a model's lasting key: everything that decides its logits.

    `weights` is their digest. A `seed` stands for a network that has no digest.
    """
    network = network_settings(model.model_dump())
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
    network = network_settings(model.model_dump())
    others = {"device", "evaluate_on"}  # do not affect weights
    return {
        "training": TRAINING,
        "network": [network, code_of(network, upgrades=False), shapes, layers],
        "images": images,
        "recipe": recipe.model_dump(exclude=others, exclude_defaults=True),
    }


def attack_parts(attack: AttackSettings, saved: str | None, **others: Any) -> dict[str, Any]:
    """Return the parts of the key of adversarial images that do not depend on images and models.

    `saved` is the digest of a saved set. `others` are the settings of the source and arithmetic.
    """
    return {
        "attack": attack.settings,
        "code": saved or code_of(attack.settings),
        "norm": attack.norm,
        "target_label": attack.target_label,
        **others,
    }


def code_keys(sections: Mapping[str, Any]) -> dict[str, str]:
    """Return digests of code by name: of this `program`, and of what sections name."""
    digests = {name: content_key([code_of(section)]) for name, section in sections.items()}
    return {"program": program_digest(), **digests}
