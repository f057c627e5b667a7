"""Attacks, sources and directions compared on the same images."""

import pandas as pd

from src.analysis.comparisons import asymmetry, paired_tests
from src.report.charts.dots import dot_plot
from src.report.measure import Measured
from src.report.page import Figure, Section, Table
from src.report.sections.text import (
    MOST_ROWS,
    enough,
    pair_names,
    records,
    span,
    too_few,
    with_intervals,
)

_KINDS = {
    "attack": ("Attacks, from the same source", "target"),
    "source": ("Sources, of the same attack", "target"),
    "direction": ("Directions between two models", "attack"),
}
"""Headings of the kinds of comparison, and the columns of their colours."""


def compared(found: Measured) -> Section | None:
    """Compare attacks, sources and directions on the same images."""
    outcomes = found.table("outcomes")
    if outcomes.empty:
        return None
    groups = [rows for _, rows in outcomes.groupby("group", sort=False)]
    tests = pd.concat([paired_tests(rows) for rows in groups], ignore_index=True)
    gaps = pd.concat([asymmetry(rows) for rows in groups], ignore_index=True)
    gaps = gaps.assign(kind="direction")
    tests["row"] = _rows(tests, "{first} \N{MINUS SIGN} {second}, {common}")
    gaps["row"] = _rows(gaps, "{first} \N{RIGHTWARDS ARROW} {second} \N{MINUS SIGN} back")
    every = pd.concat([tests, gaps], ignore_index=True)
    sufficient = every[enough(every["n"])] if len(every) else every
    areas = _areas(found.table("areas"))
    title = "Compared on the same images"
    if sufficient.empty:
        text = too_few(every["n"]) if len(every) else "A comparison needs two jobs."
        return Section("compared", title, (text,), areas)
    kinds = sufficient.groupby("kind", sort=False)
    figures = tuple(_differences(str(kind), rows, outcomes) for kind, rows in kinds)
    return Section("compared", title, (), (*figures, *areas), (_tests_table(sufficient),))


def _rows(tests: pd.DataFrame, form: str) -> list[str]:
    return [form.format(**row) for row in records(tests)]


def _areas(areas: pd.DataFrame) -> tuple[Figure, ...]:
    """Return the areas under the curves of every pair with enough images."""
    rows = areas[enough(areas["n"])] if len(areas) else areas
    if rows.empty:
        return ()
    caption = (
        "Mean robust accuracy over the budgets from 0 to the largest, of "
        f"{span(rows['n'])} images; Gaffke's 95 % interval."
    )
    rows = rows.assign(row=pair_names(rows))
    columns = ["attack", "source", "target", "n"]
    chart = dot_plot(rows, "robust_accuracy_area", "area under robust accuracy", columns)
    return (Figure("areas", "Areas under the curves", caption, chart, rows),)


def _differences(kind: str, tests: pd.DataFrame, outcomes: pd.DataFrame) -> Figure:
    """Return the differences of one kind; of very many those with the smallest p."""
    title, by = _KINDS[kind]
    caption = (
        f"Difference of success rates on {span(tests['n'])} images that count "
        "for both sides; Tango's 95 % interval."
    )
    rows = tests
    if len(tests) > MOST_ROWS:
        rows = tests.sort_values("p_holm", kind="stable").groupby(by, sort=False).head(MOST_ROWS)
        rows = rows.sort_index()
        if len(rows) < len(tests):
            caption = f"{caption} The {MOST_ROWS} smallest p of each {by}."
    columns = ["row", by, "n", "first_success", "second_success", "p_holm"]
    title_of_axis = "difference of success rates"
    names = list(outcomes[by])
    chart = dot_plot(rows, "difference", title_of_axis, columns, by=by, names=names, divided_by=by)
    return Figure(f"compared-{kind}s", title, caption, chart, tests)


def _tests_table(tests: pd.DataFrame) -> Table:
    rows = tests.sort_values("p_holm", kind="stable").head(MOST_ROWS)
    cut = f" The {len(rows)} smallest p of {len(tests)}." if len(rows) < len(tests) else ""
    counts = rows[["first_success", "second_success", "n"]].itertuples(index=False, name=None)
    frame = pd.DataFrame(
        {
            "compared": rows["row"],
            "on": rows["target"].fillna(rows["attack"]),
            "successes": [f"{first} and {second} of {n}" for first, second, n in counts],
            "difference": with_intervals(rows, "difference", "+.1%"),
            "p (Holm)": ["n/a" if pd.isna(p) else f"{p:.2g}" for p in rows["p_holm"]],
        }
    )
    caption = (
        f"Two-sided exact McNemar tests, corrected by Holm over all of the same kind, data, "
        f"norm and budget.{cut}"
    )
    return Table("Differences as a table", caption, frame)
