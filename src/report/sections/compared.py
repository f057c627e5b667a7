"""Attacks, sources and directions compared on the same images."""

import pandas as pd

from src.analysis.comparisons import asymmetry, paired_tests
from src.report import charts
from src.report.measure import Measured
from src.report.page import Figure, Section, Table
from src.report.sections.text import (
    MOST_ROWS,
    enough,
    pairs,
    records,
    span,
    too_few,
    with_intervals,
)

_DIRECTIONS = {
    "forward": "first_success",
    "backward": "second_success",
    "forward_only": "first_only",
    "backward_only": "second_only",
}


def compared(found: Measured) -> Section | None:
    """Compare attacks, sources and directions on the same images."""
    outcomes = found.table("outcomes")
    if outcomes.empty:
        return None
    groups = [rows for _, rows in outcomes.groupby("group", sort=False)]
    tests = pd.concat([paired_tests(rows) for rows in groups], ignore_index=True)
    gaps = pd.concat([asymmetry(rows) for rows in groups], ignore_index=True)
    gaps.columns = [_DIRECTIONS.get(name, name) for name in gaps.columns]
    gaps = gaps.assign(kind="direction")
    tests["row"] = _versus(tests, "{first} \N{MINUS SIGN} {second}, {common}")
    gaps["row"] = _versus(gaps, "{first} \N{RIGHTWARDS ARROW} {second} \N{MINUS SIGN} back")
    every = pd.concat([tests, gaps], ignore_index=True)
    told = every[enough(every["n"])] if len(every) else every
    areas = _areas(found.table("areas"))
    title = "Compared on the same images"
    if told.empty:
        text = too_few(every["n"], "of differences") if len(every) else "There is one job alone."
        return Section("compared", title, (text,), areas)
    figures = (
        _differences("attack", "Attacks, from the same source", told, outcomes, "target"),
        _differences("source", "Sources, of the same attack", told, outcomes, "target"),
        _differences("direction", "Directions between two models", told, outcomes, "attack"),
    )
    drawn = tuple(figure for figure in figures if figure is not None)
    return Section("compared", title, (), (*drawn, *areas), (_tests_table(told),))


def _versus(rows: pd.DataFrame, form: str) -> list[str]:
    return [form.format(**row) for row in records(rows)]


def _areas(areas: pd.DataFrame) -> tuple[Figure, ...]:
    """Return the areas under the curves of every pair with enough images."""
    rows = areas[enough(areas["n"])] if len(areas) else areas
    if rows.empty:
        return ()
    caption = (
        "Mean robust accuracy over the budgets from 0 to the largest, of "
        f"{span(rows['n'])} images; Gaffke's 95 % interval."
    )
    rows = rows.assign(row=pairs(rows))
    return (Figure("areas", "Areas under the curves", caption, charts.areas_chart(rows), rows),)


def _differences(
    kind: str, title: str, tests: pd.DataFrame, outcomes: pd.DataFrame, by: str
) -> Figure | None:
    """Return the differences of one kind; of very many those with the smallest p."""
    rows = tests[tests["kind"] == kind]
    if rows.empty:
        return None
    caption = (
        f"Difference of success rates on {span(rows['n'])} images that count "
        "for both sides; Tango's 95 % interval."
    )
    shown = rows
    if len(rows) > MOST_ROWS:
        shown = rows.sort_values("p_holm", kind="stable").groupby(by, sort=False).head(MOST_ROWS)
        shown = shown.sort_index()
        if len(shown) < len(rows):
            caption = f"{caption} The {MOST_ROWS} smallest p of each {by}."
    chart = charts.differences_chart(shown, by, list(dict.fromkeys(outcomes[by])))
    return Figure(f"compared-{kind}s", title, caption, chart, rows)


def _tests_table(tests: pd.DataFrame) -> Table:
    rows = tests.sort_values("p_holm", kind="stable").head(MOST_ROWS)
    cut = f" The {len(rows)} smallest p of {len(tests)}." if len(rows) < len(tests) else ""
    shown = pd.DataFrame(
        {
            "compared": rows["row"],
            "on": rows["target"].fillna(rows["attack"]),
            "successes": [
                f"{a} and {b} of {n}"
                for a, b, n in zip(
                    rows["first_success"], rows["second_success"], rows["n"], strict=True
                )
            ],
            "difference": with_intervals(rows, "difference", "+.1%"),
            "p (Holm)": ["n/a" if pd.isna(p) else f"{p:.2g}" for p in rows["p_holm"]],
        }
    )
    caption = (
        f"Two-sided exact McNemar tests, corrected by Holm over all of the same kind, data, "
        f"norm and budget.{cut}"
    )
    return Table("Differences as a table", caption, shown)
