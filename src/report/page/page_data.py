"""Statistics and pictures that only the page shows; one job at a time is in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

import pandas as pd

from src.analysis import relation
from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.initial_confidence import initial_confidence_effect
from src.analysis.iterations import success_over_iterations
from src.analysis.visibility import mean_visibility
from src.artifacts.jobs import FinishedJob
from src.artifacts.recipe import model_digest
from src.config.sections import ReportSettings
from src.report.diagnostics import CHARTS, own_statistics
from src.report.page.job_blocks import JobBlocks
from src.report.summary import JobSummary, Summary, described_images, drawn_rates
from src.utils.model_names import NO_DEFENCE, TARGET_COLUMNS, ModelRef


@dataclass
class PageData:
    """The numbers and pictures of a report.

    Attributes:
        outcomes: From the `Summary`.
        tables: Rows of all jobs, with `attack` and `source`, by name: `rates`, `behind_defences`
            (rates of defended targets), `excess`, `effects`, `groups`, `spectra`, `filtered`,
            `low_passed`, `similarity`, `visibility`, `iterations`. A table that no job has is
            missing.
        clean: Rows for clean images with the five most likely classes, by data set and model.
        own: Statistics of users' measurements with a chart, by the name of their table.
        blocks: Predictions and pictures of all images, job by job.
        alarms: The (name, finding) pairs of all jobs, without duplicates.
    """

    outcomes: Sequence[ImageOutcomes] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    clean: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    own: dict[str, pd.DataFrame] = field(default_factory=dict)
    blocks: JobBlocks = field(default_factory=JobBlocks)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    @property
    def models(self) -> list[tuple[str, pd.DataFrame]]:
        """The models of all data sets with their rows for clean images."""
        return [(model, rows) for its in self.clean.values() for model, rows in its.items()]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by name, or an empty one if no job has it."""
        return self.tables.get(name, pd.DataFrame())


def compute_page_data(summary: Summary, settings: ReportSettings | None = None) -> PageData:
    """Compute the numbers and pictures of the page from a summary, job by job in order of rank."""
    settings = settings or ReportSettings()
    numbers = PageData(summary.outcomes, blocks=JobBlocks(settings.confidence_groups))
    names: dict[str, str] = {}
    for job_summary in summary.jobs:
        for name in job_summary.job.record.weights:
            _model(job_summary.job, name, names)
    parts: dict[int, dict[str, pd.DataFrame]] = {}
    own: dict[str, list[pd.DataFrame]] = {}
    for number in _by_rank(summary):
        job_summary = summary.jobs[number]
        job = job_summary.job
        _add_clean(job, names, numbers)
        if job.attacked:
            images = described_images(job)
            tables = _tables(job_summary, names)
            tables["effects"] = initial_confidence_effect(images)
            tables["groups"] = numbers.blocks.add(job, images)
            origin = {"attack": job.attack, "source": job.record.source}
            parts[number] = {
                name: table.assign(**{key: origin[key] for key in origin if key not in table})
                for name, table in tables.items()
            }
            for name, rows in own_statistics(job).items():
                own.setdefault(name, []).append(rows.assign(**origin))
        job.forget()
    numbers.own = {name: pd.concat(frames, ignore_index=True) for name, frames in own.items()}
    numbers.alarms = list(
        dict.fromkeys(alarm for job_summary in summary.jobs for alarm in job_summary.alarms)
    )
    for name in dict.fromkeys(name for tables in parts.values() for name in tables):
        frames = [parts[number][name] for number in sorted(parts) if name in parts[number]]
        numbers.tables[name] = pd.concat(frames, ignore_index=True)
    return numbers


def _by_rank(summary: Summary) -> list[int]:
    """Return the positions of the jobs, those with the best-ranked attack and source first."""
    ranked = summary.rankings.iloc[::-1]  # the reference budget comes last and so replaces others
    ranks = {(row["attack"], row["source"]): row["rank"] for _, row in ranked.iterrows()}
    jobs = [(job_summary.job.attack, job_summary.job.record.source) for job_summary in summary.jobs]
    return sorted(range(len(jobs)), key=lambda number: ranks.get(jobs[number], inf))


def _model(job: FinishedJob, name: str, names: dict[str, str]) -> str:
    """Return a name for a model that no other model and no other data set shares."""
    record, digest = job.record, model_digest(job.record, name)
    known = names.setdefault(name, f"{record.data}{digest}")
    other = f"{name} ({record.dataset} {record.data[:6]} {digest[:6]})"
    return name if known == f"{record.data}{digest}" else other


def _add_clean(job: FinishedJob, names: dict[str, str], numbers: PageData) -> None:
    """Add each model's rows for clean images, with class names, to `numbers`."""
    classes = job.record.class_names
    mine = numbers.clean.setdefault(f"{job.record.dataset} ({job.record.data[:6]})", {})
    behind = () if job.attacked else job.record.evaluated
    pairs = dict.fromkeys((*map(ModelRef.parse, job.record.weights), *behind))
    named = {pair: str(replace(pair, members=(_model(job, pair.model, names),))) for pair in pairs}
    if mine.keys() >= set(named.values()):
        return
    for pair, its in job.clean.groupby([*TARGET_COLUMNS], sort=False):
        name = named[ModelRef.parse(*pair)]
        if name not in mine:
            mine[name] = its.assign(name=[classes[int(label)] for label in its["label"]])


def _tables(summary: JobSummary, names: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Compute the statistics of a job's tables, except for single images."""
    job, record, rows = summary.job, summary.job.record, summary.job.predictions
    pair, at, protocol = (record.source, record.targets), record.reference, record.protocol
    rates = drawn_rates(summary).assign(group=summary.group)
    plain = rates["defence"] == NO_DEFENCE
    tables = {"rates": rates[plain]}
    if not plain.all():
        tables["behind_defences"] = rates[~plain]
    for name, chart in CHARTS.items():
        if name in job.files and len(table := job.table(name)):
            tables[name] = chart.summarise(table, job, lambda model: _model(job, model, names))
    if "visibility" in job.files:
        sizes = mean_visibility(job.table("visibility"))
        tables["visibility"] = sizes[sizes["eps_255"] == at]
    if "iterations" in job.files:
        moved = success_over_iterations(job.table("iterations"), rows, *pair, protocol)
        relations = [
            relation(record.source_model, ModelRef.parse(name)) for name in moved["target"]
        ]
        tables["iterations"] = moved.assign(relation=relations)
    if len(summary.excess):
        tables["excess"] = summary.excess[summary.excess["eps_255"] == at]
    return tables
