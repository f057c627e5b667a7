"""Settings of an attack from its file and keywords, without Hydra."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ..utils.refusals import choose, first_line
from .attack_settings import AttackSettings, attack_label
from .errors import refusal
from .read import crafted_keys
from .resolvers import CONF


def attack_settings(name: str, keywords: Mapping[str, Any]) -> AttackSettings:
    """Return the settings of an attack in `conf/attack/`, with some keywords replaced.

    Raises:
        ValueError: There is no such attack, or a keyword has the wrong type or no plain value.
    """
    folder = CONF / "attack"
    names = sorted({file.stem for file in folder.glob("*.yaml")} - {"none", "saved"})
    choose("attacks", name, names)
    try:
        section = OmegaConf.merge(OmegaConf.load(folder / f"{name}.yaml"), dict(keywords))
        config = OmegaConf.create({"attack": section})
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        hint = "for such values use functools.partial with a function from src.attacks"
        raise ValueError(f"attacks[{name!r}]: {first_line(error)}; {hint}.") from error
    return crafted_settings(name, plain["attack"])


def crafted_settings(name: str, keys: Mapping[str, Any], within: str = "attack") -> AttackSettings:
    """Return the settings of an attack from the keys of its file, `within` a section."""
    try:
        settings = AttackSettings(**crafted_keys(name, keys), label=name)
    except ValidationError as error:
        raise ValueError(refusal(error, within=within)) from None
    return settings.model_copy(update={"label": attack_label(settings.name, settings.settings)})
