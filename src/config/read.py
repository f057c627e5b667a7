"""Conversion of the composed config to typed settings; nothing later sees OmegaConf."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from src.config.attack_file import attack_settings
from src.config.errors import refusal
from src.config.fields import check_model
from src.config.settings import STUDY, ReportCommand, Settings
from src.utils.checks import first_line, meant

Kind = TypeVar("Kind", bound=BaseModel)


def read_job(config: DictConfig, hydra: Any) -> Settings:
    """Return the settings of a job that Hydra composed, `hydra` being its section of that name."""
    source, targets = _names(config.source), config.targets
    if targets is None:
        study = [name for name in STUDY if name in config.model]
        targets = [*study, *(name for name in source if name not in study)]
    targets = _names(targets)
    for key, names in (("source", source), ("targets", targets)):
        _in_catalogue(key, names, config.model)
    section = _plain(config, keep_models={*source, *targets})
    _refuse_removed(section)
    kind = hydra.runtime.choices.attack
    if kind == "none":
        attack = {"kind": kind, "label": "clean images", **section["attack"]}
    elif kind == "saved":
        saved = {key: value for key, value in section["attack"].items() if key != "name"}
        attack = {"kind": kind, "name": kind, "label": kind, "saved": saved}
    else:
        kind, attack = "crafted", attack_settings(config, hydra, section["attack"])
    if section["n_images"] is not None and section["dataset"].get("n_images") is None:
        raise ValueError(
            f"n_images={section['n_images']} has no effect: the file of dataset="
            f"{section['dataset'].get('name')} lacks the line `n_images: ${{n_images}}`."
        )
    if kind == "crafted" and not source:
        raise ValueError(f"source is empty; name one of {', '.join(sorted(config.model))}.")
    if not targets:
        raise ValueError(f"targets is empty; name one of {', '.join(sorted(config.model))}.")
    _refuse_what_needs_an_attack(kind, section)
    if section["storage"] is None and kind == "crafted":
        section["storage"] = "uint8" if section["save_adversarial"] else "float32"
    variants = _names(section["variants"])
    if "float32" not in (section["storage"], *variants) and kind == "crafted":
        variants = ["float32", *variants]  # shows the effect of rounding
    return _validated(
        Settings,
        {
            **section,
            "attack": attack,
            "source": source,
            "targets": targets,
            "variants": variants,
            "protocol": section["protocol"] or {"crafted": "joint", "none": "all"}.get(kind),
        },
    )


def read_report_command(config: DictConfig) -> ReportCommand:
    """Return the settings of `python -m src.report`."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return _validated(ReportCommand, plain)


def _validated(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(refusal(error, kind)) from error


def _names(value: Any) -> list[Any]:
    """Return one name, a list of names or None as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | ListConfig) else [value]


def _in_catalogue(key: str, names: Sequence[Any], catalogue: DictConfig) -> None:
    for name in names:
        check_model(key, str(name))
        if "_target_" in (catalogue.get("network") or ()):  # a model's own key
            raise ValueError(
                "a file of model/ must begin with the line `# @package model.NAME`; one lacks it."
            )
        if name not in catalogue:
            known = sorted(map(str, catalogue))
            raise ValueError(
                f"{key} names {name!r}, which is not among the models: {', '.join(known)}."
                f"{meant(str(name), known)}"
            )


def _plain(config: DictConfig, keep_models: set[str]) -> dict[str, Any]:
    """Return a config as plain data, resolved, with the named models alone."""
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
        config.model = {name: config.model[name] for name in config.model if name in keep_models}
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "the config"
        raise ValueError(f"{key}: {first_line(error)}") from error
    return dict(plain)


def _refuse_removed(section: Mapping[str, Any]) -> None:
    """Refuse a config that lacks a key (by `~protocol`, say): they are read before validation."""
    for key in Settings.model_fields:
        if key not in section:
            raise ValueError(f"{key} is missing.")


def _refuse_what_needs_an_attack(kind: str, section: Mapping[str, Any]) -> None:
    """Refuse keys that mean nothing for saved or clean images."""
    if kind == "crafted":
        return
    wanted = {
        "storage": section["storage"],
        "save_adversarial=true": section["save_adversarial"],
        "diagnostics": any(
            section["diagnostics"].get(key)
            for key in ("bisection", "spectra", "filters", "similarity")
        ),
        "controls=true": kind == "none" and section["controls"],
        "source": kind == "none" and section["source"] is not None,
    }
    for key, given in wanted.items():
        if given:
            name = section["attack"]["name"]
            raise ValueError(f"{key} needs an attack on a source, which attack={name} is not.")
