"""The file that an attack of a config was read from, and what the config asks of it besides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

NOT_SETTINGS = ("name", "_target_")


@dataclass(frozen=True)
class AttackFile:
    """What `conf/attack/NAME.yaml` says, or a file of the user's own, with its defaults list.

    Attributes:
        name: Of the file, without its suffix.
        place: Where it lies.
        settings: Its keys, unresolved.
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
            raise ValueError(f"{no_setting(self.name, foreign, self.settings)} ({self.place}).")
        if settings.get("name") != self.name:
            raise ValueError(
                f"attack.name={settings.get('name')} must be {self.name}: an attack has the name "
                f"of its file, {self.place}."
            )


def no_setting(name: str, keys: Iterable[str], known: Iterable[str]) -> str:
    """Say which keys an attack does not have, and which it has; without a full stop."""
    own = [key for key in known if key not in NOT_SETTINGS]
    has = f"its settings are {', '.join(own)}" if own else "it has none"
    return f"attack={name} has no setting {', '.join(keys)}; {has}"


def attack_file(hydra: DictConfig) -> AttackFile:
    """Read the file that a composed config took its attack from.

    Args:
        hydra: The config's section of that name; Hydra must be running.
    """
    name = str(hydra.runtime.choices.attack)
    search = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    settings: Any = OmegaConf.to_container(compose(f"attack/{name}", search).attack)
    places = [
        Path(source.path) / "attack" / f"{name}.yaml"
        for source in hydra.runtime.config_sources
        if source.schema == "file"
    ]
    place = next((path for path in places if path.is_file()), Path(f"attack/{name}.yaml"))
    here = Path.cwd()
    return AttackFile(
        name, str(place.relative_to(here) if here in place.parents else place), settings
    )
