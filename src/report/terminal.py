"""Terminal output and CSV files for a summary: transfer matrices, rankings and alarms."""

import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..analysis import CAUSES, CLEAN
from ..analysis.image_outcomes import GROUP
from ..artifacts.layout import ATTACKS, SOURCES
from ..utils.files import write_csv
from ..utils.model_names import NO_DEFENCE
from .matrix_tables import MARKS, defence_table, matrix_table, ranking_table, wide_matrix
from .summary import Summary


def row_text(summary: Summary) -> str:
    """Return the gradients that a job has taken and its row of the matrix as one line."""
    record, parts = summary.jobs[0].job.record, []
    if record.gradients:
        gradients = record.gradients / record.images
        parts.append(f"{gradients:g} gradient{'s' * (gradients != 1)} per image")
    for matrix in summary.matrices:
        cells = matrix.cells[matrix.cells["source"] != CLEAN]
        marks = cells["relation"].map(MARKS).fillna("")
        rates = ", ".join(marks + cells["target"] + cells["cell"].str.rpartition(" =")[2])
        parts.append(f"{cells['counted'].iloc[0]} at {cells['eps_255'].iloc[0]:g}/255: {rates}")
    return ", ".join(parts)


def print_matrices(summary: Summary, console: Console) -> None:
    """Print transfer matrices, accuracies behind defences if there are any, and one legend."""
    legend: list[str] = []
    for matrix in summary.matrices:
        table, lines = matrix_table(matrix.cells, matrix.heading, console.width)
        console.print("", table, soft_wrap=False)
        legend += lines
        if len(matrix.defences):
            defended, lines = defence_table(matrix.defences)
            console.print(defended, soft_wrap=False)
            legend += lines
    if legend:
        console.print(Text("\n".join(dict.fromkeys(legend)), style="italic"), soft_wrap=False)
        console.print()


def write_tables(summary: Summary, folder: Path) -> None:
    """Write the matrix of each attack and the rankings of attacks and sources as CSV files."""
    if summary.attacked:
        write_csv(folder / ATTACKS, summary.rankings)
    if len(summary.sources):
        write_csv(folder / SOURCES, summary.sources)
    stems: list[str] = []
    for matrix in summary.matrices:
        stem = "matrix-" + re.sub(r"[^\w.=+-]+", "-", matrix.attack).strip("-")[:150]
        stems.append(f"{stem}-{len(stems)}" if stem in stems else stem)
        write_csv(folder / f"{stems[-1]}.csv", wide_matrix(matrix.cells))


def print_rankings(summary: Summary, console: Console) -> None:
    """Print the first attacks and sources of each group, at the reference budget.

    If a group has several rankings, only the first is printed: the mean over sources or attacks.
    Ranks among stored attacks come last, if there are any.
    """
    for of, other, rows in (
        ("attack", "source", summary.rankings),
        ("source", "attack", summary.sources),
    ):
        plain, keys = rows[rows["defence"] == NO_DEFENCE], ["eps_255", other]
        for _, ranked in plain.groupby(["group", *GROUP], sort=False):
            first = ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)]
            if len(first) > 1:
                console.print(ranking_table(first, of), "", soft_wrap=False)
    if summary.ranks:
        console.print(Text(f"{summary.ranks}\n"), soft_wrap=True)


def print_alarms(summary: Summary, console: Console) -> None:
    """Print each alarm once, even if several jobs raised it, and the usual causes."""
    folders: dict[str, dict[str, list[str]]] = {}
    for job_summary in summary.jobs:
        for name, finding in job_summary.alarms:
            places = folders.setdefault(name, {}).setdefault(finding, [])
            places.append(job_summary.job.folder.name)
    lines = []
    for name, findings in folders.items():
        for finding, (first, *others) in findings.items():
            more = f" (and {len(others)} more)" if others else ""
            lines.append(f"ALARM {first}{more}: {name}: {finding}")
        lines.append(f"      {name}: {CAUSES.get(name, '')}")
    if lines:
        console.print(Text("\n".join(lines), style="yellow"), soft_wrap=True)
