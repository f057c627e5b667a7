"""Dot plots: values with their intervals, one row each."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.report.charts.theme import GREY, PANEL, PERCENT, colour_by, extent, inline, points, tooltip

OF_SOURCE = "datum.attack == chosen_attack && datum.source == chosen_first_source"
"""Expression that selects the rows of the chosen attack and source."""
SOURCE_TITLE = "chosen_attack + ', source ' + chosen_first_source"
"""Expression for the names of the chosen attack and source."""


def dot_plot(
    frame: pd.DataFrame,
    value: str,
    title: str,
    tooltips: Sequence[str],
    *,
    by: str,
    names: Sequence[str] = (),
    row: str = "target",
    shown: str = OF_SOURCE,
    heading: str = SOURCE_TITLE,
) -> ChartType:
    """Draw points with intervals, rows in the order of the table, and a rule at 0.

    The columns `VALUE_low` and `VALUE_high` hold the intervals (NaN: none). Each value of `by` has
    a colour and its own line within a row; `names` lists all of them in order. `shown` is the
    expression that selects the drawn rows, `heading` the expression for the title.
    """
    low, high = f"{value}_low", f"{value}_high"
    used = dict.fromkeys([row, by, value, low, high, "attack", "source", *tooltips])
    rows = alt.Axis(grid=True, ticks=False, labelPadding=8)
    base = (
        alt.Chart(inline(frame[[name for name in used if name in frame]]))
        .transform_filter(shown)
        .encode(
            y=alt.Y(f"{row}:N", sort=None, title=None, axis=rows),
            yOffset=alt.YOffset(f"{by}:N", sort=None),
            color=colour_by(by, names or frame[by].tolist(), orient="bottom"),
            tooltip=tooltip(*tooltips, shares=[value, low, high]),
        )
    )
    scale = extent(frame.assign(at=0.0), "at", value, low, high)
    axis: Any = {"title": title, "axis": PERCENT, "scale": scale}
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY)
    rule = zero.encode(x=alt.X("at:Q", **axis))
    step = max(22, 9 * frame[by].nunique())
    height = step * frame[row].nunique()
    return alt.layer(rule, *points(base, "x", value, low, high, **axis)).properties(
        height=height, width=PANEL, title=alt.Title(alt.ExprRef(heading))
    )
