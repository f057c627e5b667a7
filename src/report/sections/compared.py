"""Attacks, sources and directions compared on the same images."""

import pandas as pd

from src.analysis.comparisons import paired_tests
from src.report.charts.dots import dot_plot
from src.report.measure import Measured
from src.report.page import Figure, Section, Table
from src.report.sections.text import MOST_ROWS, enough, records, span, too_few, with_intervals

_ROW = "{first} \N{MINUS SIGN} {second}, {common}"
_KINDS = {
    "attack": ("Attacks, from the same source", "target", _ROW),
    "source": ("Sources, of the same attack", "target", _ROW),
    "direction": (
        "Directions between two models",
        "attack",
        "{first} \N{RIGHTWARDS ARROW} {second} \N{MINUS SIGN} back",
    ),
}
"""Headings of the kinds of comparison, the columns of their colours, and their rows in words."""


def compared(found: Measured) -> Section | None:
    """Compare attacks, sources and directions on the same images."""
    outcomes = found.table("outcomes")
    if outcomes.empty:
        return None
    groups = [rows for _, rows in outcomes.groupby("group", sort=False)]
    tests = pd.concat([paired_tests(rows) for rows in groups], ignore_index=True)
    tests["row"] = [_KINDS[row["kind"]][2].format(**row) for row in records(tests)]
    tests["attack"] = tests["common"]  # of directions
    sufficient = tests[enough(tests["n"])] if len(tests) else tests
    title = "Compared on the same images"
    if sufficient.empty:
        text = too_few(tests["n"]) if len(tests) else "A comparison needs two jobs."
        return Section("compared", title, (text,))
    kinds = sufficient.groupby("kind", sort=False)
    figures = tuple(_differences(str(kind), rows, outcomes) for kind, rows in kinds)
    return Section("compared", title, (), figures, (_tests_table(sufficient),))


def _differences(kind: str, tests: pd.DataFrame, outcomes: pd.DataFrame) -> Figure:
    """Return the differences of one kind; of very many those with the smallest p."""
    title, by, _ = _KINDS[kind]
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
            "on": rows["target"].fillna(rows["common"]),
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
