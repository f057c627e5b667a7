"""Small tables of all jobs: each job's predictions are read, counted and let go in turn."""

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
from src.analysis.matrix import measure_of, words_of
from src.analysis.rates import confidence_bands
from src.analysis.similarity import pair_similarity
from src.analysis.trajectories import trajectories
from src.record import ALARMS, HEADLINE
from src.report.galleries import chosen
from src.report.images import Album, examples, galleries
from src.report.stored import StoredJob

_RATE = ["k", "n", "rate", "rate_low", "rate_high"]


@dataclass
class Measured:
    """What the report tells.

    Attributes:
        tables: Rows of all jobs by the names of `_PARTS`, and `effects`, `bins` and `shown`
            (predictions for the images of the galleries), with `attack` and `source`. One that
            no job has is missing.
        clean: Rows of the clean images with the top five, by model.
        albums: Pictures by the job or pair that they are of.
        alarms: (name, finding) of every job.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    clean: dict[str, pd.DataFrame] = field(default_factory=dict)
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
        budgets: At which example images are shown; None chooses.
        progress: Told which job is being read.
    """
    told = _told(jobs, most)
    parts: dict[str, list[pd.DataFrame]] = {}
    found = Measured()
    digests: dict[str, str] = {}
    for number, job in enumerate(jobs, 1):
        progress(f"job {number} of {len(jobs)}")
        for model, rows in _clean(job, digests).items():
            found.clean.setdefault(model, rows)
        found.alarms += [one for one in _alarms(job) if one not in found.alarms]
        if job.attacked:
            tables = {name: part(job) for name, part in _PARTS.items()}
            if job.has_clean:
                tables |= _images(job, [pair[1] for pair in told if pair[0] is job], found)
            for name, table in tables.items():
                if table is not None and len(table):
                    names = {"attack": job.attack, "source": job.record.source}
                    named = table.assign(**{k: v for k, v in names.items() if k not in table})
                    parts.setdefault(name, []).append(named)
            if any(pair[0] is job for pair in told) and (album := examples(job, budgets)):
                found.albums.append((f"Examples: {job.attack} from {job.record.source}", (album,)))
        job.forget()
    found.tables = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    if "rates" in found.tables:  # a model's clean images stand in every job
        keys = ["attack", "protocol", "source", "target", "eps_255"]
        found.tables["rates"] = found.tables["rates"].drop_duplicates(keys, ignore_index=True)
    return found


def group_of(job: StoredJob) -> str:
    """Name the jobs that can be compared: same images, norm, reference budget and protocol."""
    record = job.record
    data = f"{record.dataset} ({record.data[:6]})"
    return f"{data}, {record.norm}, {record.standard:g}/255, {record.protocol}"


def model_name(model: str, digest: str, digests: dict[str, str]) -> str:
    """Return a model's name, with its digest where another of that name came before it."""
    return model if digests.setdefault(model, digest) == digest else f"{model} ({digest[:6]})"


def _told(jobs: Sequence[StoredJob], most: int) -> list[tuple[StoredJob, str]]:
    """Return the pairs to tell in detail; where they are too many, the white boxes first."""
    every = [(job, target) for job in jobs if job.has_clean for target in job.record.targets]
    every = [pair for pair in every if pair[0].attacked]
    ranked = sorted(every, key=lambda pair: not is_white_box(pair[0].record.source, pair[1]))
    kept = {(id(job), target) for job, target in ranked[:most]}
    return [(job, target) for job, target in every if (id(job), target) in kept]


def _clean(job: StoredJob, digests: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Return every model's rows on clean images, with the top five."""
    rows = job.clean
    return {
        model_name(str(model), job.record.weights.get(str(model), ""), digests): its
        for model, its in rows.groupby(rows["target"].astype(str), sort=False)
    }


def _alarms(job: StoredJob) -> list[tuple[str, str]]:
    """Return the alarms that the job left; of tables alone, those that they can raise."""
    left = job.folder / ALARMS
    if left.exists():
        return [(alarm["name"], alarm["finding"]) for alarm in json.loads(left.read_text())]
    record = job.record
    if not (job.attacked and job.has_clean):
        return []
    raised = alarms(
        job.predictions,
        record.source,
        record.targets,
        len(record.class_names),
        zero_gradients=0.0,  # not told by tables
        gradient_evaluations=0,
        protocol=record.protocol,
        iterative=record.iterative,
    )
    return [(alarm.name, alarm.finding) for alarm in raised]


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
        counted=words_of(measure, targeted).counted,
        sign=1 if measure == "success_rate" else -1,
        white_box=[is_white_box(a, b) for a, b in zip(source, together["target"], strict=True)],
    )


def _renamed(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Call a count, its denominator, their ratio and its interval as `_RATE` does."""
    return table.drop(columns="n").rename(columns=dict(zip(columns, _RATE, strict=True)))


def _variants(job: StoredJob) -> pd.DataFrame | None:
    """Return success rates at the reference budget of every storage and control, if several."""
    record = job.record
    every = [name.removeprefix(f"{HEADLINE}-") for name in job.files]
    others = [name for name in every if f"{HEADLINE}-{name}" in job.files]
    names = sorted(others, key=lambda name: name in CONTROL_NAMES)
    if not names or not job.has_clean:
        return None
    clean = job.predictions[job.predictions["eps_255"] == 0]
    parts = []
    for name in ["", *names]:
        rows = job.table(f"{HEADLINE}-{name}") if name else job.predictions
        rows = pd.concat([clean, rows[rows["eps_255"] == record.standard]])
        table = rates(rows, record.source, record.targets, record.protocol)
        table = table[table["eps_255"] == record.standard]
        called = CONTROL_NAMES.get(name, name) or str(record.config.get("storage", "float32"))
        parts.append(table.assign(variant=called))
    columns = ["success", "denominator", "success_rate", "success_rate_low", "success_rate_high"]
    return _renamed(pd.concat(parts), columns)[["target", "variant", *_RATE]]


def _excess(job: StoredJob) -> pd.DataFrame | None:
    """Return what the attack achieves beyond each control at the reference budget."""
    record = job.record
    controls = [name for name in CONTROL_NAMES if f"{HEADLINE}-{name}" in job.files]
    if not controls or not job.has_clean:
        return None
    tables = []
    for name in controls:
        control = job.table(f"{HEADLINE}-{name}")
        table = excess(job.predictions, control, record.source, record.targets, record.protocol)
        tables.append(
            table[table["eps_255"] == record.standard].assign(control=CONTROL_NAMES[name])
        )
    return pd.concat(tables)


def _outcomes(job: StoredJob) -> pd.DataFrame | None:
    record = job.record
    if not job.has_clean:
        return None
    return image_outcomes(
        job.predictions, record.source, record.targets, record.standard, record.protocol
    ).assign(group=group_of(job))


def _areas(job: StoredJob) -> pd.DataFrame | None:
    record = job.record
    if not job.has_clean:
        return None
    return curve_areas(job.predictions, record.source, record.targets, record.protocol)


def _spectra(job: StoredJob) -> pd.DataFrame | None:
    return job.table("spectra") if "spectra" in job.files else None


def _filtered(job: StoredJob) -> pd.DataFrame | None:
    record = job.record
    if "filtered" not in job.files:
        return None
    table = job.table("filtered")
    return filtered_rates(table, job.predictions, record.source, record.targets, record.protocol)


def _low_passed(job: StoredJob) -> pd.DataFrame | None:
    if "low_passed" not in job.files:
        return None
    clean = job.predictions[job.predictions["eps_255"] == 0]
    table = low_pass_accuracy(job.table("low_passed"), clean)
    return table.assign(digest=[job.record.weights.get(one, "") for one in table["target"]])


def _similarity(job: StoredJob) -> pd.DataFrame | None:
    record = job.record
    if "similarity" not in job.files:
        return None
    return pair_similarity(
        job.predictions,
        job.table("similarity"),
        record.source,
        record.targets,
        record.standard,
        record.protocol,
    )


_PARTS: dict[str, Callable[[StoredJob], pd.DataFrame | None]] = {
    "rates": _rates,
    "variants": _variants,
    "excess": _excess,
    "outcomes": _outcomes,
    "areas": _areas,
    "spectra": _spectra,
    "filtered": _filtered,
    "low_passed": _low_passed,
    "similarity": _similarity,
}


def _images(
    job: StoredJob, targets: Sequence[str], found: Measured
) -> dict[str, pd.DataFrame | None]:
    """Return what single images tell: of all targets the effect of confidence, of some more."""
    record, rows = job.record, job.predictions
    table = trajectories(
        rows, record.source, record.targets, record.protocol, job.flips, record.norm
    )
    bins, shown = [], []
    for target in targets:
        its = table[table["target"] == target].reset_index(drop=True)
        by_bin = by_initial_confidence(rows, record.source, target, record.protocol)
        bins.append(by_bin.assign(target=target))
        for kind, images in chosen(its).items():
            here = rows[(rows["target"] == target) & rows["index"].isin(images["index"])]
            shown.append(here.assign(kind=kind))
        albums = tuple(galleries(job, target, its))
        if albums:
            name = f"{job.attack}: {record.source} → {target}"
            found.albums.append((name, albums))
    return {
        "effects": initial_confidence_effect(table),
        "bins": pd.concat(bins) if bins else None,
        "shown": pd.concat(shown) if shown else None,
    }
