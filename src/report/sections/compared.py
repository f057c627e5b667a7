"""Attacks, and sources, compared on the same images."""

from typing import Any

import pandas as pd

from src.analysis import is_white_box
from src.analysis.comparisons import paired_tests
from src.report.charts.dots import MOST_ROWS, dot_plot
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.sections.text import ENOUGH, span, too_few

_HEADINGS = {
    "attack": "Attacks, from the same source",
    "source": "Sources, of the same attack",
}


def tests_by_group(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the `paired_tests` of each group of comparable jobs, corrected within each."""
    groups = [rows for _, rows in outcomes.groupby("group", sort=False)]
    return pd.concat([paired_tests(rows) for rows in groups], ignore_index=True)


def compared(found: Measured) -> Section | None:
    """Compare attacks, and sources, on the same images; None if no two jobs are comparable."""
    outcomes = found.table("outcomes")
    if outcomes.empty:
        return None
    tests = tests_by_group(outcomes)
    tests["row"] = [_row(row) for row in tests.to_dict("records")]
    sufficient = tests[tests["n"] >= ENOUGH]
    title = "Compared on the same images"
    if sufficient.empty:
        return Section("compared", title, (too_few(tests["n"]),)) if len(tests) else None
    kinds = sufficient.groupby("kind", sort=False)
    figures = tuple(_differences(str(kind), rows, outcomes) for kind, rows in kinds)
    return Section("compared", title, (), figures)


def _row(row: dict[Any, Any]) -> str:
    """Name a comparison; one of attacks in the white box has an asterisk."""
    white = row["kind"] == "attack" and is_white_box(row["common"], row["target"])
    return f"{row['first']} \N{MINUS SIGN} {row['second']}, {row['common']}{'*' * white}"


def _differences(kind: str, tests: pd.DataFrame, outcomes: pd.DataFrame) -> Figure:
    """Return the chart of one kind of comparison; of very many, those with the smallest p."""
    smallest = tests.sort_values("p_holm", kind="stable").groupby("target", sort=False)
    rows = smallest.head(MOST_ROWS).sort_index()
    cut = f" The {MOST_ROWS} smallest p of each target." if len(rows) < len(tests) else ""
    caption = (
        f"Difference of success rates on {span(tests['n'])} images that count "
        f"for both sides; Tango's 95 % interval; p in the tooltips; *: white box.{cut}"
    )
    columns = ["row", "target", "n", "first_success", "second_success", "p_holm"]
    axis, names = "difference of success rates", list(outcomes["target"])
    chart = dot_plot(
        rows, "difference", axis, columns, by="target", names=names, divided_by="target"
    )
    return Figure(f"compared-{kind}s", _HEADINGS[kind], caption, chart, tests)
