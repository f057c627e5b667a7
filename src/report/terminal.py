"""Terminal output for a summary (transfer matrices, rankings, alarms), and rankings as CSV."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path

import pandas as pd
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..analysis import CLEAN, OWN, WHITE_BOX
from ..analysis.image_outcomes import GROUP
from ..analysis.ranking import ALL_TARGETS
from ..artifacts.layout import ATTACKS, SOURCES, SUMMARY
from ..utils.files import write_csv
from ..utils.formats import format_cell, format_cells
from ..utils.model_names import NO_DEFENCE
from ..utils.terminal import text_table
from .sanity_checks import CAUSES
from .summary import Label, Summary
from .verdicts import DIFFERENCES, on_target, resolution, unranked, verdict

MARKS = {WHITE_BOX: "*", OWN: "+"}
"""Marks of cells by the relation of target and source."""


def matrix_table(matrix: pd.DataFrame, heading: Label, width: int = 80) -> tuple[Group, list[str]]:
    """Lay out a `transfer_matrix` for the terminal, with `*` for white boxes and `+` for `own`.

    There is one row per source. If that would need more than `width` characters, the cells have
    rates without counts; if these do not fit either, there is one row per pair.

    Returns:
        The table, and the lines of its legend.
    """
    sources, relations = set(matrix["source"]), set(matrix["relation"])
    counted, rate = "still correct", "robust accuracy"
    clean = "accuracy on all clean images"
    if matrix["targeted"].any():
        counted, rate = "target class reached", "targeted success rate"
        clean = "clean images already classified as their target label"
    marks = matrix["relation"].map(MARKS).fillna("")
    has_seeds = bool(matrix["success_rate_sd"].notna().any())
    pairs = matrix[["source", "target"]].assign(cell=marks + format_cells(matrix))
    rates = pairs.assign(cell=marks + format_cells(matrix).str.rpartition(" = ")[2])
    narrow, wide = _grid(rates).rename(columns=lambda name: name.replace("_", "_\n")), _grid(pairs)
    forms = (wide.add_prefix("-> "), narrow, pairs.set_index("source"))
    tables = [_table(form.reset_index()) for form in forms]
    widths = [Console(width=10_000).measure(table).maximum for table in tables]
    chosen = next((place for place in (0, 1) if widths[place] <= width), 2)
    legend = {
        f"{counted} / denominator = {rate}": chosen != 1,
        f"{rate}; a wider terminal and {SUMMARY} show the counts": chosen == 1,
        f"{CLEAN}: {clean}": CLEAN in sources,
        "* white box: the target is the source or part of it": WHITE_BOX in relations,
        "+ own: the source's network behind another defence": OWN in relations,
        "\N{PLUS-MINUS SIGN}: standard deviation over the seeds": has_seeds,
    }
    shown = Text(f"{counted.capitalize()}: {heading}", style="bold")
    return Group(shown, tables[chosen]), [line for line, holds in legend.items() if holds]


def _grid(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pivot cells to one row per source and one column per target, in their order."""
    grid = pairs.pivot(index="source", columns="target", values="cell")
    return grid.loc[pairs["source"].unique(), pairs["target"].unique()].fillna("-")


def defence_table(behind: pd.DataFrame) -> tuple[Table, list[str]]:
    """Lay out a result of `behind_defences` for the terminal, one line per defence.

    Returns:
        The table, and its legend.
    """
    counted, share = behind["counted"].iloc[0], "{:.1%}".format
    adaptive = (behind["source_defence"] != NO_DEFENCE).any()
    shown = behind[["source_defence", "defence"] if adaptive else ["defence"]]
    shown = shown.rename(columns={"source_defence": "attacked through"})
    shown["clean"] = behind["clean_accuracy"].map(share)
    shown[counted] = behind["rate"].map(share)
    if adaptive:
        own = zip(behind["own_k"], behind["own_n"], strict=True)
        shown["the source itself"] = ["" if isnan(n) else format_cell(k, n) for k, n in own]
    if behind["abstained"].any():
        total = behind["abstained"] + behind["n"]
        pairs_of_counts = zip(behind["abstained"], total, strict=True)
        shown["abstained"] = [f"{k:.0f} / {n:.0f}" for k, n in pairs_of_counts]
    targets = " or ".join(map(str, sorted(set(behind["targets"]))))
    note = f"means over {targets} target{'s' * (targets != '1')}, each over the other sources"
    if not adaptive:
        note += "; a plain transfer attack is not an adaptive one: for that set source_defence"
    return _table(shown.astype(str)), [note]


def ranking_table(rows: pd.DataFrame, of: str = "attack") -> Group:
    """Lay out the first five rows of a ranking of attacks, or of sources, for the terminal.

    The rankings of sources on single targets follow if there is none over all targets.
    """
    first, singles, place = rows.iloc[0], list[str](), "other models"
    if of == "source":
        place = place if first["target"] == ALL_TARGETS else first["target"]
        each = rows[rows["target"] != first["target"]]
        rows = rows[rows["target"] == first["target"]]
        singles = [on_target(its) for _, its in each.groupby("target", sort=False)]
    ranked = rows[rows["rank"].notna()]
    does = "target class reached" if first["targeted"] else "fooled"
    other = "source" if of == "attack" else "attack"
    name = first[other] if first[f"{other}s"] > 1 else f"{other}: {first[other]}"
    heading = (
        f"{of.capitalize()}s by mean success ({does}) on {place}, "
        f"eps = {first['eps_255']:g}/255, {name}"
    )
    notes = unranked(rows, of)
    if ranked.empty:
        if singles:
            notes.append("all pairs on a target tested together, p < 0.05")
        texts = [Text("\n".join(lines), style="italic") for lines in (singles, notes) if lines]
        return Group(Text(heading, style="bold"), *texts)
    shown = ranked.head(5)
    frame = pd.DataFrame({"rank": shown["rank"].map("{:g}".format), of: shown[of]})
    tied = ranked["p"].notna().any() and ranked["undecided"].sum() > 1
    marks = shown["undecided"].map({True: "=" * bool(tied), False: ""})
    frame["mean success"] = marks + shown["mean"].map("{:.1%}".format)
    if of == "attack":
        ends = _points(shown, ["low", "high"], " [{:z.1f}, {:z.1f}]")
        frame["mean success"] += pd.Series(ends, shown.index)
    else:
        beyond = shown["extrapolated"].astype(bool)
        frame["mean success"] += beyond.map({True: " (extrapolated)", False: ""})
        notes.append("sources are compared on images that a target counts for every source")
    frame["minus the first"] = _points(shown, DIFFERENCES, "{:+z.1f} [{:+z.1f}, {:+z.1f}]")
    frame["images"] = shown["images"].map("{:g}".format)
    if of == "attack" and shown["gradients"].notna().any():
        costs = shown["gradients"].map("{:g}".format, na_action="ignore")
        frame["gradients\n/ image"] = costs.astype(object).fillna("")
        if shown["fit_gradients"].any():
            frame["fit\n/ image"] = shown["fit_gradients"].map("{:g}".format)
    left = len(ranked) - len(shown)
    remarks = [f"{of}s.csv has {left} more"] * bool(left) + verdict(ranked)[:1]
    lines = ["; ".join(remarks), *verdict(ranked)[1:], *resolution(ranked), *notes]
    below = Text("\n".join(filter(None, lines)), style="italic")
    return Group(Text(heading, style="bold"), _table(frame), below)


def _points(rows: pd.DataFrame, columns: Sequence[str], form: str) -> list[str]:
    """Format shares in percent, or differences in points, leaving out unknown intervals."""
    numbers, alone = (100 * rows[[*columns]]).to_numpy(), form.partition(" [")[0]
    forms = ["" if pd.isna(row[0]) else alone if pd.isna(row).any() else form for row in numbers]
    return [form.format(*row) for form, row in zip(forms, numbers, strict=True)]


def _table(frame: pd.DataFrame) -> Table:
    rows = frame.itertuples(index=False, name=None)
    return text_table([*frame], rows, ("source", "target", "defence", "attack"), ruled=True)


def row_text(summary: Summary) -> str:
    """Return the gradients of an attack that has run and its row of the matrix as one line."""
    (job,), parts = summary.jobs, []
    if job.job.record.gradients and "gradients_per_image" in job.cost:
        gradients = job.cost["gradients_per_image"]
        parts.append(f"{gradients:g} gradient{'s' * (gradients != 1)} per image")
    for matrix in summary.matrices:
        cells = matrix.cells[matrix.cells["source"] != CLEAN]
        marks = cells["relation"].map(MARKS).fillna("")
        rates = ", ".join(marks + cells["target"] + format_cells(cells).str.rpartition(" =")[2])
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
    """Write the rankings of attacks and of sources as CSV files."""
    if summary.attacked:
        write_csv(folder / ATTACKS, summary.rankings)
    if len(summary.sources):
        write_csv(folder / SOURCES, summary.sources)


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
