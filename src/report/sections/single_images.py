"""The section on initial confidence and minimum adversarial budget, for one and all pairs."""

import altair as alt
import numpy as np
import pandas as pd
from altair.typing import ChartType

from src.report.charts.theme import (
    ACCENT,
    CORRECT,
    GREY,
    OF_PAIR,
    PAIR_TITLE,
    PANEL,
    budgets,
    chosen,
    colour_of_levels,
    curve,
    extent,
    inline,
    tooltip,
    where,
)
from src.report.charts.transfer_matrix import at_last, names_at_ends
from src.report.page.html import Figure, Section
from src.report.page.page_data import PageData
from src.report.page.view import View
from src.report.sections.text import ENOUGH, span, too_few

FEWEST_IN_GROUP = 10
"""Groups with fewer images are not drawn."""

_PAIR = ["attack", "source", "target"]
_OF_PAIR = {"attack": "attack", "source": "first_source", "target": "first_target"}


def hypothesis(view: View, numbers: PageData) -> Section | None:
    """Build the section: a pair's curves by initial confidence, and every pair's correlation."""
    effects = numbers.table("effects")
    if effects.empty:
        return None
    title = "Are confident images harder to manipulate?"
    rows = effects[effects["n"] >= ENOUGH].reset_index(drop=True)
    if rows.empty:
        return Section("hypothesis", title, (too_few(effects["n"]),))
    verdicts = rows["verdict"].value_counts()
    counts = ", ".join(f"{name} for {count}" for name, count in verdicts.items())
    text = (
        f"Images with a high initial confidence are harder to manipulate: "
        f"{counts} of {len(rows)} pairs (95 % intervals, not corrected for the number of pairs)."
    )
    caption = (
        "Spearman's correlation between initial confidence and minimum adversarial budget. One "
        f"tick per pair, over {span(rows['n'])} initially correct images. Right of 0, more "
        "confident images need a larger budget. Click a tick to choose its pair."
    )
    heading = "Initial confidence and minimum budget, all pairs"
    chart, shape = _effects_chart(rows), ("half", view.choice)
    figures = [Figure("hypothesis", heading, caption, chart, rows, *shape)]
    groups = numbers.table("groups")
    few = groups["n"] < FEWEST_IN_GROUP
    if not few.all():
        count = groups["group"].nunique()
        caption = (
            f"The chosen pair: accuracy and mean confidence in {count} groups of equal size by "
            "initial confidence. Labels show the range of initial confidence; 95 % intervals. "
            f"Every counted image is in a group; groups with fewer than {FEWEST_IN_GROUP} images "
            "are not drawn."
        )
        chart, heading = _by_group(groups[~few]), "By initial confidence"
        figures.insert(0, Figure("groups", heading, caption, chart, groups, *shape, _OF_PAIR))
    return Section("hypothesis", title, (text,), tuple(figures))


def _effects_chart(effects: pd.DataFrame) -> ChartType:
    """Draw one tick per pair in the row of its target, and the interval of the chosen pair."""
    rows = effects[effects["rho"].notna()]
    lines = tooltip(*_PAIR, "n", "flipped", "verdict", numbers=["rho", "rho_low", "rho_high"])
    scale = extent(rows.assign(at=0.0), "at", "rho", "rho_low", "rho_high")

    def x(column: str) -> alt.X:
        title = "rank correlation (Spearman's rho)"
        return alt.X(f"{column}:Q", title=title, axis=alt.Axis(format=".1f"), scale=scale)

    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("target:N", sort=None, title="target", axis=alt.Axis(grid=True)),
        x=x("rho"),
        tooltip=lines,
    )
    ticks = base.mark_tick(thickness=2.5, size=17, cursor="pointer").encode(
        color=where(OF_PAIR, ACCENT, "#3b76af"), opacity=where(chosen("attack"), 0.95, 0.25)
    )
    pair = base.transform_filter(OF_PAIR)
    ends = pair.mark_rule(strokeWidth=2, color=ACCENT).encode(x=x("rho_low"), x2="rho_high:Q")
    dot = pair.mark_point(filled=True, size=70, color=ACCENT, opacity=1)
    rule = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY).encode(x=x("at"))
    title = alt.Title(alt.ExprRef(f"'in colour: ' + {PAIR_TITLE}"))
    chart = alt.layer(rule, ticks, ends, dot)
    return chart.properties(width=PANEL, height=26 * rows["target"].nunique(), title=title)


def _by_group(groups: pd.DataFrame) -> ChartType:
    """Draw accuracy and confidence over the budget, one line per group of initial confidence."""
    ends = np.floor(1e4 * groups[["lowest", "highest"]].to_numpy()) / 100  # 99.999 % is not 100 %
    rows = groups.assign(range=[f"{low:g} to {high:g} %" for low, high in ends])
    colour = colour_of_levels("group", "ascending")
    panels = []
    for value, title in (("robust_accuracy", CORRECT), ("confidence", "confidence")):
        limits = [value, f"{value}_low", f"{value}_high"]
        lines = tooltip(*_PAIR, "eps_255", "n", shares=["lowest", "highest", *limits])
        base = alt.Chart().encode(x=budgets(rows), color=colour)
        names = names_at_ends("range", value, at_last("range"), colour)
        panel = alt.layer(*curve(base, value, lines).layer, *names)
        panels.append(panel.properties(width=PANEL - 70, height=190, title=title))
    pair = alt.Title(alt.ExprRef(PAIR_TITLE))
    chart = alt.concat(*panels, columns=2, data=inline(rows), spacing=24, title=pair)
    return chart.transform_filter(OF_PAIR)
