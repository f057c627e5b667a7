"""Statistics that the page alone shows: each job's predictions are read and released in turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan

import pandas as pd

from src.analysis import is_white_box, measured, relation
from src.analysis.confidence import by_initial_confidence
from src.analysis.frequency import filtered_rates, low_pass_accuracy
from src.analysis.hypothesis import initial_confidence_effect
from src.analysis.similarity import pair_similarity
from src.analysis.summary import JobSummary, Summary, described_images
from src.analysis.trajectories import KINDS, galleries
from src.report.images import Album, examples, gallery_albums
from src.store.jobs import StoredJob, model_digest
from src.utils.defended import PLAIN, defended, parted


@dataclass
class Measured:
    """The numbers and pictures of a report.

    Attributes:
        tables: Rows of all jobs, with `attack` and `source`: `rates`, those `behind_defences`,
            `excess`, `outcomes`, `effects`, `bins`, `gallery_predictions`, `spectra`, `filtered`,
            `low_passed`, `similarity`. One that no job has is missing.
        clean: Rows of the clean images with the top five, by data set and model.
        albums: Pictures by job or pair.
        alarms: (name, finding) of every job, each once.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    clean: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    albums: list[tuple[str, tuple[Album, ...]]] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table; empty if no job has it."""
        return self.tables.get(name, pd.DataFrame())


def measure(summary: Summary, most: int = 0) -> Measured:
    """Add what the page alone shows to the summary of jobs, one job after another.

    At most `most` pairs, white boxes first, have bins of initial confidence and pictures.
    """
    detailed = _detailed_pairs(summary, most)
    parts: dict[str, list[pd.DataFrame]] = {}
    found = Measured()
    names: dict[str, str] = {}
    alarms: dict[tuple[str, str], None] = {}
    for one in summary.jobs:
        job = one.job
        _add_clean(job, names, found)
        alarms |= dict.fromkeys(one.alarms)
        if job.attacked:
            mine = [target for owner, target in detailed if owner is job]
            tables = _tables(one, names) | _images(job, mine, found)
            if mine and (album := examples(job)):
                found.albums.append((f"Examples: {job.attack} from {job.record.source}", (album,)))
            origin = {"attack": job.attack, "source": job.record.source}
            for name, table in tables.items():
                lacking = {key: value for key, value in origin.items() if key not in table}
                parts.setdefault(name, []).append(table.assign(**lacking))
        job.forget()
    found.alarms = list(alarms)
    found.tables = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return found


def _detailed_pairs(summary: Summary, most: int) -> list[tuple[StoredJob, str]]:
    """Return the pairs with bins and pictures; where they are too many, the white boxes first."""
    jobs = [one.job for one in summary.attacked]
    every = [(job, target) for job in jobs for target in job.record.targets]
    return sorted(every, key=lambda pair: not is_white_box(pair[0].record.source, pair[1]))[:most]


def _model(job: StoredJob, name: str, names: dict[str, str]) -> str:
    """Return a model's name, distinct from that of another model or other data."""
    record, (model, defence) = job.record, parted(name)
    digest = model_digest(record, model)
    known = names.setdefault(model, f"{record.data}{digest}")
    other = f"{model} ({record.dataset} {record.data[:6]} {digest[:6]})"
    return defended(model if known == f"{record.data}{digest}" else other, defence)


def _add_clean(job: StoredJob, names: dict[str, str], found: Measured) -> None:
    """Collect every model's rows on clean images, with the names of the classes."""
    classes = job.record.class_names
    mine = found.clean.setdefault(f"{job.record.dataset} ({job.record.data[:6]})", {})
    behind = () if job.attacked else job.record.evaluated
    named = {name: _model(job, name, names) for name in (*job.record.weights, *behind)}
    if mine.keys() >= set(named.values()):
        return
    for target, its in job.clean.groupby(job.clean["target"].astype(str), sort=False):
        name = named[str(target)]
        if name not in mine:
            mine[name] = its.assign(name=[classes[int(label)] for label in its["label"]])


def _tables(one: JobSummary, names: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Return the statistics of a job's tables, except those of single images."""
    job, record, rows = one.job, one.job.record, one.job.predictions
    pair, at, protocol = (record.source, record.targets), record.reference, record.protocol
    rates = _rates(one).assign(group=one.group)
    plain = rates["defence"] == PLAIN
    found = {"rates": rates[plain]}
    if not plain.all():
        found["behind_defences"] = rates[~plain]
    stored = {
        name: table
        for name in ("spectra", "low_passed", "filtered", "similarity")
        if name in job.files and len(table := job.table(name))
    }
    if "spectra" in stored:
        found["spectra"] = stored["spectra"]
    if "low_passed" in stored:
        table = low_pass_accuracy(stored["low_passed"], rows[rows["eps_255"] == 0])
        own = [_model(job, str(target), names) for target in table["target"]]
        found["low_passed"] = table.assign(target=own)
    found["outcomes"] = one.outcomes.assign(group=one.group)
    if "filtered" in stored:
        found["filtered"] = filtered_rates(stored["filtered"], rows, *pair, protocol)
    if "similarity" in stored:
        found["similarity"] = pair_similarity(rows, stored["similarity"], *pair, at, protocol)
    if len(one.excess):
        found["excess"] = one.excess[one.excess["eps_255"] == at]
    return found


def primary_rates(jobs: Sequence[JobSummary]) -> pd.DataFrame:
    """Return the rates of jobs' primary variants, as the charts of matrix and curves draw them."""
    rates = pd.concat([_rates(one) for one in jobs], ignore_index=True)
    return rates[rates["primary"]]


def _rates(one: JobSummary) -> pd.DataFrame:
    """Return the rates of every variant, with what charts tell rows apart by."""
    record, table = one.job.record, measured(one.rates)
    return table.assign(
        target=[parted(target)[0] for target in table["target"]],
        primary=table["variant"] == record.storage,
        reference=(table["protocol"] == record.protocol) & (table["eps_255"] == record.reference),
        relation=[relation(record.source, target) for target in table["target"]],
        gradients_per_image=one.cost.get("gradients_per_image", nan),
        forwards_per_image=one.cost.get("forwards_per_image", nan),
    )


def _images(job: StoredJob, targets: Sequence[str], found: Measured) -> dict[str, pd.DataFrame]:
    """Return the effect of confidence for all targets, bins and galleries for some."""
    record, rows = job.record, job.predictions
    table = described_images(job)
    tables = {"effects": initial_confidence_effect(table)}
    if not targets:
        return tables
    tables["bins"] = by_initial_confidence(rows, record.source, targets, record.protocol)
    chosen = galleries(table[table["target"].isin(targets)])
    chosen = pd.concat([chosen[chosen["target"] == target] for target in targets])
    top = job.top_five(chosen["index"].unique().tolist())
    places = ["target", "index"]
    tables["gallery_predictions"] = _with_names(
        job, chosen[[*places, "kind"]].merge(rows, on=places)
    )
    for target in targets:
        its = [each[each["target"] == target] for each in (table, chosen, top)]
        if albums := tuple(gallery_albums(job, *its)):
            found.albums.append(
                (f"{job.attack}: {record.source} \N{RIGHTWARDS ARROW} {target}", albums)
            )
    return tables


def _with_names(job: StoredJob, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions for the images of galleries, with the names of classes."""
    names = job.record.class_names
    pairs = zip(rows["index"], rows["label"], strict=True)
    return rows[["target", "eps_255", "confidence", "true_confidence"]].assign(
        kind=rows["kind"].map(KINDS),
        image=[f"{index}, {names[label]}" for index, label in pairs],
        predicted_name=[names[label] for label in rows["predicted"]],
        outcome=(rows["predicted"] == rows["label"]).map({True: "correct", False: "wrong"}),
    )
