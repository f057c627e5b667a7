"""Attacks, sources and directions compared on the same images."""

from typing import Any

import pandas as pd

from src.analysis import is_white_box
from src.analysis.comparisons import paired_tests
from src.report.charts.dots import MOST_ROWS, dot_plot
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.sections.text import ENOUGH, records, span, too_few

_ROW = "{first} \N{MINUS SIGN} {second}, {common}"
_BACK = "{first} \N{RIGHTWARDS ARROW} {second} \N{MINUS SIGN} back"
_KINDS = {
    "attack": ("Attacks, from the same source", "target", _ROW),
    "source": ("Sources, of the same attack", "target", _ROW),
    "direction": ("Directions between two models", "attack", _BACK),
}
"""Heading, column of the colours and row label of each kind of comparison."""


def tests_by_group(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the `paired_tests` of each group of comparable jobs, corrected within each."""
    groups = [rows for _, rows in outcomes.groupby("group", sort=False)]
    return pd.concat([paired_tests(rows) for rows in groups], ignore_index=True)


def compared(found: Measured) -> Section | None:
    """Compare attacks, sources and directions on the same images."""
    outcomes = found.table("outcomes")
    if outcomes.empty:
        return None
    tests = tests_by_group(outcomes)
    tests["row"] = [_KINDS[row["kind"]][2].format(**row) + _mark(row) for row in records(tests)]
    tests["attack"] = tests["common"]  # of directions
    sufficient = tests[tests["n"] >= ENOUGH]
    title = "Compared on the same images"
    if sufficient.empty:
        text = (
            too_few(tests["n"])
            if len(tests)
            else "No two jobs have images, norm, budget, protocol, kind and a model in common."
        )
        return Section("compared", title, (text,))
    kinds = sufficient.groupby("kind", sort=False)
    figures = tuple(_differences(str(kind), rows, outcomes) for kind, rows in kinds)
    return Section("compared", title, (), figures)


def _mark(row: dict[str, Any]) -> str:
    """Return `*` for a comparison of attacks in the white box, else nothing."""
    return "*" * (row["kind"] == "attack" and is_white_box(row["common"], row["target"]))


def _differences(kind: str, tests: pd.DataFrame, outcomes: pd.DataFrame) -> Figure:
    """Return the chart of one kind of comparison; of very many, those with the smallest p."""
    title, by, _ = _KINDS[kind]
    smallest = tests.sort_values("p_holm", kind="stable").groupby(by, sort=False).head(MOST_ROWS)
    rows = smallest.sort_index()
    cut = f" The {MOST_ROWS} smallest p of each {by}." if len(rows) < len(tests) else ""
    caption = (
        f"Difference of success rates on {span(tests['n'])} images that count "
        f"for both sides; Tango's 95 % interval; p in the tooltips; *: white box.{cut}"
    )
    columns = ["row", by, "n", "first_success", "second_success", "p_holm"]
    axis, names = "difference of success rates", list(outcomes[by])
    chart = dot_plot(rows, "difference", axis, columns, by=by, names=names, divided_by=by)
    return Figure(f"compared-{kind}s", title, caption, chart, tests)
