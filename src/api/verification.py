"""Recompute a sample of a card's outcomes; what guards this machine against its author is here.

A text in the settings of an attack, a data set, a model or a defence may name code or a file. It is
used only if the program's file of this name in `conf/` has the same text at the same place, or if
the user has typed it for this place. Other texts are words or names that `Settings` checks.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from ..analysis.agreement import KEYS, agreement, most_wrong
from ..artifacts.jobs import FinishedJob, find_jobs
from ..artifacts.layout import TOP_FIVE
from ..artifacts.record import JobRecord
from ..config.attack_file import crafted_settings
from ..config.catalogue import files
from ..config.errors import explain
from ..config.resolvers import CONF
from ..config.settings import Settings
from ..run.check_job import check_job
from ..run.job import run_job
from ..run.models import ModelPool
from ..tracking import Tracker
from ..utils import stopping
from ..utils.refusals import printable
from ..utils.vocabulary import CONTROLS
from .transfer import quiet

_PLAIN = "source targets ensemble defences source_defence source_draws epsilon protocol seed"
_PLAIN += " n_images dataset model defence"
_ARITHMETIC = "precision attack_precision fold_batch_norms"
_FOLLOWING = "attack source targets defences norm budgets reference protocol layer dataset seed"
_FOLLOWING += " precision backward_rule iterative values class_names weights"
_CLEAN = {"kind": "none", "name": "none", "label": "clean images"}
_LISTED = re.compile(r"attack\.(norm|target_label)|model\.[^.]+\.channels")  # see `Settings`


def verify(card: Path, words: list[str], images: int, jobs: int, seed: int, minutes: float) -> int:
    """Print what a sample of a card's outcomes shows, and return the exit code.

    Args:
        card: The card.
        words: Texts that the user has typed for places in the settings, `KEY=TEXT`; they replace
            the card's.
        images: Number of images per job, at most.
        jobs: Number of jobs, at most.
        seed: Seed of the sample.
        minutes: Time limit.
    """
    if wrong_word := next((word for word in words if "=" not in word), None):
        raise ValueError(f"{wrong_word}: type KEY=TEXT.")
    stopping.stop_after(60 * minutes)
    draw, finished, pool = np.random.default_rng(seed), find_jobs([card]), ModelPool()
    sample = [finished[number] for number in draw.permutation(len(finished))[:jobs]]
    print(f"{card}: {len(sample)} of {len(finished)} jobs, sampled with --seed {seed}", flush=True)
    typed, pool.sets.download = dict(word.split("=", 1) for word in words), False
    # all but the first, which is the attack
    values = (_values(part, f"{at}.") for job in sample for at, _, part in _parts(job.record)[1:])
    if strange := sorted({*typed} - {place for each in values for place, *_ in each}):
        raise ValueError(f"{strange[0]!r}: no data set, model or defence of a sampled job has it.")
    results, total, tests = list[str](), np.zeros(3), len(sample) + 1
    for job in sample:
        try:
            positions = np.sort(draw.permutation(job.record.images)[:images])
            with quiet(), TemporaryDirectory() as empty:
                settings = _settings(job.record, typed) | {"cache": {"dir": f"{empty}/cache"}}
                counts, unlike = _compare(job, settings, positions.tolist(), pool, Path(empty))
            total, (result, text) = total + counts, _judge(counts, tests, unlike)
        except stopping.OutOfTime:
            print(f"The time is up: {len(results)} of the {len(sample)} jobs were looked at.")
            break
        except Exception as error:  # a hostile card's settings may raise anything
            result, text = "not checked", explain(error)
        results.append(result)
        # The card's words begin no line: they could read like a result of this program.
        line = f"{result}: {job.attack[:99]} {job.record.source[:99]}: {text[:999]}"
        print(printable(" ".join(line.split())), flush=True)
    result, text = _judge(total, tests)
    if unseen := results.count("not checked"):
        text += f"; {unseen} of {len(results)} jobs not checked"
    print(f"{result}: {text}" if total[1] else "No outcome was recomputed.")
    differs, done = "differs" in (*results, result), total[1] and len(results) == len(sample)
    return 1 if differs else 0 if done else 2


def _judge(counts: Any, tests: int, unlike: str = "") -> tuple[str, str]:
    """Return `differs` or `agrees`, and why; for `counts` see `agreement`."""
    wrong, outcomes, honest = counts
    most = most_wrong(honest, tests)
    text = f"{wrong:,.0f} of {outcomes:,.0f} outcomes differ; rounding explains up to {most:,}"
    return "differs" if unlike or wrong > most else "agrees", unlike or text


def _compare(
    job: FinishedJob, settings: Any, positions: list[int], pool: ModelPool, empty: Path
) -> tuple[Any, str]:
    """Compare a job with its images at some positions, computed again for each storage format.

    Return the counts of `agreement`, and what else differs: facts that follow from the settings.
    """
    record, variants, counts = job.record, job.variants(), np.zeros(3)
    data = pool.sets.open(Settings.model_validate(settings, strict=False), "test")
    if (data.digest(), len(data)) != (record.data, record.images):
        return counts, "images"
    listed, sample = empty / "images.csv", data.listed().iloc[positions]
    sample.to_csv(listed, index=False, columns=["index", "label"])
    settings |= {"dataset": settings["dataset"] | {"images": str(listed)}, "n_images": None}
    # A job's files have the five likeliest classes of the images that its report shows.
    settings |= {"report": {"name": "none", "examples": 0, "images": sample["index"].tolist()}}
    for number, name in enumerate(variants.keys() - CONTROLS):
        settings["storage"] = name if record.attack else None
        planned = check_job(Settings.model_validate(settings, strict=False), pool.sets)
        run_job(planned, pool, Tracker(), folder := empty / str(number))  # a name may be a path
        (computed,) = find_jobs([folder])
        here, top = computed.record, computed.table(TOP_FIVE)
        unlike = [key for key in _FOLLOWING.split() if getattr(here, key) != getattr(record, key)]
        unlike += ["label"] * (here.label.split()[:1] != record.label.split()[:1])
        if unlike:
            return counts, f"{', '.join(unlike)}, from the settings"
        rows = computed.defended.merge(top[[*KEYS, "top5_classes", "top5_confidences"]], on=KEYS)
        rows = rows.merge(variants[name][KEYS[:2]].drop_duplicates())  # it may have fewer models
        exact, other_device = record.arithmetic == "float32", record.device != here.device
        counts += agreement(variants[name], rows, record.values, exact, other_device)
    return counts, ""


def _settings(record: JobRecord, typed: dict[str, str]) -> dict[str, Any]:
    """Return a job's settings, without those that decide no outcome.

    A text is the user's, or it must be that of the program's file. A file of weights in the package
    has the same name on all machines.

    Raises:
        ValueError: A text is neither in `conf/` nor typed, or weights are missing.
    """
    config, attack = record.config, record.config["attack"]["settings"]
    unknown = ["attack.path"] * (config["attack"]["kind"] == "saved")  # images in files
    for start, name, part in _parts(record):
        path = files(start.partition(".")[0], [CONF]).get(name)
        texts = _of_file(path, f"{start}.") if path else {}
        for place, section, key in _values(part, f"{start}."):
            value, trusted = section[key], texts.get(place)
            is_text = isinstance(value, str | list) and not _LISTED.fullmatch(place)
            if place in typed and start != "attack":  # which may depend on its batches
                section[key] = typed[place]
            elif key == "weights" and str(trusted).endswith(f"/{PureWindowsPath(str(value)).name}"):
                section[key] = trusted
            elif (is_text and value != trusted) or (value is None and place == f"{start}.weights"):
                unknown.append(place if re.fullmatch(r"[\w.-]+", place, re.A) else "strange keys")
    if unknown:
        way = "For images, models and defences, type KEY=TEXT if you trust what it names"
        raise ValueError(f"conf/ has other texts for {', '.join(unknown)}. {way}")
    return {
        **{key: config[key] for key in _PLAIN.split()},
        "attack": crafted_settings(record.attack, attack) if record.attack else _CLEAN,
        "trainer": {key: config["trainer"][key] for key in _ARITHMETIC.split()},
        "training": {key: config["training"][key] for key in ("crop_padding", "flip")},  # of fits
        "clean_accuracy_check": {"tolerance": 1.0, "action": "warn"},
    }


def _parts(record: JobRecord) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the place, name and settings of a job's attack, data set, models and defences."""
    parts = [("attack", record.attack, record.config["attack"]["settings"])]
    parts += [("dataset", record.dataset, record.config["dataset"])]
    for group in ("model", "defence"):
        parts += [(f"{group}.{name}", name, part) for name, part in record.config[group].items()]
    return parts


def _of_file(path: Path, place: str) -> dict[str, Any]:
    """Return the values by place in a file of `conf/` and the files that it includes."""
    content, stated = yaml.safe_load(path.read_bytes()), dict[str, Any]()
    for base in {*content.get("defaults", ())} - {"_self_"}:
        stated |= _of_file(path.with_stem(base.partition("@")[0]), place)
    return stated | {at: section[key] for at, section, key in _values(content, place)}


def _values(section: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the place of each value, the dictionary that has it, and its key, recursively."""
    for key, value in section.items():
        yield f"{place}{key}", section, key
        if isinstance(value, dict):
            yield from _values(value, f"{place}{key}.")
