"""Small tables of all jobs: each job's predictions are read, counted and released in turn."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from src.analysis import (
    CLEAN,
    CONTROL_NAMES,
    MEASURES,
    alarms,
    excess,
    is_white_box,
    matrix,
    rates,
    rates_by_protocol,
)
from src.analysis.areas import curve_areas
from src.analysis.comparisons import image_outcomes
from src.analysis.confidence import by_initial_confidence
from src.analysis.frequency import filtered_rates, low_pass_accuracy
from src.analysis.hypothesis import initial_confidence_effect
from src.analysis.matrices import measure_of, words_of
from src.analysis.similarity import pair_similarity
from src.analysis.trajectories import KINDS, galleries, trajectories
from src.analysis.transfer_rates import confidence_bands
from src.experiment.provenance import ALARMS, PREDICTIONS, JobRecord
from src.report.images import Album, examples, gallery_albums
from src.report.stored import StoredJob

_RATE = ["k", "n", "rate", "rate_low", "rate_high"]


@dataclass
class Measured:
    """The numbers and pictures of a report.

    Attributes:
        tables: Rows of all jobs, with `attack` and `source`: `rates`, `variants`, `excess`,
            `outcomes`, `areas`, `effects`, `bins`, `gallery_predictions`, `spectra`, `filtered`,
            `low_passed`, `similarity`. One that no job has is missing.
        clean: Rows of the clean images with the top five, by data set and model.
        albums: Pictures by job or pair.
        alarms: (name, finding) of every job.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    clean: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    albums: list[tuple[str, tuple[Album, ...]]] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table; empty if no job has it."""
        return self.tables.get(name, pd.DataFrame())


def measure(
    jobs: Sequence[StoredJob],
    most: int,
    budgets: Sequence[float] | None,
    progress: Callable[[str], None],
) -> Measured:
    """Read the jobs one after another.

    Args:
        jobs: Finished jobs.
        most: How many pairs have bins of initial confidence and pictures, white boxes first.
        budgets: Of the example images; None chooses.
        progress: Called with each step.
    """
    detailed = _detailed_pairs(jobs, most)
    parts: dict[str, list[pd.DataFrame]] = {}
    found = Measured()
    names: dict[str, str] = {}
    for number, job in enumerate(jobs, 1):
        progress(f"job {number} of {len(jobs)}")
        _add_clean(job, names, found)
        found.alarms += [one for one in _alarms(job) if one not in found.alarms]
        if job.attacked:
            mine = [target for owner, target in detailed if owner is job]
            tables = _tables(job) | (_images(job, mine, found) if job.has_clean else {})
            if mine and (album := examples(job, budgets)):
                found.albums.append((f"Examples: {job.attack} from {job.record.source}", (album,)))
            for name, table in tables.items():
                parts.setdefault(name, []).append(_named(job, table, names))
        job.forget()
    found.tables = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    if "rates" in found.tables:  # a model's clean images stand in every job
        keys = ["attack", "protocol", "source", "target", "eps_255"]
        found.tables["rates"] = found.tables["rates"].drop_duplicates(keys, ignore_index=True)
    return found


def _detailed_pairs(jobs: Sequence[StoredJob], most: int) -> list[tuple[StoredJob, str]]:
    """Return the pairs with bins and pictures; where they are too many, the white boxes first."""
    every = [(job, target) for job in jobs if job.attacked for target in job.record.targets]
    return sorted(every, key=lambda pair: not is_white_box(pair[0].record.source, pair[1]))[:most]


def _named(job: StoredJob, table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Add attack and source to a job's rows."""
    columns = {"attack": job.attack, "source": job.record.source}
    named = table.assign(**{key: value for key, value in columns.items() if key not in table})
    if "cutoff" in table:  # does not depend on the attack
        named["model"] = [_model(job, str(target), names) for target in table["target"]]
    return named


def _model(job: StoredJob, name: str, names: dict[str, str]) -> str:
    """Return a model's name, distinct from that of other weights or other data."""
    record = job.record
    digest = record.weights.get(name, "")
    known = names.setdefault(name, f"{record.data}{digest}")
    return name if known == f"{record.data}{digest}" else f"{name} ({record.dataset} {digest[:6]})"


def _add_clean(job: StoredJob, names: dict[str, str], found: Measured) -> None:
    """Collect every model's rows on clean images, with the names of the classes."""
    rows = job.clean
    classes = job.record.class_names
    mine = found.clean.setdefault(f"{job.record.dataset} ({job.record.data[:6]})", {})
    for target, its in rows.groupby(rows["target"].astype(str), sort=False):
        name = _model(job, str(target), names)
        if name not in mine:
            mine[name] = its.assign(name=[classes[int(label)] for label in its["label"]])


def _alarms(job: StoredJob) -> list[tuple[str, str]]:
    """Return the alarms that the job left; without its file, those that the tables can raise."""
    left = job.folder / ALARMS
    if left.exists():
        listed = json.loads(left.read_text(encoding="utf-8"))
        return [(alarm["name"], alarm["finding"]) for alarm in listed]
    record = job.record
    if not (job.attacked and job.has_clean):
        return []
    raised = alarms(
        job.predictions,
        record.source,
        record.targets,
        len(record.class_names),
        zero_gradients=0.0,  # not in the tables
        gradient_evaluations=0,
        protocol=record.protocol,
        iterative=record.iterative,
    )
    return [(alarm.name, alarm.finding) for alarm in raised]


def group(record: JobRecord) -> str:
    """Name the jobs that can be compared: same images, norm, reference budget and protocol."""
    return f"{record.data} {record.norm} {record.reference:g} {record.protocol}"


def _tables(job: StoredJob) -> dict[str, pd.DataFrame]:
    """Return the statistics of a job's tables, except those of single images."""
    record, rows = job.record, job.predictions
    pair, at, protocol = (record.source, record.targets), record.reference, record.protocol
    found = {"rates": _rates(job)}
    names = ("spectra", "low_passed", "filtered", "similarity")
    tables = {name: job.table(name) for name in names if name in job.files}
    tables = {name: table for name, table in tables.items() if len(table)}
    if "spectra" in tables:
        found["spectra"] = tables["spectra"]
    if "low_passed" in tables:
        found["low_passed"] = low_pass_accuracy(tables["low_passed"], rows[rows["eps_255"] == 0])
    if not job.has_clean:
        return found
    found["outcomes"] = image_outcomes(rows, *pair, at, protocol).assign(group=group(record))
    found["areas"] = curve_areas(rows, *pair, protocol)
    if "filtered" in tables:
        found["filtered"] = filtered_rates(tables["filtered"], rows, *pair, protocol)
    if "similarity" in tables:
        found["similarity"] = pair_similarity(rows, tables["similarity"], *pair, at, protocol)
    prefix = f"{PREDICTIONS}-"
    others = [name.removeprefix(prefix) for name in job.files if name.startswith(prefix)]
    if others:
        found["variants"] = _variants(job, others)
    if controls := [name for name in CONTROL_NAMES if name in others]:
        found["excess"] = _excess(job, controls)
    return found


def _rates(job: StoredJob) -> pd.DataFrame:
    """Return rates and mean confidence by protocol, target and budget, and of clean images."""
    record = job.record
    pair = (record.source, record.targets)
    every = rates_by_protocol(job.predictions, *pair, job.attack, record.norm)
    own = rates(job.predictions, *pair, record.protocol)
    top = max(own["eps_255"])
    clean = matrix({record.source: own}, top)
    measure = measure_of(clean)
    clean = clean[clean["source"] == CLEAN].assign(protocol=record.protocol, eps_255=0.0)
    bands = confidence_bands(job.predictions, *pair, record.protocol).assign(
        protocol=record.protocol
    )
    keys = ["protocol", "target", "eps_255"]
    limits = bands[[*keys, "confidence_low", "confidence_high"]]
    together = pd.concat([clean, every.merge(limits, on=keys, how="left")], ignore_index=True)
    columns = [MEASURES[measure], "denominator", measure, f"{measure}_low", f"{measure}_high"]
    together = _renamed(together, columns)
    bands_of = ["confidence", "confidence_low", "confidence_high"]
    source = together["source"]
    targeted = bool(own["targeted"].iloc[0])
    return together[["protocol", "source", "target", "eps_255", *_RATE, *bands_of]].assign(
        group=group(record),
        counted=words_of(measure, targeted).counted,
        sign=1 if measure == "success_rate" else -1,
        white_box=[is_white_box(a, b) for a, b in zip(source, together["target"], strict=True)],
    )


def _renamed(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Call a count, its denominator, their ratio and its interval as `_RATE` does."""
    return table.drop(columns="n").rename(columns=dict(zip(columns, _RATE, strict=True)))


def _variants(job: StoredJob, others: Sequence[str]) -> pd.DataFrame:
    """Return success rates at the reference budget, of every storage and control."""
    record = job.record
    clean = job.predictions[job.predictions["eps_255"] == 0]
    tables = {record.storage: job.predictions}
    tables |= {name: job.table(f"{PREDICTIONS}-{name}") for name in others}
    parts = []
    for name in sorted(tables, key=CONTROL_NAMES.__contains__):  # controls last
        rows = tables[name]
        rows = pd.concat([clean, rows[rows["eps_255"] == record.reference]])
        table = rates(rows, record.source, record.targets, record.protocol)
        table = table[table["eps_255"] == record.reference]
        parts.append(table.assign(variant=CONTROL_NAMES.get(name, name)))
    columns = ["success", "denominator", "success_rate", "success_rate_low", "success_rate_high"]
    return _renamed(pd.concat(parts), columns)[["target", "variant", *_RATE]]


def _excess(job: StoredJob, controls: Sequence[str]) -> pd.DataFrame:
    """Return the excess transfer over each control at the reference budget."""
    record = job.record
    parts = []
    for name in controls:
        control = job.table(f"{PREDICTIONS}-{name}")
        table = excess(job.predictions, control, record.source, record.targets, record.protocol)
        parts.append(table[table["eps_255"] == record.reference])
        parts[-1] = parts[-1].assign(control=CONTROL_NAMES[name])
    return pd.concat(parts)


def _images(job: StoredJob, targets: Sequence[str], found: Measured) -> dict[str, pd.DataFrame]:
    """Return the effect of confidence for all targets, bins and galleries for some."""
    record, rows = job.record, job.predictions
    pair = (record.source, record.targets)
    table = trajectories(rows, *pair, record.protocol, job.flips, record.norm)
    parts = {"effects": [initial_confidence_effect(table)]}
    for target in targets:
        its = table[table["target"] == target].reset_index(drop=True)
        bins = by_initial_confidence(rows, record.source, target, record.protocol)
        parts.setdefault("bins", []).append(bins.assign(target=target))
        for kind, images in galleries(its).items():
            here = rows[(rows["target"] == target) & rows["index"].isin(images["index"])]
            parts.setdefault("gallery_predictions", []).append(_with_names(job, here, kind))
        if albums := tuple(gallery_albums(job, target, its)):
            found.albums.append(
                (f"{job.attack}: {record.source} \N{RIGHTWARDS ARROW} {target}", albums)
            )
    return {name: pd.concat(tables) for name, tables in parts.items()}


def _with_names(job: StoredJob, rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the predictions for the images of a gallery, with the names of classes."""
    names = job.record.class_names
    pairs = zip(rows["index"], rows["label"], strict=True)
    return rows[["target", "eps_255", "confidence", "true_confidence"]].assign(
        kind=KINDS[kind],
        image=[f"{index}, {names[label]}" for index, label in pairs],
        predicted_name=[names[label] for label in rows["predicted"]],
        outcome=(rows["predicted"] == rows["label"]).map({True: "correct", False: "wrong"}),
    )
