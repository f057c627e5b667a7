"""Recompute a sample of the outcomes in a card, as many as a time allows."""

import copy
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from ..analysis.agreement import honest_shares, wrong_outcomes
from ..artifacts.card import CardJob, needs
from ..artifacts.layout import PREDICTIONS
from ..artifacts.record import JobRecord
from ..attacks.settings import Settings as LoopSettings
from ..cache.rows import Rows
from ..config.attack_file import crafted_settings
from ..config.attack_settings import AttackSettings
from ..config.compose import files
from ..config.errors import explain
from ..config.resolvers import CONF
from ..config.sections import ModelSettings
from ..config.settings import Settings
from ..models.providers import LOADER, find, section_of
from ..run.build import fetches
from ..run.check_job import check_job
from ..run.data import DataSets
from ..run.job import make_record
from ..run.job_tables import compute_tables
from ..run.models import ModelPool
from ..run.stages import JobContext
from ..utils import stopping
from ..utils.package import CLONE, command, is_asset
from ..utils.refusals import suggestion
from ..utils.vocabulary import CONTROLS
from .transfer import quiet

_FIRST, _GROWTH = 4, 4  # images per job in the first round, and growth per round
_SPARE = 0.8  # share of the time left that a round may take
_SAME_COST = 1e-6  # relative difference of equal numbers of gradients
_LARGEST_SIDE = 1024  # in pixels; a pass over larger images does not stop in time
_SMALL = 3 * 64**2  # values of an image, up to which rounding hardly changes an attack
_TAKEN = ["attack", "source", "targets", "ensemble", "defences", "source_defence", "source_draws"]
_TAKEN += ["epsilon", "protocol", "storage", "variants", "seed", "n_images", "dataset", "model"]
_TAKEN += ["defence", "training", "trainer", "cache", "clean_accuracy_check"]
_OURS = {"cache": {}, "clean_accuracy_check": {"tolerance": 1.0, "action": "warn"}}
_OF_TRAINER = ("precision", "attack_precision", "fold_batch_norms")
_FOLLOWING = ["source", "targets", "defences", "norm", "budgets", "reference", "protocol", "layer"]
_FOLLOWING += ["storage", "dataset", "precision", "seed", "backward_rule", "iterative", "values"]
_FOLLOWING += ["class_names"]
# Keys whose texts open nothing, and keys whose types list the texts that they may have.
_LABELS = ("dataset.name", "dataset.class_names", "model.feature_layer")
_CHOICES: Sequence[tuple[str, type, Sequence[str]]] = (
    ("attack", AttackSettings, ("norm", "target_label")),
    ("attack", LoopSettings, ("loss", "random_start", "lookahead", "copies_average")),
    ("model", ModelSettings, ("channels",)),
)
_ODD = {*"'\"`\\\N{REPLACEMENT CHARACTER}"}  # quotes, and what stands for a control character
_PUBLIC = ("timm/", "torchvision/")  # whose weights are tensors, and come with no code


class DifferenceError(Exception):
    """Something in a card, apart from outcomes, is not what it is here."""


@dataclass
class CheckedJob:
    """A job in a card, and what a sample of its outcomes showed.

    Attributes:
        order: Positions of its images in a random order, of which the first `images` are checked.
        wrong: Whether each outcome of these images differs by more than rounding, bool (n,).
        honest: Expected number of such outcomes in an honest card, at most.
        pace: Seconds per image of the last pass.
        differs: What differs apart from outcomes, such as `weights of vgg16`.
        reason: Why nothing was recomputed.
    """

    stated: CardJob
    order: NDArray[np.int64]
    wrong: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    honest: float = 0.0
    images: int = 0
    pace: float = 0.0
    differs: str = ""
    reason: str = "time was up"


def check_jobs(
    stated: Sequence[CardJob], words: Sequence[str], step: float, minutes: float, seed: int
) -> list[CheckedJob]:
    """Recompute some images of each job, four times as many in each round, until time is up.

    Args:
        stated: Jobs of a card.
        words: Settings that the user has typed, `KEY=VALUE`; they replace those of the jobs.
        step: Size of the steps in which the card has confidences.
        minutes: Time for all jobs together.
        seed: Seed of the sample.

    Raises:
        ValueError: No job has the key of a word.
    """
    _check_keys(stated, words)
    end, size = time.monotonic() + 60 * minutes, _FIRST
    draws = [np.random.default_rng([seed, number]) for number in range(len(stated) + 1)]
    orders = [draw.permutation(job.record.images) for job, draw in zip(stated, draws, strict=False)]
    jobs = [*map(CheckedJob, stated, orders)]
    turns = [jobs[number] for number in draws[-1].permutation(len(jobs))]
    pool, timer = ModelPool(), stopping.request_after(60 * minutes)
    pool.sets = DataSets(download=False)
    try:
        with quiet(), TemporaryDirectory() as folder:
            while turns:
                for job in turns:
                    _check(job, size, words, step, pool, Rows(Path(folder)))
                turns = [job for job in turns if 0 < job.images < len(job.order)]
                left, pace = end - time.monotonic(), sum(job.pace for job in turns)
                more = min(size * (_GROWTH - 1), int(_SPARE * left / pace) if turns else 0)
                size, turns = size + more, turns if more > 0 else []
    except KeyboardInterrupt:
        if time.monotonic() < end:
            raise
    finally:
        timer.cancel()
    return jobs


def _check_keys(stated: Sequence[CardJob], words: Sequence[str]) -> None:
    """Refuse a typed key that no job in a card has."""
    places = {"cache.dir"}
    for job in stated:
        config = job.record.config
        config = config | {"attack": config["attack"].get("settings", {})}
        places |= {place for place, _ in _leaves(config)}
    for key in (word.partition("=")[0] for word in words):
        if not any(f"{place}.".startswith(f"{key}.") for place in places):
            raise ValueError(f"{key}: no job in the card has this key.{suggestion(key, [*places])}")


def _check(
    job: CheckedJob, size: int, words: Sequence[str], step: float, pool: ModelPool, rows: Rows
) -> None:
    """Recompute a job's first `size` images in its order, and note what it shows."""
    stopping.raise_if_interrupted()
    try:
        context, start = _prepare(job.stated.record, words, pool), time.monotonic()
        order = job.order[:size]
        job.wrong, job.honest = _compare(context, job.stated, np.sort(order), step, rows)
        job.pace = (time.monotonic() - start) / (len(order) - job.images)
        job.images = len(order)
    except DifferenceError as difference:
        job.differs = str(difference)
    except Exception as error:  # a hostile card's settings may raise anything
        job.reason = explain(error)


def _prepare(record: JobRecord, words: Sequence[str], pool: ModelPool) -> JobContext:
    """Return a job on this machine.

    Raises:
        ValueError: It cannot be computed again here; the message says why.
        DifferenceError: It has other images or weights than this machine.
    """
    settings = _settings(record, words)
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
    job: JobContext, stated: CardJob, positions: NDArray[np.int64], step: float, cache: Rows
) -> tuple[NDArray[np.bool_], float]:
    """Compute the outcomes of some images, and return which of the stated ones are wrong.

    The second result is the number of wrong ones to expect in an honest card, at most.

    Raises:
        DifferenceError: The record states facts that do not follow from its settings.
    """
    indices, part = {*job.images.indices.tolist()}, job.images.part(positions)
    job = replace(job, data=replace(job.data, images=part, diagnosed=part))
    results, record = compute_tables(job, cache), stated.record
    assert results is not None
    follows = make_record(job, results)
    other = [key for key in _FOLLOWING if getattr(follows, key) != getattr(record, key)]
    if other := other + ["attack"] * (not _is_named(record)):
        raise DifferenceError(f"{', '.join(other)} in the record, from its settings")
    coarse = record.arithmetic != "float32"  # of another format
    large = coarse or record.values > _SMALL
    other_device = record.device != follows.device
    clean, wrong, honest = results.clean.to_pandas(), [], 0.0
    predictions = results.predictions or {record.storage: results.clean[:0]}
    names = {its: f"{PREDICTIONS}-{its}" for its in (*predictions, *CONTROLS)}
    names[record.storage] = PREDICTIONS
    if unasked := stated.tables.keys() - names.values():
        raise DifferenceError(f"its settings lack the rows of {', '.join(sorted(unasked))}")
    for name, table in predictions.items():
        if names[name] not in stated.tables:
            raise DifferenceError(f"it lacks the rows of {name}")
        frame = stated.tables[names[name]].to_pandas()
        if {*frame["index"]} != indices:
            raise DifferenceError(f"images in the rows of {name}")
        pairs = [its["target"] + "@" + its["defence"] for its in (clean, frame)]
        of_table = clean[pairs[0].isin(pairs[1])]  # a variant has fewer models
        adversarial = table.to_pandas()
        costs = (its.groupby("index")["gradients"].max() for its in (frame, adversarial))
        stated_cost, cost = (its.loc[adversarial["index"]] for its in costs)
        if not np.allclose(stated_cost, cost, rtol=_SAME_COST, equal_nan=True):
            raise DifferenceError(f"gradients per image: {cost.mean():g} are computed")
        computed = pd.concat([of_table, adversarial])
        wide = np.where(computed["eps_255"] > 0, large, coarse)
        wrong.append(wrong_outcomes(frame, computed, step, wide))
        honest += float(honest_shares(computed, wide, other_device).sum())
    return np.concatenate(wrong), honest


def _is_named(record: JobRecord) -> bool:
    """Return False if an attack has the name of one of the program's, but is another."""
    if record.config["attack"]["kind"] == "none":
        return not record.attack
    name, shown = ("".join(its.split()[:1]) for its in (record.attack, record.label))
    if name != shown:  # further words are a preset's
        return False
    own = files("attack", [CONF]).get(name)
    section = yaml.safe_load(own.read_text("utf-8")) if own else {}
    if "${" in (target := section.get("_target_", "${")):
        return True
    settings = record.config["attack"]["settings"]
    only = section.get("about", {}).get("targeted") == "only"
    untargeted = settings.get("target_label") is None
    return target == settings.get("_target_") and not (only and untargeted)


def _settings(record: JobRecord, words: Sequence[str]) -> Settings:
    """Return a job's settings, without those that decide no outcome.

    A text in a card may name code or a file. It is used only if the program's own files have it for
    the same key and `_target_`, if it is a word that the key's type lists, if it belongs to a
    public model, or if the user has typed it for this key.
    """
    config = copy.deepcopy(record.config) | copy.deepcopy(_OURS)
    config["epsilon"]["below_one"] = True  # another version's records may lack the key
    typed = {pair for word in words for pair in _type(config, word)}
    attack, sections = config["attack"], {"dataset": config["dataset"]}
    unknown = dict[str, str]()
    if attack["kind"] == "crafted":
        sections["attack"] = attack["settings"]
    elif attack["kind"] == "none":
        config["attack"] = {key: attack[key] for key in ("kind", "name", "label")}
    else:
        raise ValueError("its adversarial images are files, which a card does not have")
    for section in config["model"].values():
        if is_asset(weights := str(section.get("weights"))):  # wherever the author has them
            section["weights"] = f"{CLONE}/assets/{PurePosixPath(weights).name}"
    for group in ("model", "defence"):
        sections |= {f"{group}.{name}": section for name, section in config[group].items()}
    for key, section in sections.items():
        group = key.partition(".")[0]
        called = section["network"] if group == "model" else section
        if "_target_" not in called:
            raise ValueError(f"{key} was passed as a Python object")
        known = _known(group, str(called["_target_"])) | _choices()
        if called["_target_"] == LOADER and str(called["name"]).startswith(_PUBLIC):
            known |= {*_texts(section_of(called["name"]), group)}
            if not find(called["name"]).path.exists():
                raise ValueError(f"weights of {called['name']} are missing")
        for place, text in _texts(section):
            label = re.sub(r"\.\d+$", "", f"{group}.{place}") in _LABELS  # or in a list of them
            trusted = (f"{group}.{place}", text) in known or (f"{key}.{place}", text) in typed
            if not (label or trusted):
                unknown[f"{key}.{place}"] = text
    absent = [name for name, section in config["model"].items() if _lacks_weights(section)]
    if unknown:
        raise ValueError(_untrusted(record, unknown, absent, words))
    if absent:
        paths = (f"{config['model'][name]['weights']} of {name}" for name in absent)
        raise ValueError(f"no file has the weights {', '.join(paths)}")
    for section in config["model"].values():
        for name in section.keys() - ModelSettings.model_fields.keys():
            del section[name]  # of another version
    if attack["kind"] == "crafted":
        config["attack"] = crafted_settings(attack["name"], attack["settings"])
    config["trainer"] = {key: config["trainer"][key] for key in _OF_TRAINER}
    settings = Settings.model_validate({key: config[key] for key in _TAKEN}, strict=False)
    sides = {f"model.{name}.input_size": its.input_size for name, its in settings.model.items()}
    for key in ("image_size", "resize"):
        sides[f"dataset.{key}"] = getattr(settings.dataset, key)
    for key, side in sides.items():
        if (side or 0) > _LARGEST_SIDE:
            raise ValueError(f"{key}={side} is above {_LARGEST_SIDE}")
    return settings


def _lacks_weights(section: Mapping[str, Any]) -> bool:
    """Return True if a network's weights are a file that is neither here nor in the program."""
    weights = section.get("weights")
    file = weights not in (None, "included") and not section.get("url")
    return bool(file) and not (is_asset(str(weights)) or Path(str(weights)).expanduser().is_file())


def _untrusted(
    record: JobRecord, unknown: Mapping[str, str], absent: Sequence[str], words: Sequence[str]
) -> str:
    """Return a command for files and code that a card names, and what is not here."""
    root = unknown.get("dataset.root")
    elsewhere = {f"model.{name}.weights": "FILE" for name in absent}
    elsewhere |= {"dataset.root": "FOLDER"} if root and not Path(root).is_dir() else {}
    typed = sorted(f"{key}={elsewhere.get(key, its)}" for key, its in unknown.items())
    if odd := next((word for word in typed if not word.isprintable() or _ODD & {*word}), None):
        raise ValueError(
            f"its {odd.partition('.')[0]} has text with quotes or control characters, which is not "
            "repeated here. If you know and trust it, type its KEY=VALUE"
        )
    line = f"type: {command('verify')} CARD {shlex.join([*words, *typed])}"
    if elsewhere:
        return f"it needs {needs(record)}. Fill in its places and, if you trust the code, {line}"
    return f"it names files or code. If you trust them, {line}"


def _type(config: dict[str, Any], word: str) -> Iterator[tuple[str, str]]:
    """Set a typed `KEY=VALUE` in a job's config if it has the key; yield its texts with keys."""
    key, _, text = word.partition("=")
    (first, *path), section = key.split("."), config
    for name in (first, *["settings"] * (first == "attack"), *path)[:-1]:
        section = section.get(name, {}) if isinstance(section, dict) else {}
    known, last = section if isinstance(section, dict) else {}, key.rpartition(".")[2]
    value = text if isinstance(known.get(last), str) else yaml.safe_load(text)
    if key == "cache.dir" or last in known:
        section[last] = value
    yield from _texts(value, key)


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
            sections = [section, *(yaml.safe_load(its.read_bytes()) for its in included)]
            known |= {pair for its in sections for pair in _texts(its, group)}
    return frozenset(pair for pair in known if "${" not in pair[1] and pair[1] != "???")


@cache
def _choices() -> frozenset[tuple[str, str]]:
    """Return the keys in `_CHOICES`, each with the words that its type lists."""
    return frozenset(
        (f"{group}.{name}", word)
        for group, owner, names in _CHOICES
        for name in names
        for hint in (get_type_hints(owner)[name],)
        for its in (hint, *get_args(hint))
        if get_origin(its) is Literal
        for word in get_args(its)
    )


def _texts(section: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a section with their dotted places, recursively."""
    return ((its, text) for its, text in _leaves(section, place) if isinstance(text, str))


def _leaves(section: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in a section with their dotted places, recursively."""
    if isinstance(section, dict | list) and section:
        for key, value in section.items() if isinstance(section, dict) else enumerate(section):
            yield from _leaves(value, f"{place}.{key}".strip("."))
    else:
        yield place, section
