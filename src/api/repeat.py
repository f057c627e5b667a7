"""Commands that repeat the jobs of a card. They are printed, and nothing of a card is run."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ..artifacts.record import JobRecord
from ..config.catalogue import files
from ..config.resolvers import CONF
from ..config.sections import DefenceSettings, ModelSettings
from ..utils.package import command

UNKNOWN = "???"
"""Stands for a text that `conf/` does not have: it may name code or a file."""
_PLAIN = "source targets ensemble defences source_defence source_draws protocol storage variants"
_PLAIN += " controls seed n_images"
_BUDGETS = "grid reference below_one"
_ARITHMETIC = "precision attack_precision fold_batch_norms"
_LISTED = re.compile(r"attack\.(norm|target_label)|model\.[^.]+\.channels")  # see `Settings`
_NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)  # with a slash it may be code or a file
_NO_TEXT = re.compile(r"[+-]?(\d[\d_.]*(e[+-]?\d+)?|inf|nan)|true|false|null", re.IGNORECASE)
_DEFAULTS = {"model": ModelSettings.model_fields, "defence": DefenceSettings.model_fields}


def repeat_command(record: JobRecord) -> str:
    """Return a command for a shell that repeats a job.

    The words set what differs from the program's files in `conf/`. A text of an attack, a data set,
    a model or a defence that its file lacks is printed as `KEY=???`, as is a name with a slash.

    Raises:
        ValueError: The record lacks settings.
    """
    try:
        return shlex.join([*shlex.split(command("main")), *_words(record)])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The record of {record.label} lacks settings: {error}.") from error


def _words(record: JobRecord) -> list[str]:
    config, attack = record.config, record.config["attack"]
    named = record.attack if "." not in record.attack else UNKNOWN  # a file in a folder, a library
    words: dict[str, Any] = {"attack": named or "none"}
    if attack["kind"] == "saved":
        words = {"attack": "saved", "attack.path": UNKNOWN}
    words |= {"dataset": record.dataset}
    words |= {key: config[key] for key in _PLAIN.split()} | {"source": config["source"] or None}
    words |= {f"epsilon.{key}": config["epsilon"][key] for key in _BUDGETS.split()}
    words |= {f"trainer.{key}": config["trainer"][key] for key in _ARITHMETIC.split()}
    words["clean_accuracy_check.action"] = config["clean_accuracy_check"]["action"]
    typed = [f"{key}={_text(value)}" for key, value in words.items()]
    parts = [("attack", record.attack, attack["settings"])]
    if record.fit_gradients != 0 or any(
        model["weights"] is None for model in config["model"].values()
    ):
        parts.append(("training", "", config["training"]))  # of models, or of the attack
    parts.append(("dataset", record.dataset, config["dataset"]))
    for group in ("model", "defence"):
        parts += [(f"{group}.{name}", name, part) for name, part in config[group].items()]
    return typed + [word for part in parts for word in _changed(*part)]


def _changed(start: str, name: str, section: dict[str, Any]) -> Iterator[str]:
    """Yield the words that turn the file of an attack or another section into a job's section."""
    group = start.partition(".")[0]
    path = files(group, [CONF]).get(name)
    stated = dict(_of_file(path, f"{start}.")) if path else {}
    for place, value in _values(section, f"{start}."):
        key = place.rpartition(".")[2]
        field = _DEFAULTS.get(group, {}).get(key)
        usual = stated.get(place, field.default if field else None)
        file = PureWindowsPath(str(value)).name
        if value == usual or (key == "weights" and str(usual).endswith(f"/{file}")):
            continue
        is_safe = _LISTED.fullmatch(place) or _is_plain(value) or group == "training"
        word = place if _NAME.fullmatch(place) else UNKNOWN
        yield f"{'++' * (place not in stated)}{word}={_text(value) if is_safe else UNKNOWN}"


def _is_plain(value: Any) -> bool:
    """Return True for a number, a truth value, None, and lists of these."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float)


def _text(value: Any) -> str:
    """Return a value in Hydra's syntax; a text that is no name is unknown."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, str):
        text = f"'{value}'" if _NO_TEXT.fullmatch(value) else value
        return text if _NAME.fullmatch(value) else UNKNOWN
    return json.dumps(value) if _is_plain(value) else UNKNOWN


def _of_file(path: Path, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the values by place in the files that a file includes, and in the file."""
    content = yaml.safe_load(path.read_bytes())
    for base in content.get("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            yield from _of_file(path.with_stem(base.partition("@")[0]), place)
    yield from _values(content, place)


def _values(section: dict[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted place, recursively."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _values(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value
