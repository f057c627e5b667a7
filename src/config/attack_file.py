"""The file that an attack of a config was read from, and what the config asks of it besides."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from src.utils.checks import meant


@dataclass(frozen=True)
class AttackFile:
    """What `conf/attack/NAME.yaml` says, or a file of the user's own, with its defaults list.

    Attributes:
        name: Of the file, without its suffix.
        place: Where it lies.
        settings: Its keys, resolved as a part of the config.
    """

    name: str
    place: str
    settings: Mapping[str, Any]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse a section with another name, or with keys that the file does not have.

        With them it would be another attack under this one's name.

        Raises:
            ValueError: The section is not this file's.
        """
        foreign = [key for key in settings if key not in self.settings]
        if foreign:
            own = [key for key in self.settings if key not in ("name", "_target_")]
            has = f"its settings are {', '.join(own)}" if own else "it has none"
            raise ValueError(
                f"attack={self.name} has no setting {', '.join(foreign)}; {has} ({self.place})."
                f"{meant(foreign[0], own)}"
            )
        if settings.get("name") != self.name:
            raise ValueError(
                f"attack.name={settings.get('name')} must be {self.name}: an attack has the name "
                f"of its file, {self.place}."
            )

    def label(self, settings: Mapping[str, Any]) -> str:
        """Return what to call the attack: its name, and the settings that are not its file's.

        >>> AttackFile("bim", "bim.yaml", {"steps": 10, "norm": "linf"}).label({"steps": 20})
        'bim (steps=20, norm=unset)'
        """
        unlike = [
            f"{key}={_written(settings[key]) if key in settings else 'unset'}"
            for key, value in self.settings.items()
            if key not in settings or settings[key] != value
        ]
        return f"{self.name} ({', '.join(unlike)})" if unlike else self.name


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def attack_file(config: DictConfig, hydra: DictConfig) -> AttackFile:
    """Read the file that a composed config took its attack from.

    Args:
        config: What Hydra composed; Hydra must be running.
        hydra: Its section of that name.
    """
    name = str(hydra.runtime.choices.attack)
    search = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    folders = [source.path for source in hydra.runtime.config_sources if source.schema == "file"]
    config = config.copy()
    with open_dict(config):
        config.attack = _composed(hydra.job.config_name, name, tuple(search), tuple(folders))
    settings: Any = OmegaConf.to_container(config.attack, resolve=True)
    places = [Path(folder) / "attack" / f"{name}.yaml" for folder in folders]
    place = next((path for path in places if path.is_file()), Path(f"attack/{name}.yaml"))
    here = Path.cwd()
    return AttackFile(
        name, str(place.relative_to(here) if here in place.parents else place), settings
    )


@lru_cache(maxsize=32)  # a sweep reads each of its jobs twice
def _composed(
    config_name: str, name: str, search: tuple[str, ...], folders: tuple[str, ...]
) -> DictConfig:
    """Return the section of an attack whose file lies in one of the folders of Hydra's search."""
    section: DictConfig = compose(config_name, [f"attack={name}", *search]).attack
    return section
