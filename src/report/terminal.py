"""Terminal output for results (transfer matrices, rankings, alarms), and rankings as CSV."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..analysis import CLEAN
from ..artifacts.layout import ATTACKS, SOURCES
from ..utils.files import write_csv
from ..utils.formats import format_cells, format_rate
from .grid import fitting
from .images_text import images_text
from .named_tables import MARKS, defences, matrices, matrix_of, ranking_grid, rankings
from .results import Results
from .sanity_checks import CAUSES


def row_text(results: Results) -> str:
    """Return the gradients of an attack that has run and its row of the matrix as one line."""
    ((result,),), parts = results.rows, []
    if result.job.record.gradients and "gradients_per_image" in result.cost:
        gradients = result.cost["gradients_per_image"]
        parts.append(f"{gradients:g} gradient{'s' * (gradients != 1)} per image")
    if results.attacked:
        cells = matrix_of(results, result.job)
        cells = cells[cells["source"] != CLEAN]
        marked = cells["relation"].map(MARKS).fillna("") + cells["target"]
        rates = marked + " " + format_cells(cells, format_rate)
        place = f"{cells['counted'].iloc[0]} at {cells['eps_255'].iloc[0]:g}/255"
        parts.append(f"{place}: {', '.join(rates)}")
    return ", ".join(parts)


def print_matrices(results: Results, console: Console) -> None:
    """Print transfer matrices, accuracies behind defences if there are any, and one legend."""
    legend = list[str]()
    for attack, forms in matrices(results).items():
        form = fitting(forms, console.width)
        console.print("", replace(form, legend=()).terminal(), soft_wrap=False)
        legend += form.legend
        if any(job.record.defences for job in results.jobs if job.attack == attack):
            behind = defences(results, attack)
            console.print(behind.rich_table(), soft_wrap=False)
            legend += behind.legend
    legend += filter(None, [images_text(results.jobs)])
    if legend:
        console.print(Text("\n".join(dict.fromkeys(legend)), style="italic"), soft_wrap=False)
        console.print(Text(f"{results.signature}\n"), soft_wrap=True)  # to be copied


def write_tables(results: Results, folder: Path) -> None:
    """Write the rankings of attacks and of sources as CSV files."""
    if results.attacked:
        write_csv(folder / ATTACKS, results.rankings)
    if len(results.sources):
        write_csv(folder / SOURCES, results.sources)


def print_rankings(results: Results, console: Console) -> None:
    """Print the first attacks and sources of each group, at the reference budget.

    If a group has several rankings, only the first is printed: the mean over sources or attacks.
    Ranks among stored attacks come last, if there are any.
    """
    for of in ("attack", "source"):
        for rows in rankings(results, of):
            if len(rows) > 1:
                console.print(ranking_grid(rows, of).terminal(), "", soft_wrap=False)
    if results.ranks:
        console.print(Text(f"{results.ranks}\n"), soft_wrap=True)


def print_alarms(results: Results, console: Console) -> None:
    """Print each alarm once, even if several jobs raised it, and the usual causes."""
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for result in (result for row in results.rows for result in row):
        for name, finding in result.alarms:
            folders[name][finding].append(result.job.folder.name)
    lines = []
    for name, findings in folders.items():
        for finding, (first, *others) in findings.items():
            more = f" (and {len(others)} more)" if others else ""
            lines.append(f"ALARM {first}{more}: {name}: {finding}")
        lines.append(f"      {name}: {CAUSES.get(name, '')}")
    if lines:
        console.print(Text("\n".join(lines), style="yellow"), soft_wrap=True)
