"""Keys: digests of named parts that decide numbers, including code and arithmetic.

A function `NAME_parts` returns the parts of a key as plain data by name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.sections import MeasurementSettings
from ..config.settings import Settings
from ..utils.model_names import NO_DEFENCE
from .code_digest import code_of, program_digest, version

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")
_SHOWN = 40  # characters of a value that is shown as it is


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
