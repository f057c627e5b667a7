"""Label of an attack: its name, and the settings that a job's words or experiment change."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def attack_label(name: str, settings: Mapping[str, Any], changed: Collection[str]) -> str:
    """Return an attack's label.

    >>> attack_label("bim", {"steps": 20, "decay": 0}, ["norm", "steps"])
    'bim (steps=20, norm=unset)'
    """
    keys = [key for key in dict.fromkeys([*settings, *sorted(changed)]) if key in changed]
    words = [f"{key}={_written(settings[key]) if key in settings else 'unset'}" for key in keys]
    return f"{name} ({', '.join(words)})" if words else name


def changed_settings(hydra: DictConfig) -> set[str]:
    """Return the settings of the attack's file that a job's words or experiment change."""
    keys = [word.lstrip("+~").partition("=")[0] for word in hydra.overrides.task]
    changed = {key.split(".")[1] for key in keys if key.startswith("attack.")}
    experiment = hydra.runtime.choices.get("experiment")
    for source in hydra.runtime.config_sources:
        file = Path(source.path, "experiment", f"{experiment}.yaml")
        if source.schema == "file" and file.is_file():
            section: Any = OmegaConf.to_container(OmegaConf.load(file))
            return changed | {*(section.get("attack") or ())} - {"name"}
    return changed


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
