"""The file of a config's attack, and the settings in which the config differs from it."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from src.utils.checks import meant


def attack_settings(config: DictConfig, hydra: DictConfig, section: Mapping[str, Any]) -> Any:
    """Return the settings of an attack, with its label; Hydra must be running.

    `section`, the attack's plain data, must have the name of the attack's file and no keys that
    the file lacks: it would be another attack under this one's name.
    """
    name = str(hydra.runtime.choices.attack)
    folders = [source.path for source in hydra.runtime.config_sources if source.schema == "file"]
    search = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    own, written = (
        config.attack,
        _composed(hydra.job.config_name, name, tuple(search), tuple(folders)),
    )
    with open_dict(config):  # in the place of its own, as it may name other keys
        config.attack = written
        try:
            file: Any = OmegaConf.to_container(config.attack, resolve=True)
        finally:
            config.attack = own
    foreign = [key for key in section if key not in file]
    if foreign or section.get("name") != name:
        places = [Path(folder, "attack", f"{name}.yaml") for folder in folders]
        place = next((path for path in places if path.is_file()), f"attack/{name}.yaml")
        if not foreign and file.get("name") != name:
            raise ValueError(f"{place} lacks the line `name: {name}`.")
        if not foreign:
            raise ValueError(f"attack.name={section.get('name')} must be {name}, as {place} says.")
        own = [key for key in file if key not in ("name", "_target_")]
        raise ValueError(
            f"attack={name} has no setting {', '.join(foreign)}; its settings are "
            f"{', '.join(own) or 'none'} ({place}).{meant(foreign[0], own)}"
        )
    rules = {key: section[key] for key in ("norm", "target_label") if key in section}
    return {"name": name, "label": label(name, file, section), "settings": section, **rules}


def label(name: str, file: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """Return an attack's label: its name, and the settings that are not its file's.

    >>> label("bim", {"steps": 10, "norm": "linf"}, {"steps": 20})
    'bim (steps=20, norm=unset)'
    """
    unlike = [
        f"{key}={_written(section[key]) if key in section else 'unset'}"
        for key, value in file.items()
        if key not in section or section[key] != value
    ]
    return f"{name} ({', '.join(unlike)})" if unlike else name


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=32)  # a sweep reads each of its jobs twice
def _composed(
    config_name: str, name: str, search: tuple[str, ...], folders: tuple[str, ...]
) -> DictConfig:
    """Return the section of an attack whose file lies in one of the folders of Hydra's search."""
    section: DictConfig = compose(config_name, [f"attack={name}", *search]).attack
    return section
