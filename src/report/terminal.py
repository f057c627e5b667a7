"""Terminal output for results (transfer matrices, rankings, alarms), and rankings as CSV."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..analysis import CLEAN, OWN, TRANSFER, WHITE_BOX, transfer_matrix
from ..analysis.estimates import MEAN
from ..analysis.ranking import GROUP
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import ATTACKS, SOURCES, SUMMARY
from ..utils.files import write_csv
from ..utils.formats import format_cell, format_cells
from ..utils.model_names import NO_DEFENCE
from ..utils.terminal import text_table
from .beside import DIFFERENCES
from .results import Results
from .sanity_checks import CAUSES
from .words import is_tied, ranking_heading, ranking_notes

MARKS = {WHITE_BOX: "*", OWN: "+"}
"""Marks of cells by the relation of target and source."""
_SHOWN = 5
"""Number of the first rows of a ranking that are printed."""


def matrix_table(matrix: pd.DataFrame, heading: str, width: int = 80) -> tuple[Group, list[str]]:
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


def defence_table(
    results: Results, attack: str, eps_255: float, protocol: str
) -> tuple[Table, list[str]]:
    """Lay out accuracies behind each defence, means over the targets of other sources.

    Returns:
        The table, with one line per defence, and its legend.
    """
    share = "{:.1%}".format
    rows = results.select(attack=attack, eps_255=eps_255, protocol=protocol)
    keys = ["source_defence", "defence"]
    means = rows[
        (rows["source"] == MEAN) & (rows["target"] == MEAN) & (rows["relation"] == TRANSFER)
    ]
    means = means.sort_values("ensemble", kind="stable").drop_duplicates(keys)
    pairs = rows[(rows["source"] != MEAN) & (rows["target"] != MEAN)]
    others, own = pairs["relation"] == TRANSFER, pairs["relation"].isin([WHITE_BOX, OWN])
    targeted = bool(rows["targeted"].any())
    rate, k = ("success_rate", "success") if targeted else ("robust_accuracy", "still_correct")
    shown = means[keys].set_index(keys, drop=False)
    adaptive = (shown["source_defence"] != NO_DEFENCE).any()
    shown = shown.rename(columns={"source_defence": "attacked through"})
    shown["clean"] = [*map(share, means["clean_accuracy"])]
    shown["target class reached" if targeted else "still correct"] = [*map(share, means[rate])]
    if adaptive:
        counts = pairs[own].groupby(keys)[[k, "denominator"]].sum()
        cells = {row.Index: format_cell(*row[1:]) for row in counts.itertuples()}
        shown["the source itself"] = [cells.get(place, "") for place in shown.index]
    else:
        shown = shown.drop(columns="attacked through")
    sums = pairs[others].groupby(keys)[["abstained", "denominator"]].sum().reindex(shown.index)
    if sums["abstained"].any():
        counts_of = sums.to_numpy()
        shown["abstained"] = [f"{k:.0f} / {k + n:.0f}" for k, n in counts_of]
    of_targets = rows[(rows["source"] == MEAN) & (rows["relation"] == TRANSFER)]
    numbers = of_targets[of_targets["target"] != MEAN].groupby(keys)["target"].nunique()
    targets = " or ".join(map(str, sorted({*numbers})))
    note = f"means over {targets} target{'s' * (targets != '1')}, each over the other sources"
    if not adaptive:
        note += "; a plain transfer attack is not an adaptive one: for that set source_defence"
    return _table(shown.astype(str)), [note]


def ranking_table(rows: pd.DataFrame, of: str = "attack") -> Group:
    """Lay out the first five rows of a ranking of attacks, or of sources, for the terminal.

    The rankings of sources on single targets follow if there is none over all targets.
    """
    heading = Text(ranking_heading(rows, of), style="bold")
    below = Text("\n".join(ranking_notes(rows, of, _SHOWN)), style="italic")
    if of == "source":
        rows = rows[rows["target"] == rows["target"].iloc[0]]
    ranked = rows[rows["rank"].notna()]
    if ranked.empty:
        return Group(heading, below)
    shown = ranked.head(_SHOWN)
    frame = pd.DataFrame({"rank": shown["rank"].map("{:g}".format), of: shown[of]})
    marks = shown["undecided"].map({True: "=" * is_tied(ranked), False: ""})
    frame["mean success"] = marks + shown["mean"].map("{:.1%}".format)
    if of == "attack":
        ends = _points(shown, ["low", "high"], " [{:z.1f}, {:z.1f}]")
        frame["mean success"] += pd.Series(ends, shown.index)
    else:
        beyond = shown["extrapolated"].astype(bool)
        frame["mean success"] += beyond.map({True: " (extrapolated)", False: ""})
    frame["minus the first"] = _points(shown, DIFFERENCES, "{:+z.1f} [{:+z.1f}, {:+z.1f}]")
    frame["images"] = shown["images"].map("{:g}".format)
    if of == "attack" and shown["gradients"].notna().any():
        costs = shown["gradients"].map("{:g}".format, na_action="ignore")
        frame["gradients\n/ image"] = costs.astype(object).fillna("")
        if shown["fit_gradients"].any():
            frame["fit\n/ image"] = shown["fit_gradients"].map("{:g}".format)
    return Group(heading, _table(frame), below)


def _points(rows: pd.DataFrame, columns: Sequence[str], form: str) -> list[str]:
    """Format shares in percent, or differences in points, leaving out unknown intervals."""
    numbers, alone = (100 * rows[[*columns]]).to_numpy(), form.partition(" [")[0]
    forms = ["" if pd.isna(row[0]) else alone if pd.isna(row).any() else form for row in numbers]
    return [form.format(*row) for form, row in zip(forms, numbers, strict=True)]


def _table(frame: pd.DataFrame) -> Table:
    rows = frame.itertuples(index=False, name=None)
    return text_table([*frame], rows, ("source", "target", "defence", "attack"), ruled=True)


def row_text(results: Results) -> str:
    """Return the gradients of an attack that has run and its row of the matrix as one line."""
    ((result,),), parts = results.rows, []
    if result.job.record.gradients and "gradients_per_image" in result.cost:
        gradients = result.cost["gradients_per_image"]
        parts.append(f"{gradients:g} gradient{'s' * (gradients != 1)} per image")
    for _, cells in matrices(results):
        cells = cells[cells["source"] != CLEAN]
        marks = cells["relation"].map(MARKS).fillna("")
        rates = ", ".join(marks + cells["target"] + format_cells(cells).str.rpartition(" =")[2])
        parts.append(f"{cells['counted'].iloc[0]} at {cells['eps_255'].iloc[0]:g}/255: {rates}")
    return ", ".join(parts)


def matrices(results: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield heading and `transfer_matrix` of each attack at its reference budget."""
    datasets = {its.record.data: its.record.dataset for its in results.jobs if its.attacked}
    named = Counter(datasets.values())
    for attack, jobs in _by_attack(results).items():
        record = jobs[0].record
        plain = results.select(attack=attack, defence=NO_DEFENCE)
        pairs = plain[(plain["source"] != MEAN) & (plain["target"] != MEAN)]
        dataset = record.dataset + f" ({record.data[:6]})" * (named[record.dataset] > 1)
        heading = f"{attack} on {dataset}, eps = {record.reference:g}/255"
        arithmetic = " / ".join(dict.fromkeys(job.record.formats for job in jobs))
        ends = [f"protocol: {record.protocol}", *([arithmetic] if arithmetic != "float32" else [])]
        cells = transfer_matrix(pairs, record.reference, record.protocol)
        yield ", ".join([heading, *ends]), cells


def _by_attack(results: Results) -> dict[str, list[FinishedJob]]:
    """Return the jobs of each attack."""
    attacks = dict[str, list[FinishedJob]]()
    for row in results.attacked:
        attacks.setdefault(row[0].job.attack, []).append(row[0].job)
    return attacks


def print_matrices(results: Results, console: Console) -> None:
    """Print transfer matrices, accuracies behind defences if there are any, and one legend."""
    legend: list[str] = []
    for (heading, cells), (attack, jobs) in zip(
        matrices(results), _by_attack(results).items(), strict=True
    ):
        table, lines = matrix_table(cells, heading, console.width)
        console.print("", table, soft_wrap=False)
        legend += lines
        record = jobs[0].record
        if any(job.record.defences for job in jobs):
            defended, lines = defence_table(results, attack, record.reference, record.protocol)
            console.print(defended, soft_wrap=False)
            legend += lines
    if legend:
        console.print(Text("\n".join(dict.fromkeys(legend)), style="italic"), soft_wrap=False)
        console.print()


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
    for of, other, rows in (
        ("attack", "source", results.rankings),
        ("source", "attack", results.sources),
    ):
        plain, keys = rows[rows["defence"] == NO_DEFENCE], ["eps_255", other]
        for _, ranked in plain.groupby(["group", *GROUP], sort=False):
            first = ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)]
            if len(first) > 1:
                console.print(ranking_table(first, of), "", soft_wrap=False)
    if results.ranks:
        console.print(Text(f"{results.ranks}\n"), soft_wrap=True)


def print_alarms(results: Results, console: Console) -> None:
    """Print each alarm once, even if several jobs raised it, and the usual causes."""
    folders: dict[str, dict[str, list[str]]] = {}
    for result in (result for row in results.rows for result in row):
        for name, finding in result.alarms:
            places = folders.setdefault(name, {}).setdefault(finding, [])
            places.append(result.job.folder.name)
    lines = []
    for name, findings in folders.items():
        for finding, (first, *others) in findings.items():
            more = f" (and {len(others)} more)" if others else ""
            lines.append(f"ALARM {first}{more}: {name}: {finding}")
        lines.append(f"      {name}: {CAUSES.get(name, '')}")
    if lines:
        console.print(Text("\n".join(lines), style="yellow"), soft_wrap=True)
