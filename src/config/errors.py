"""Errors of a command line or a config, in one sentence."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from src.utils import stopping
from src.utils.checks import first_line, meant

REFUSED, INTERRUPTED = 2, 130  # exit codes
REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
"""Errors of composing a config from a wrong command line or file."""
_LAUNCHERS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
}
"""Distributions of Hydra's launchers."""


def refuse(message: str) -> NoReturn:
    """Print why a command cannot run, and leave with the exit code of a refusal."""
    stopping.check()
    print(message, file=sys.stderr)
    sys.exit(REFUSED)


def explain(error: BaseException) -> str:
    """Return a sentence on an error of the command line or a config, with near names."""
    if isinstance(error, ValueError) and not isinstance(error, OmegaConfBaseException):
        return str(error)  # a refusal of this program
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        return _no_option(error)
    if isinstance(error, OverrideParseException):
        lines = [line for line in str(error).split("\nSee ")[0].split("\n") if line.strip(" ^")]
        name, given, _ = str(error.override).partition("=")
        hint = f""" Signs such as = ~ # need quotes: '{name}="VALUE"'.""" if given else ""
        why = lines[-1].removeprefix("LexerNoViableAltException: ")
        return f"{error.override} cannot be read as KEY=VALUE: {why}.{hint}"
    if several := re.match(r"Ambiguous value for argument '(.+?)=(.*)'", str(error)):
        key, values = several.groups()
        words = f"{key}={values}: -m before the keys runs each in turn"
        a_list = key in ("source", "targets", "model", "variants", "epsilon.grid")
        return f"{words}, {key}=[{values}] is a list." if a_list else f"{words}."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        return _no_key(str(cause.full_key), cause.parent_node)
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    reasons = [first_line(one) for one in dict.fromkeys((error, cause)) if str(one)]
    key = getattr(error, "full_key", None)
    return ": ".join([*([str(key)] if key else []), *reasons])


def _no_option(error: MissingConfigException) -> str:
    """Return a sentence on a missing file, with those there are."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if group == "hydra/launcher" and name in _LAUNCHERS:
        return f"Hydra's launcher {name} is not installed: pip install {_LAUNCHERS[name]}."
    where = re.match(r"In '(\w+/.+)': ", str(error))  # another file's defaults list
    start = f"{where[1]}: " if where and not where[1].startswith("hydra/") else ""
    folders = re.findall(r"path=file://(.+)", str(error))
    files = sorted({file.stem for one in folders for file in Path(one, group).glob("*.yaml")})
    listed = f" among {', '.join(error.options or files)}" if error.options or files else ""
    return f"{start}there is no {group}={name}{listed}.{meant(name, error.options or files)}"


def _no_key(full_key: str, parent: Any) -> str:
    """Return a sentence on a missing key, with those there are."""
    section, _, key = full_key.rpartition(".")
    root = OmegaConf.to_container(parent._get_root()) if isinstance(parent, DictConfig) else {}
    keys = map(str, parent) if isinstance(parent, DictConfig) else ()
    own = [one for one in keys if one != "hydra"]
    elsewhere = [one for one in _dotted(root) if one.endswith(f".{key}")]
    words = meant(key, own) or meant(f".{key}", elsewhere)
    where = section or "the config"
    has = f"; it has {', '.join(own)}" if own and not words else ""
    return f"there is no key {key} in {where}{has}.{words}"


def _dotted(value: Any, start: str = "") -> Iterator[str]:
    """Return the keys of a config, those of its sections included."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield f"{start}{key}"
        yield from _dotted(inner, f"{start}{key}.")


def refusal(error: ValidationError, model: type[BaseModel] | None = None, within: str = "") -> str:
    """Return a sentence on the first wrong key of some settings: its value, and what is allowed.

    `model` is the settings' class, None where its keys are not known; `within` the section of
    the config that holds them.
    """
    first = error.errors()[0]
    loc = (within, *first["loc"]) if within else first["loc"]
    # The keys of `saved` are the attack's; pydantic names the kinds of a union too.
    path = [str(part) for part in loc if part not in ("saved", "constrained-int")]
    path = path[:-1] if path[-1:] in (["int"], ["str"]) else path
    keys = [part for part in path if not part.isdigit() and "[" not in part]
    key, value = ".".join(keys), _short(first["input"])
    if first["type"] == "unexpected_keyword_argument":
        return f"there is no key {key}."
    if first["type"] == "extra_forbidden" and model is not None:
        section = model
        for part in first["loc"][:-1]:
            section = _inner(section, str(part))
        own = list(section.model_fields)
        return f"there is no key {key}; there are {', '.join(own)}.{meant(keys[-1], own)}"
    if first["type"] == "missing":
        return f"{key} is missing."
    if first["type"] == "literal_error":
        return f"{key}={value} is not one of {_choices(first['ctx'])}."
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
        reason = reason if not key or reason.startswith(key) else f"{key}: {reason}"
        return reason if reason.endswith("?") else f"{reason}."
    allowed = str(first["msg"]).replace("valid ", "").replace("a tuple", "a list")
    allowed = allowed.replace("integer", "whole number").replace(" after validation", "")
    if allowed.startswith("Input should be"):
        return f"{key}={value} must be {allowed.removeprefix('Input should be ')}."
    return f"{key}={value}: {allowed}."


def _inner(section: type[BaseModel], key: str) -> type[BaseModel]:
    """Return the settings under a key of some settings, or of a dictionary of them."""
    field = section.model_fields.get(key)
    if field is None:
        return section
    kinds = [field.annotation, *get_args(field.annotation)]
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found[0] if found else section


def _choices(context: Mapping[str, Any]) -> str:
    return str(context["expected"]).replace("'", "").replace(" or ", ", ")


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
