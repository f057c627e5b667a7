"""Label of an attack: its name, and the settings that a job's words or experiment change."""

import json
from collections.abc import Collection, Mapping, Sequence
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
    folders = [one.path for one in hydra.runtime.config_sources if one.schema == "file"]
    return changed | _of_experiment(str(hydra.runtime.choices.get("experiment")), folders)


def _of_experiment(name: str, folders: Sequence[str]) -> set[str]:
    """Return the attack's settings in an experiment's file and in those that it builds on."""
    files = [Path(folder, "experiment", f"{name}.yaml") for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return set()
    section: Any = OmegaConf.to_container(OmegaConf.load(file))
    above = [str(each).rpartition("/")[2].partition("@")[0] for each in section.get("defaults", ())]
    own = {*(section.get("attack") or ())}
    return own.union(*(_of_experiment(each, folders) for each in above if each != name))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
