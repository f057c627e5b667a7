"""What was run: the command, the data, the models, the versions; and what was not computed."""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from src.report.stored import StoredJob

_OWN = ("sweep",)  # words that the program itself adds to the command
_TABLES = {
    "flips": ("minimum budgets between those of the grid", "diagnostics.bisection=6"),
    "spectra": ("power spectra", "diagnostics.spectra=true"),
    "filtered": ("filtered perturbations", "diagnostics.filters=true"),
    "low_passed": ("accuracy on low-passed images", "diagnostics.filters=true"),
    "similarity": ("gradient similarity", "diagnostics.similarity=true"),
    "predictions-noise": ("controls", "controls=true"),
}


def facts(jobs: Sequence[StoredJob]) -> tuple[tuple[str, str], ...]:
    """Return (term, value) pairs that say what the jobs were."""
    records = [job.record for job in jobs]
    found: list[tuple[str, str]] = [("command", command) for command in _commands(jobs)]
    found += [
        ("data", "; ".join(_each(_data(job) for job in jobs))),
        ("attacks", "; ".join(_each(_attack(job) for job in jobs if job.attacked))),
        (
            "budgets",
            "; ".join(_each(_budgets(job) for job in jobs if job.attacked)),
        ),
    ]
    found += sorted({("model", line) for job in jobs for line in _models(job)})
    found += [
        ("images counted", "; ".join(_each(record.protocol for record in records))),
        ("seed", ", ".join(_each(str(record.seed) for record in records))),
        (
            "precision and device",
            "; ".join(_each(f"{r.precision} on {r.device}" for r in records)),
        ),
        ("finished", _span([record.created for record in records])),
        ("code", ", ".join(_each(f"commit {record.commit}" for record in records))),
        (
            "versions",
            "; ".join(
                _each(
                    ", ".join(f"{name} {number}" for name, number in (r.versions or {}).items())
                    for r in records
                )
            ),
        ),
    ]
    return tuple((term, value) for term, value in found if value)


def missing(jobs: Sequence[StoredJob], pairs: int) -> tuple[tuple[str, str], ...]:
    """Return what jobs did not compute, with how many did not and the setting that has it.

    Args:
        jobs: Jobs that attacked.
        pairs: How many pairs at most are told in detail.
    """
    total, every = len(jobs), sum(len(job.record.targets) for job in jobs)
    found = [
        (what, f"not computed by {count} of {total} jobs; {key}")
        for name, (what, key) in _TABLES.items()
        if (count := sum(name not in job.files for job in jobs))
    ]
    if count := sum(not job.has_clean for job in jobs):
        found.append(
            ("clean predictions", f"{count} of {total} jobs have none: rates of all images alone")
        )
    if every > pairs:
        words = f"those of {pairs} of {every} pairs, white boxes first; report.pairs={every}"
        found.append(("bins of initial confidence and galleries", words))
    if any(job.record.storage != "float32" for job in jobs):
        found.append(
            (
                "8-bit predictions",
                "bisection and filters do not round: minimum budgets are those of the grid, and "
                "filtered perturbations are unrounded",
            )
        )
    return tuple(found)


def _commands(jobs: Sequence[StoredJob]) -> list[str]:
    """Return the command of every sweep, with swept keys listed by commas."""
    sweeps: dict[object, list[StoredJob]] = {}
    for job in jobs:
        sweeps.setdefault((job.record.config.get("sweep"), job.folder.parent), []).append(job)
    return [command for own in sweeps.values() for command in _of_sweep(own)]


def _of_sweep(jobs: Sequence[StoredJob]) -> list[str]:
    """Return one command that stands for these jobs; where none does, one for each."""
    start = "python -m src.main"
    words = [[w for w in job.record.overrides if w.split("=")[0] not in _OWN] for job in jobs]
    flags = jobs[0].record.flags
    values: dict[str, list[str]] = {}
    for word in (word for one in words for word in one):
        key, _, value = word.partition("=")
        if value not in values.setdefault(key, []):
            values[key].append(value)
    swept = any(len(value) > 1 for value in values.values())
    if math.prod(map(len, values.values())) == len(jobs):
        listed = [f"{key}={','.join(value)}" for key, value in values.items()]
        return [" ".join([start, *(["-m"] if swept else []), *flags, *map(shlex.quote, listed)])]
    return [" ".join([start, *flags, *map(shlex.quote, one)]) for one in words]


def _data(job: StoredJob) -> str:
    record = job.record
    size = record.config["dataset"].get("image_size")
    pixels = f" of {size} x {size} pixels" if size else ""
    return (
        f"{record.dataset}: {record.images} images{pixels}, {len(record.class_names)} classes, "
        f"digest {record.data}"
    )


def _attack(job: StoredJob) -> str:
    settings = job.record.config["attack"]
    words = [
        f"{key}={value}"
        for key, value in settings.items()
        if key not in ("name", "_target_", "label", "kind") and value is not None
    ]
    return f"{job.record.attack} ({', '.join(words)})" if words else job.record.attack


def _budgets(job: StoredJob) -> str:
    grid = ", ".join(f"{eps:g}" for eps in job.record.budgets)
    return f"{grid} (in 1/255, {job.record.norm}); reference budget {job.record.reference:g}/255"


def _models(job: StoredJob) -> list[str]:
    models = job.record.config["model"]
    lines = []
    for name, digest in job.record.weights.items():
        settings = models.get(name)
        if settings is None:
            continue  # an ensemble: its members are listed
        network = settings["network"]
        what = network.get("model_name") or network.get("name") or network.get("_target_")
        size = settings.get("input_size")
        resized = f", resized to {size} pixels inside" if size else ""
        weights = settings.get("weights") or "trained here"
        lines.append(f"{name}: {what}{resized}; weights {weights}, digest {digest}")
    return lines


def _each(values: Iterable[str]) -> list[str]:
    """Return every value once, in order."""
    return list(Counter(values))


def _span(times: Sequence[str]) -> str:
    known = sorted(time for time in times if time)
    if not known:
        return ""
    return known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"
