"""The section that compares attacks, and sources, on the same images."""

from collections.abc import Sequence

import pandas as pd

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.multiple_comparisons import LEVEL
from src.analysis.paired_tests import both_ways, paired_tests
from src.report.charts.dot_plot import dot_plot
from src.report.page.html import Figure, Section
from src.report.page.page_data import PageData
from src.report.page.view import View
from src.report.sections.text import ENOUGH, span, too_few

_HEADINGS = {
    "attack": "The chosen attack compared with others, same source",
    "source": "The chosen source compared with others, same attack",
}
_SHOWN = {
    "attack": (
        "datum.first == chosen_attack && datum.common == chosen_first_source",
        "chosen_attack + ' minus each, from ' + chosen_first_source",
    ),
    "source": (
        "datum.first == chosen_first_source && datum.common == chosen_attack",
        "chosen_first_source + ' minus each, with ' + chosen_attack",
    ),
}


def tests_by_group(groups: Sequence[ImageOutcomes]) -> pd.DataFrame:
    """Compute the `paired_tests` of each group of comparable jobs, corrected within the group."""
    return pd.concat([paired_tests(group) for group in groups], ignore_index=True)


def compared(view: View, numbers: PageData) -> Section | None:
    """Build the section on paired comparisons; None if no two jobs are comparable."""
    if not numbers.outcomes:
        return None
    tests = tests_by_group(numbers.outcomes)
    sufficient = tests[tests["n"] >= ENOUGH]
    title = "Compared on the same images"
    if sufficient.empty:
        return Section("compared", title, (too_few(tests["n"]),)) if len(tests) else None
    comparisons = sufficient.groupby("kind", sort=False)
    figures = tuple(_differences(str(comparison), rows, view) for comparison, rows in comparisons)
    return Section("compared", title, (), figures)


def _differences(comparison: str, tests: pd.DataFrame, view: View) -> Figure:
    """Draw the differences between the chosen attack, or source, and the others on one target."""
    rows = both_ways(tests)
    rows["decided"] = (rows["p_holm"] < LEVEL).map({True: f"p < {LEVEL}", False: "undecided"})
    order = {name: place for place, name in enumerate(view.ranking["attack"].unique())}
    rows = rows.sort_values("second", key=lambda names: names.map(order), kind="stable")
    shown, heading = _SHOWN[comparison]
    caption = (
        f"Difference in the share fooled, on the {span(tests['n'])} images that count for both. "
        "Right of 0, the chosen one fools more. 95 % intervals (Tango); exact McNemar tests with "
        "Holm's correction for all comparisons of this kind."
    )
    both = ("attack", "first_source") if comparison == "attack" else ("first_source", "attack")
    keys = {"first": both[0], "common": both[1], "target": "first_target"}
    counts = ["n", "first_success", "second_success", "p_holm"]
    chart = dot_plot(
        rows,
        "difference",
        "difference in share fooled",
        ["common", "target", "first", "second", *counts],
        by="decided",
        names=[f"p < {LEVEL}", "undecided"],
        row="second",
        shown=f"{shown} && datum.target == chosen_first_target",
        heading=f"{heading} + ' on ' + chosen_first_target",
    )
    return Figure(
        f"compared-{comparison}s",
        _HEADINGS[comparison],
        caption,
        chart,
        tests,
        "half",
        view.choice,
        keys,
    )
