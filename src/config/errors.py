"""Errors of a command line or config as one line that begins with the key."""

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import packages_distributions
from typing import Any, NoReturn

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from ..utils.package import install_command
from ..utils.refusals import first_line, printable, suggestion
from .command import BUDGETS, SET_BUDGETS

REFUSED, INTERRUPTED = 2, 130  # exit codes; errors have the first, too
REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
"""Errors raised for an invalid command line or config file."""
LAUNCHERS = ("joblib", "submitit", "ray")
"""Extras of this package that install a Hydra launcher."""


def tell(message: str) -> None:
    """Print a message to standard error, if that can be written."""
    with suppress(OSError):  # a closed stream; Hydra would warn of the error, and run the jobs
        print(printable(message), file=sys.stderr, flush=True)


def refuse(message: str) -> NoReturn:
    """Print why a command cannot run, and exit with the code of a refusal."""
    tell(message)
    sys.exit(REFUSED)


def describe(error: BaseException) -> str:
    """Return a sentence about an error that ends a command; the traceback if it is unforeseen."""
    if isinstance(error, REFUSALS):
        return explain(error)
    if isinstance(error, OSError):
        return f"A file could not be read or written: {error}."
    if isinstance(error, ImportError | MemoryError):
        return f"The program cannot go on: {first_line(error) or 'out of memory'}."
    return "".join(traceback.format_exception(error))


def explain(error: BaseException) -> str:
    """Return one line about an error in the command line or config, with similar names."""
    if isinstance(error, ValidationError):
        return refusal(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(error, OmegaConfBaseException):
        text = f"{error.full_key}: {first_line(error)}" if error.full_key else first_line(error)
    else:
        text = " ".join(str(error).split("\n\n")[0].split())
    if isinstance(error, OverrideParseException):
        word = str(error.override)
        way = "Write no blanks beside = and commas, close brackets, and quote texts: 'KEY=\"TEXT\"'"
        return f"{word if word.strip() else repr(word)}: it cannot be read as KEY=VALUE. {way}"
    if isinstance(error, MissingConfigException):
        parts = str(error.missing_cfg_file).split("/")  # the typed name may have slashes
        depth = 2 if parts[0] == "hydra" else 1
        group, name = "/".join(parts[:depth]), "/".join(parts[depth:])
        extra = name.partition("_")[0] if group == "hydra/launcher" else ""
        having = packages_distributions().get("hydra_plugins", ()) if extra in LAUNCHERS else ()
        if extra in LAUNCHERS and f"hydra-{extra}-launcher" not in having:
            return f"hydra/launcher needs the extra {extra}: {install_command(extra)}"
        options = [option for option in error.options or () if not option.startswith("_")]
        stem = re.sub("[-_]fgsm$", "", name.lower())  # papers write MI-FGSM for mi
        near = suggestion(stem, options)
        listed = f" {group} has {', '.join(options)}." if options and not near else ""
        return f"{text.rstrip('.')}.{near}{listed}"
    if (found := text.partition(", possible interpolation keys: "))[1]:  # `~` has deleted a group
        groups = re.findall(r"\$\{(\w+)\}", found[0])
        key = next((name for name in groups if name not in found[2].split(", ")), "")
        return f"{key} is missing: the program needs this key. Leave out ~{key}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        text = first_line(error).partition(". Did you mean")[0]  # of OmegaConf 2.4
        if text.endswith("is not in struct"):  # `~` has deleted a key of the program
            key = str(cause.full_key).removeprefix("hydra.runtime.choices.")
            return f"{key} is missing: the program needs this key. Leave out ~{key}"
        return f"{text}{_near(str(cause.full_key), cause.parent_node)}"
    return text


def _near(full_key: str, parent: Any) -> str:
    """Return a question with a key of the config that resembles a missing one."""
    if full_key.rpartition(".")[2] in BUDGETS:
        return f" {SET_BUDGETS}"
    root = OmegaConf.to_container(parent._get_root()) if isinstance(parent, DictConfig) else {}
    keys = [key for key, _ in dotted(root) if not key.startswith("hydra.")]
    same = [key for key in keys if key.endswith(f".{full_key.rpartition('.')[2]}")]
    return suggestion(full_key, same, cutoff=0) or suggestion(full_key, keys)


def dotted(section: Any, start: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a config with their values, including those of its sections."""
    for key, value in section.items() if isinstance(section, dict) else ():
        yield f"{start}{key}", value
        yield from dotted(value, f"{start}{key}.")


def refusal(error: ValidationError, names: Sequence[str] = (), within: str = "") -> str:
    """Return pydantic's message about the first invalid key, with similar `known` keys."""
    first = error.errors()[0]
    # The keys of `saved` are the attack's.
    parts = (within, *first["loc"]) if within else first["loc"]
    key = ".".join(str(part) for part in parts if part != "saved").partition(".list[")[0]
    if first["type"] == "value_error":  # a message of this program
        return f"{key}: {first['ctx']['error']}".removeprefix(": ")
    if first["type"] == "missing":
        return f"{key}: {first['msg']}"
    if first["type"] == "string_type" and isinstance(first["input"], bool):
        return misread(key, first["input"])
    near = suggestion(key.rpartition(".")[2], names) if first["type"] == "extra_forbidden" else ""
    return f"{key}={str(first['input'])[:120]}: {first['msg']}.{near}"


def misread(key: str, value: bool) -> str:
    """Return a refusal of a truth value where a config file should have a text."""
    word, others = ("yes", "on and true") if value else ("no", "off and false")
    return f"{key}: {value} is YAML's word for {word}, {others}; quote it, as '{word}'"
