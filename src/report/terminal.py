"""Terminal output and CSV files of a summary: transfer matrices and alarms."""

import re
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from src.analysis import CAUSES
from src.artifacts.layout import ATTACKS, SOURCES
from src.report.matrix_tables import (
    defence_table,
    matrix_table,
    ranking_table,
    wide_matrix,
)
from src.report.summary import Matrix, Summary
from src.utils.defended_names import PLAIN
from src.utils.files import write_csv


def print_matrix(matrix: Matrix, console: Console) -> None:
    """Print the transfer matrix of an attack."""
    console.print("", matrix_table(matrix.cells, matrix.heading, console.width), soft_wrap=False)
    if len(matrix.defences):
        console.print(defence_table(matrix.defences), soft_wrap=False)


def print_matrices(summary: Summary, console: Console) -> None:
    """Print the matrix of every attack."""
    for one in summary.matrices:
        print_matrix(one, console)
    console.print()


def write_tables(summary: Summary, folder: Path) -> None:
    """Write the matrix of every attack, and the rankings of attacks and sources, as CSV."""
    if summary.attacked:
        write_csv(folder / ATTACKS, summary.rankings)
    if len(summary.sources):
        write_csv(folder / SOURCES, summary.sources)
    files: dict[str, pd.DataFrame] = {}
    for one in summary.matrices:
        stem = "matrix-" + re.sub(r"[^\w.=+-]+", "-", one.attack).strip("-")[:150]
        files[f"{stem}-{len(files)}" if stem in files else stem] = wide_matrix(one.cells)
    for stem, frame in files.items():
        write_csv(folder / f"{stem}.csv", frame)


def print_rankings(summary: Summary, console: Console) -> None:
    """Print the first attacks and sources of each kind, at the reference budget.

    Of several rankings of a kind it is the first, that of the mean over sources, or attacks.
    """
    for of, other, rows in (
        ("attack", "source", summary.rankings),
        ("source", "attack", summary.sources),
    ):
        if rows.empty:
            continue
        plain = rows[rows["defence"] == PLAIN]
        for _, ranked in plain.groupby(["group", "kind"], sort=False):
            keys = ["eps_255", other]
            first = ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)]
            if len(first) > 1:
                console.print(ranking_table(first, of), "", soft_wrap=False)


def print_alarms(summary: Summary, console: Console) -> None:
    """Print a line for each alarm, once where several jobs raised it, and the usual causes."""
    where: dict[str, dict[str, list[str]]] = {}
    for one in summary.jobs:
        for name, finding in one.alarms:
            where.setdefault(name, {}).setdefault(finding, []).append(one.job.folder.name)
    lines = []
    for name, findings in where.items():
        for finding, (first, *others) in findings.items():
            more = f" (and {len(others)} more)" if others else ""
            lines.append(f"ALARM {first}{more}: {name}: {finding}")
        lines.append(f"      {name}: {CAUSES.get(name, '')}")
    if lines:
        console.print(Text("\n".join(lines), style="yellow"), soft_wrap=True)
