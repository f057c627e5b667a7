"""Recompute a sample of the outcomes in a card, on this machine."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from ..analysis.agreement import honest_shares, wrong_outcomes
from ..artifacts.card import CardJob, needs
from ..artifacts.layout import PREDICTIONS
from ..artifacts.record import JobRecord
from ..cache.rows import Rows
from ..config.attack_file import crafted_settings
from ..config.compose import files
from ..config.errors import explain
from ..config.resolvers import CONF
from ..config.sections import ModelSettings
from ..config.settings import Settings
from ..models.providers import LOADER, find, section_of
from ..run.check_job import check_job
from ..run.data import DataSets
from ..run.job import compute_job
from ..run.models import ModelPool, fetches
from ..run.stages import JobContext
from ..utils import stopping
from ..utils.package import CLONE, command, is_asset
from ..utils.refusals import suggestion
from ..utils.vocabulary import CONTROLS
from .transfer import quiet

_SMALL = 3 * 64**2  # values of an image, up to which rounding hardly changes an attack
_SECTIONS = "source targets ensemble defences source_defence source_draws epsilon protocol storage"
_SECTIONS += " variants seed n_images attack dataset model defence training trainer cache"
_FOLLOWING = "source targets defences norm budgets reference protocol layer storage dataset"
_FOLLOWING += " precision seed backward_rule iterative values class_names"
# Texts of a stranger that need no trust: keys that open nothing, and words of a key.
_LABELS = ("dataset.name", "dataset.class_names", "model.feature_layer")
_WORDS = {
    "attack.copies_average": "gradients logits",
    "attack.lookahead": "gradient momentum",
    "attack.loss": "calibrated cross_entropy logit margin",
    "attack.norm": "l2 linf",
    "attack.random_start": "sign uniform",
    "attack.target_label": "data least_likely next random",
    "model.channels": "BGR RGB",
}
_PUBLIC = ("timm/", "torchvision/")  # whose weights are tensors, and come with no code
_ODD = {*"'\"`\\\N{REPLACEMENT CHARACTER}"}  # quotes, and what stands for a control character


class DifferenceError(Exception):
    """Something in a card, apart from outcomes, is not what it is here."""


@dataclass
class CheckedJob:
    """A job in a card, and what a sample of its outcomes showed.

    Attributes:
        wrong: Whether each outcome of the sample differs by more than rounding, bool (n,).
        honest: Expected number of such outcomes in an honest card, at most.
        differs: What differs apart from outcomes, such as `weights of vgg16`.
        reason: Why nothing was recomputed.
    """

    stated: CardJob
    wrong: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    honest: float = 0.0
    differs: str = ""
    reason: str = ""


def check_jobs(
    stated: Sequence[CardJob], words: Sequence[str], step: float, images: int, seed: int
) -> list[CheckedJob]:
    """Recompute the outcomes of some images of each job, drawn at random.

    Args:
        stated: Jobs of a card.
        words: Settings that the user has typed, `KEY=VALUE`; they replace those of the jobs.
        step: Size of the steps in which the card has confidences.
        images: Number of images per job, at most.
        seed: Seed of the sample.

    Raises:
        ValueError: No job has the key of a word.
    """
    typed, places = dict(word.split("=", 1) for word in words), {"cache.dir"}
    for config in (job.record.config for job in stated):
        attack = config["attack"].get("settings", {})
        places |= {place for place, _ in _leaves(config | {"attack": attack})}
    if new := next((key for key in typed if key not in places), None):
        raise ValueError(f"{new}: no job in the card has this key.{suggestion(new, [*places])}")
    jobs, pool = [*map(CheckedJob, stated)], ModelPool()
    pool.sets = DataSets(download=False)
    with quiet(), TemporaryDirectory() as folder:
        for number, job in enumerate(jobs):
            stopping.raise_if_interrupted()
            order = np.random.default_rng([seed, number]).permutation(job.stated.record.images)
            try:
                context = _prepare(job.stated.record, typed, pool)
                sample = context.images.part(np.sort(order[:images]))
                job.wrong, job.honest = _compare(context, job.stated, sample, step, Path(folder))
            except DifferenceError as difference:
                job.differs = str(difference)
            except Exception as error:  # a hostile card's settings may raise anything
                job.reason = explain(error)
    return jobs


def _prepare(record: JobRecord, typed: Mapping[str, str], pool: ModelPool) -> JobContext:
    """Return a job on this machine.

    Raises:
        ValueError: It cannot be computed again here; the message says why.
        DifferenceError: It has other images or weights than this machine.
    """
    settings = _settings(record, typed)
    if {0.0, *settings.budgets} != {*record.budgets}:
        raise DifferenceError("budgets in the record, from its settings")
    missing = [name for name, model in settings.model.items() if model.missing or fetches(model)]
    if not missing:
        job, untrained = pool.prepare(check_job(settings, pool.sets))
        missing = [*untrained]
    if missing:
        raise ValueError(f"weights of {', '.join(missing)} are in no file here")
    if not job.images_apart:
        raise ValueError("its adversarial images depend on their batches")
    if (job.images.digest(), len(job.images)) != (record.data, record.images):
        raise DifferenceError("images")
    own = {name: model.digest for name, model in job.models.items()}
    if other := [name for name, digest in record.weights.items() if own.get(name) != digest]:
        raise DifferenceError(f"weights of {', '.join(other)}")
    return job


def _compare(
    job: JobContext, stated: CardJob, sample: Any, step: float, cache: Path
) -> tuple[NDArray[np.bool_], float]:
    """Return which stated outcomes of some images are wrong, and how many honest ones may be.

    Raises:
        DifferenceError: The record or its tables do not follow from its settings.
    """
    part, record = replace(job.data, images=sample, diagnosed=sample), stated.record
    evaluation, finished = compute_job(replace(job, data=part), Rows(cache))
    results, follows = evaluation.tables, finished.record
    assert results is not None
    other = [key for key in _FOLLOWING.split() if getattr(follows, key) != getattr(record, key)]
    if other := other + ["attack"] * (not _is_named(record)):
        raise DifferenceError(f"{', '.join(other)} in the record, from its settings")
    variants = results.predictions or {record.storage: results.clean[:0]}
    names = {f"{PREDICTIONS}-{its}": its for its in variants if its != record.storage}
    names[PREDICTIONS] = record.storage
    asked = stated.tables.keys() - {f"{PREDICTIONS}-{its}" for its in CONTROLS}
    if unlike := names.keys() ^ asked:
        raise DifferenceError(f"rows of {', '.join(sorted(unlike))}, from its settings")
    coarse = record.arithmetic != "float32"  # of another format
    large, clean = coarse or record.values > _SMALL, results.clean.to_pandas()
    wrong, honest = list[NDArray[np.bool_]](), 0.0
    for name, variant in names.items():
        frame = stated.tables[name].to_pandas()
        if {*frame["index"]} != {*job.images.indices.tolist()}:
            raise DifferenceError(f"images in the rows of {variant}")
        pairs = [its["target"] + "@" + its["defence"] for its in (clean, frame)]
        of_table = clean[pairs[0].isin(pairs[1])]  # a variant has fewer models
        rows = pd.concat([of_table, variants[variant].to_pandas()])
        wide = np.where(rows["eps_255"] > 0, large, coarse)
        wrong.append(wrong_outcomes(frame, rows, step, wide))
        honest += float(honest_shares(rows, wide, record.device != follows.device).sum())
    return np.concatenate(wrong), honest


def _is_named(record: JobRecord) -> bool:
    """Return False if an attack has the name of one of the program's, but is another."""
    attack = record.config["attack"]
    if attack["kind"] == "none":
        return not record.attack
    name, shown = ("".join(its.split()[:1]) for its in (record.attack, record.label))
    path = files("attack", [CONF]).get(name)
    target = str(yaml.safe_load(path.read_bytes()).get("_target_", "${")) if path else "${"
    # Further words are a preset's.
    return name == shown and ("${" in target or target == attack["settings"].get("_target_"))


def _settings(record: JobRecord, typed: Mapping[str, str]) -> Settings:
    """Return a job's settings, without those that decide no outcome.

    A text in a card may name code or a file. It is used only if the program's own files have it for
    the same key and `_target_`, if it is a label or a word of its key, if it belongs to a public
    model, or if the user has typed it for this key.
    """
    config, unknown = dict(record.config), dict[str, str]()
    attack = config["attack"]
    if attack["kind"] not in ("crafted", "none"):
        raise ValueError("its adversarial images are files, which a card does not have")
    config["dataset"] = _trusted("dataset", config["dataset"], typed, unknown)
    for group in ("model", "defence"):
        config[group] = {
            name: _trusted(f"{group}.{name}", section, typed, unknown)
            for name, section in config[group].items()
        }
    crafted = attack["kind"] == "crafted"
    section = _trusted("attack", attack["settings"], typed, unknown) if crafted else {}
    if unknown:
        raise ValueError(_untrusted(record, unknown, typed))
    for name, its in config["model"].items():  # without keys of another version
        config["model"][name] = {key: its[key] for key in ModelSettings.model_fields if key in its}
    config["attack"] = {key: attack[key] for key in ("kind", "name", "label")}
    if crafted:
        config["attack"] = crafted_settings(attack["name"], section)
    config["epsilon"] = config["epsilon"] | {"below_one": True}  # older records lack the key
    used = ("precision", "attack_precision", "fold_batch_norms")
    config["trainer"] = {key: config["trainer"][key] for key in used}
    config["cache"] = {"dir": typed["cache.dir"]} if "cache.dir" in typed else {}
    taken = {key: config[key] for key in _SECTIONS.split()}
    taken["clean_accuracy_check"] = {"tolerance": 1.0, "action": "warn"}
    return Settings.model_validate(taken, strict=False)


def _trusted(
    key: str, section: Mapping[str, Any], typed: Mapping[str, str], unknown: dict[str, str]
) -> dict[str, Any]:
    """Return a section with what the user has typed; add its texts without trust to `unknown`."""
    group = key.partition(".")[0]

    def replaced(place: str, value: Any) -> Any:
        if place in typed:
            return typed[place] if isinstance(value, str) else yaml.safe_load(typed[place])
        if place == f"{key}.weights" and is_asset(str(value)):  # wherever the author has them
            return f"{CLONE}/assets/{PurePosixPath(value).name}"
        return value

    used: dict[str, Any] = _mapped(section, key, replaced)
    called = used["network"] if group == "model" else used
    if "_target_" not in called:
        raise ValueError(f"{key} was passed as a Python object")
    known = _known(group, str(called["_target_"]))
    if called["_target_"] == LOADER and str(called["name"]).startswith(_PUBLIC):
        known |= _texts(section_of(called["name"]), group)
        if not find(called["name"]).path.exists():
            raise ValueError(f"weights of {called['name']} are missing")
    for place, text in _texts(used, group):
        full = key + place.removeprefix(group)
        label = re.sub(r"\.\d+$", "", place) in _LABELS  # or in a list of them
        word = text in _WORDS.get(place, "").split()
        if not (label or word or full in typed or (place, text) in known):
            unknown[full] = text
    return used


def _untrusted(record: JobRecord, unknown: Mapping[str, str], typed: Mapping[str, str]) -> str:
    """Return a command for files and code that a card names, and what is not here."""
    words = [f"{key}={text}" for key, text in typed.items()]
    for key, text in sorted(unknown.items()):
        place = {"weights": "FILE", "root": "FOLDER"}.get(key.rpartition(".")[2])
        away = place and not Path(text).expanduser().exists()
        words.append(f"{key}={place if away else text}")
        if not words[-1].isprintable() or _ODD & {*words[-1]}:
            return (
                f"its {key.partition('.')[0]} has text with quotes or control characters, which is "
                "not repeated here. If you know and trust it, type its KEY=VALUE"
            )
    line = f"type: {command('verify')} CARD {shlex.join(words)}"
    if {"FILE", "FOLDER"} & {word.partition("=")[2] for word in words}:
        return f"it needs {needs(record)}. Fill in its places and, if you trust the code, {line}"
    return f"it names files or code. If you trust them, {line}"


@cache
def _known(group: str, target: str) -> frozenset[tuple[str, str]]:
    """Return the keys and texts in the program's files of a group that have this `_target_`."""
    known = set[tuple[str, str]]()
    for path in files(group, [CONF]).values():
        section = yaml.safe_load(path.read_bytes())
        called = section["network"] if group == "model" else section
        if called.get("_target_") == target:
            bases = (base.partition("@")[0] for base in section.pop("defaults", ()))
            included = [path.with_stem(base) for base in bases if base != "_self_"]
            for its in (section, *(yaml.safe_load(file.read_bytes()) for file in included)):
                known |= _texts(its, group)
    return frozenset(pair for pair in known if "${" not in pair[1] and pair[1] != "???")


def _texts(section: Any, place: str) -> set[tuple[str, str]]:
    """Return the texts in a section with their dotted places."""
    return {(its, text) for its, text in _leaves(section, place) if isinstance(text, str)}


def _leaves(section: Any, place: str = "") -> list[tuple[str, Any]]:
    """Return the values in a section with their dotted places, recursively."""
    leaves = list[tuple[str, Any]]()
    _mapped(section, place, lambda *leaf: leaves.append(leaf))
    return leaves


def _mapped(section: Any, place: str, change: Callable[[str, Any], Any]) -> Any:
    """Return a section with each value changed by its dotted place and itself, recursively."""
    if isinstance(section, dict) and section:
        return {
            key: _mapped(its, f"{place}.{key}".strip("."), change) for key, its in section.items()
        }
    if isinstance(section, list) and section:
        return [_mapped(its, f"{place}.{at}", change) for at, its in enumerate(section)]
    return change(place, section)
