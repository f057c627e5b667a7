"""Recompute outcomes of a job in a card: its own settings, on some of its images."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from ..analysis.agreement import distances
from ..artifacts.card import CardJob
from ..artifacts.layout import PREDICTIONS
from ..artifacts.record import JobRecord
from ..cache.rows import Rows
from ..config.attack_file import crafted_settings
from ..config.compose import files
from ..config.errors import refusal
from ..config.resolvers import CONF
from ..config.sections import ModelSettings
from ..config.settings import Settings
from ..models.providers import LOADER, find, section_of
from .check_job import check_job
from .job import make_record
from .models import ModelPool
from .results import compute_results

_TAKEN = ("source", "targets", "ensemble", "defences", "source_defence", "source_draws", "epsilon")
_TAKEN += ("protocol", "storage", "variants", "seed", "n_images", "dataset", "model", "defence")
_TAKEN += ("attack", "training", "trainer", "cache")
_OURS = {"clean_accuracy_check": {"tolerance": 1.0, "action": "warn"}}
_OF_TRAINER = ("precision", "attack_precision", "fold_batch_norms")
_FOLLOWING = ("source", "targets", "defences", "norm", "budgets", "reference")
_FOLLOWING += ("protocol", "storage", "dataset", "precision", "seed", "layer", "backward_rule")
_FOLLOWING += ("iterative", "class_names", "values")
_LABELS = ("dataset.name.", "dataset.class_names.", "model.channels.")  # texts that open nothing
_PUBLIC = ("timm/", "torchvision/")  # whose weights are tensors, and come with no code


class DifferenceError(Exception):
    """A job in a card is not made of what this machine has, by name."""


class RecomputedJob:
    """A job in a card that this machine can compute again.

    Args:
        stated: The job in the card.
        words: Settings that the user has typed, `KEY=VALUE`; they replace those of the record.
        config_dir: The user's folder of config files, as for `--config-dir`.
        pool: Models and data sets of the command.
        cache: Folder for rows.

    Raises:
        ValueError: It cannot be computed again here; the message says why.
        DifferenceError: It has other images or weights than this machine.
    """

    def __init__(
        self,
        stated: CardJob,
        words: Sequence[str],
        config_dir: Path | None,
        pool: ModelPool,
        cache: Path,
    ) -> None:
        self.stated, self.rows = stated, Rows(cache)
        record = stated.record
        settings = _settings(record, words, config_dir)
        missing = [name for name, model in settings.model.items() if model.missing]
        if not missing:
            self.job, untrained = pool.prepare(check_job(settings, pool.sets))
            missing = [*untrained]
        if missing:
            raise ValueError(f"weights of {', '.join(missing)} are missing")
        if not self.job.images_apart:
            raise ValueError("its adversarial images depend on their batches")
        own = {name: model.digest for name, model in self.job.models.items()}
        if self.job.images.digest() != record.data:
            raise DifferenceError("images")
        if other := [name for name, digest in record.weights.items() if own.get(name) != digest]:
            raise DifferenceError(f"weights of {', '.join(other)}")

    def compare(self, positions: Sequence[int]) -> pd.DataFrame:
        """Compute the outcomes of some images, and return those of `distances` for all tables.

        Raises:
            DifferenceError: The record states facts that do not follow from its settings.
        """
        part = self.job.images.part(np.sort(np.asarray(positions)))
        job = replace(self.job, data=replace(self.job.data, images=part, diagnosed=part))
        results, record = compute_results(job, self.rows), self.stated.record
        assert results is not None
        follows = make_record(job, results)
        other = [key for key in _FOLLOWING if getattr(follows, key) != getattr(record, key)]
        if other := other + ["attack"] * (not _is_named(record)):
            raise DifferenceError(f"{', '.join(other)} in the record, from its settings")
        clean, parts = results.clean.to_pandas(), []
        for name, table in results.predictions.items() or [(record.storage, results.clean[:0])]:
            file = PREDICTIONS if name == record.storage else f"{PREDICTIONS}-{name}"
            if file not in self.stated.tables:
                raise DifferenceError(f"no rows of {name}")
            stated = self.stated.tables[file].to_pandas()
            of_table = clean[_pairs(clean).isin(_pairs(stated))]  # a variant has fewer models
            parts.append(distances(stated, pd.concat([of_table, table.to_pandas()])))
        return pd.concat(parts)


def _pairs(rows: pd.DataFrame) -> pd.Series:
    return rows["target"] + "@" + rows["defence"]


def _is_named(record: JobRecord) -> bool:
    """Return False if an attack has the name of one of the program's, but is another."""
    own = files("attack", [CONF]).get(record.attack.partition(" ")[0])  # a preset adds words
    called = record.config["attack"]["settings"].get("_target_")
    target = yaml.safe_load(own.read_text("utf-8")).get("_target_", "${") if own else "${"
    return "${" in target or target == called


def _settings(record: JobRecord, words: Sequence[str], config_dir: Path | None) -> Settings:
    """Return a job's settings, without those that decide no outcome.

    A text in a card may name code or a file. It is used only if a config file of the program or the
    user has it in the same group, if it belongs to a public model, or if the user has typed it.
    """
    config: dict[str, Any] = copy.deepcopy(record.config) | {"cache": {"dir": "cache"}}
    typed = {text for word in words for text in _type(config, word)}
    attack, sections = config["attack"], {"dataset": config["dataset"]}
    if attack["kind"] == "saved":
        raise ValueError("its adversarial images are files, which a card does not have")
    if attack["kind"] == "crafted":
        sections["attack"] = attack["settings"]
    for group in ("model", "defence"):
        sections |= {f"{group}.{name}": section for name, section in config[group].items()}
    for section in config["model"].values():
        for key in section.keys() - ModelSettings.model_fields.keys():  # of another version
            del section[key]
    for key, section in sections.items():
        called, known = (
            section.get("network", section),
            _known(key.partition(".")[0], config_dir) | typed,
        )
        if "_target_" not in called:
            raise ValueError(f"{key} was passed as a Python object")
        if called["_target_"] == LOADER and str(called["name"]).startswith(_PUBLIC):
            known |= {text for _, text in _texts(section_of(called["name"]))}
            if not find(called["name"]).path.exists():
                raise ValueError(f"weights of {called['name']} are missing")
        for place, text in _texts(section):
            if text not in known and not f"{key.partition('.')[0]}.{place}.".startswith(_LABELS):
                raise ValueError(f"it names {text}; to trust it, type '{key}.{place}={text}'")
    config["trainer"] = {key: config["trainer"][key] for key in _OF_TRAINER}
    try:
        if attack["kind"] == "crafted":
            config["attack"] = crafted_settings(attack["name"], attack["settings"])
        return Settings.model_validate(
            {key: config[key] for key in _TAKEN if key in config} | _OURS, strict=False
        )
    except ValidationError as error:
        raise ValueError(refusal(error)) from error


def _type(config: dict[str, Any], word: str) -> Iterator[str]:
    """Set a typed `KEY=VALUE` in a record's config if it has the key; yield the texts in VALUE."""
    key, _, text = word.partition("=")
    value, section = yaml.safe_load(text), section_with(config, key)
    if section is not None:
        section[key.rpartition(".")[2]] = value
    yield from (text for _, text in _texts(value))


def section_with(config: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the section of a record's config that has a key of the command line, if any has."""
    first, *path = key.split(".")
    section: Any = config
    for name in [first, *["settings"] * (first == "attack"), *path][:-1]:
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, dict) and path and path[-1] in section else None


@cache
def _known(group: str, config_dir: Path | None) -> frozenset[str]:
    """Return the texts in the config files of a group, except interpolations."""
    folders = [CONF] if config_dir is None else [CONF, config_dir]
    paths = [path for folder in folders for path in (folder / group).glob("*.yaml")]
    contents = (yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in paths)
    return frozenset(text for its in contents for _, text in _texts(its) if "${" not in text)


def _texts(section: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a section with their dotted places, recursively."""
    if isinstance(section, str):
        yield place, section
    pairs = section.items() if isinstance(section, dict) else ()
    pairs = enumerate(section) if isinstance(section, list | tuple) else pairs
    for key, value in pairs:
        yield from _texts(value, f"{place}.{key}".strip("."))
