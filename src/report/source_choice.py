"""Sources ranked for a target that nobody sees, and what predicts transfer, for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from src.analysis.image_outcomes import ImageOutcomes, image_outcomes, joined
from src.analysis.source_choice import (
    FEWEST_SOURCES,
    Transfer,
    choices,
    clean_measures,
    predictors,
    transfer_of,
)
from src.artifacts.jobs import StoredJob, find_jobs
from src.artifacts.overlap import RELATED_BY, overlaps


@dataclass(frozen=True)
class SourceChoice:
    """The transfer of some jobs, and the results of `choices` and `predictors`."""

    heading: str
    transfer: Transfer
    choices: pd.DataFrame
    predictors: pd.DataFrame


def choose_source(
    folders: Sequence[Path], attack: Sequence[str] | None = None, eps_255: float | None = None
) -> SourceChoice:
    """Compute which source to attack from the jobs in some folders.

    Args:
        folders: Folders of sweeps on the same images.
        attack: Attacks that count; None: all that every source has.
        eps_255: Budget in 1/255; None: the first job's reference budget.

    Raises:
        ValueError: There are too few models, or the jobs are on different images.
    """
    jobs = [job for job in find_jobs(folders) if job.attacked]
    jobs = [job for job in jobs if attack is None or job.attack in attack]
    if not jobs:
        raise ValueError(f"the folders hold no jobs of {', '.join(attack or ['an attack'])}.")
    first = jobs[0].record
    if any(job.record.data != first.data for job in jobs):
        raise ValueError("the jobs are on different images; name sweeps on the same ones.")
    eps, parts = first.reference if eps_255 is None else eps_255, []
    for job in jobs:
        pair = job.record.source, job.record.targets
        outcomes = image_outcomes(job.defended, job.attack, *pair, first.protocol)
        if eps not in outcomes:
            raise ValueError(f"eps={eps:g}/255 is no budget of {job.attack} on {pair[0]}.")
        parts.append(outcomes[eps])
    return source_choice(jobs, joined(parts), eps)


def source_choice(
    jobs: Sequence[StoredJob], outcomes: ImageOutcomes, eps_255: float
) -> SourceChoice:
    """Compute which source to attack from comparable jobs and their outcomes at a budget."""
    transfer, first = transfer_of(outcomes), jobs[0].record
    shared = _shared(jobs)

    def related(one: str, other: str) -> bool:
        return one == other or frozenset((one, other)) in shared

    chosen = choices(transfer, related, first.seed)
    correct = _correct(jobs, [*transfer.sources, *transfer.targets])

    def measure(places: list[int]) -> dict[str, pd.DataFrame]:
        return clean_measures(correct.iloc[places])

    attacks = ", ".join(transfer.attacks)
    heading = f"{attacks} on {first.dataset}, eps = {eps_255:g}/255, {first.protocol}"
    predicted = predictors(transfer, measure, related, first.seed)
    return SourceChoice(heading, transfer, chosen, predicted)


def _correct(jobs: Sequence[StoredJob], models: Sequence[str]) -> pd.DataFrame:
    """Return whether models, the columns, are right on clean images, by rising number."""
    columns: dict[str, pd.Series] = {}
    for job in jobs:
        for model, rows in job.clean.groupby("target", observed=True):
            right = (rows["predicted"] == rows["label"]).set_axis(rows["index"])
            columns.setdefault(str(model), right)
    return pd.DataFrame({name: columns[name] for name in dict.fromkeys(models)}).sort_index()


def _shared(jobs: Sequence[StoredJob]) -> set[frozenset[str]]:
    """Return the pairs of models that share weights, architecture or family."""
    overlap: dict[frozenset[str], tuple[str, ...]] = {}
    for job in jobs:
        for one, other in combinations(job.record.weights, 2):
            pair = frozenset((one, other))
            if pair not in overlap:
                overlap[pair] = overlaps(job.record, one, other)
    return {pair for pair, shared in overlap.items() if RELATED_BY & {*shared}}


def source_tables(found: SourceChoice) -> Group:
    """Lay out a choice of sources for the terminal."""
    transfer, rows = found.transfer, found.choices
    mean = rows.iloc[-1]
    table = Table(box=None, pad_edge=False)
    for name in ("unseen target", "attack this source", "success", "best source", "success", "any"):
        table.add_column(name, justify="left" if "so" in name or "target" in name else "right")
    for row in rows.iloc[:-1].to_dict("records"):
        shares = [f"{row[name]:.1%}" for name in ("success", "most", "any")]
        table.add_row(row["target"], row["chosen"], shares[0], row["best"], *shares[1:])
    means = [f"{mean[name]:.1%}" for name in ("success", "most", "any")]
    table.add_row("mean", "", means[0], "", *means[1:])
    lines = [
        f"chosen: {_span(mean, 'success')}; blindly: {_span(mean, 'any')}; best in hindsight: "
        f"{_span(mean, 'most')}",
        f"two sources, either counts: {_span(mean, 'best_2')}; three: {_span(mean, 'best_3')}",
        "95 % intervals over targets and images. A target's relatives are left out with it.",
    ]
    measured = Table(box=None, pad_edge=False)
    for name in ("measure", "pairs", "rho", "beyond accuracy", "p"):
        measured.add_column(name, justify="left" if name == "measure" else "right")
    for row in found.predictors.to_dict("records"):
        numbers = [f"{row['rho']:+.2f}", f"{row['added']:+.2f}"]
        p = "" if pd.isna(row["p"]) else f"{row['p']:.3f}"
        measured.add_row(row["measure"], str(row["pairs"]), *numbers, p)
    few = len(transfer.sources) < FEWEST_SOURCES
    note = f"not tested: that needs {FEWEST_SOURCES} sources" if few else "p: models permuted"
    note += "; measured on half of the images, transfer on the other half, and swapped"
    return Group(
        Text(f"Which source for a target that nobody sees: {found.heading}", style="bold"),
        table,
        Text("\n".join(lines), style="italic"),
        Text("\nPrediction of success between two models (Spearman's rho)", style="bold"),
        measured,
        Text(note, style="italic"),
    )


def _span(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
