"""Keys of rows: hashes of everything that decides their numbers, including code and arithmetic."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from src.cache.code_digest import code_of, program_digest
from src.config.sections import MeasurementSettings
from src.config.settings import Settings


def content_key(*parts: Any) -> str:
    """Return a short hash of plain values; equal content gives equal keys."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def job_key(
    settings: Settings,
    attack_key: str,
    images: str,
    target_keys: Mapping[str, str],
    names: Sequence[str],
) -> str:
    """Return the job's key: equal keys mean equal tables, including the models' names.

    `images` is the digest of the job's images.
    """
    analysed = settings.diagnostics.model_dump(exclude_defaults=True)
    parts = settings.model_dump(include={"storage", "variants", "controls", "diagnostics"})
    place = (attack_key, images, settings.budgets)
    own = {name: measurement_key(its) for name, its in settings.measurements.items()}
    return content_key(place, target_keys, names, parts, analysed and settings.reference, own)


def measurement_key(section: MeasurementSettings) -> str:
    """Return the key of a user's measurement: its code and settings."""
    return content_key(section.call, code_of(section.call))


def defence_key(settings: Settings, name: str) -> str:
    """Return the key of everything that decides a defence's output."""
    defence = settings.defence[name]
    return content_key(defence.model_dump(), code_of(defence.call), settings.seed)


def code_keys(settings: Settings) -> dict[str, str]:
    """Return digests of a job's code: `program`, `attack`, and one per model by name."""
    parts = {"attack": settings.attack.settings}
    parts |= {name: settings.model[name].network for name in settings.models}
    parts |= {f"defence.{name}": defence.call for name, defence in settings.defence.items()}
    return {"program": program_digest()} | {
        name: content_key(code_of(part)) for name, part in parts.items()
    }


def numerics(settings: Settings, device: str) -> list[str]:
    """Return the settings that change the last digits of logits."""
    trainer = settings.trainer
    libraries = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")
    versions = [f"{name}={version(name)}" for name in libraries]
    return [trainer.precision, f"folded={trainer.fold_batch_norms}", device, *versions]
