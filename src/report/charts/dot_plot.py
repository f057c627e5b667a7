"""Dot plots: values with their intervals, one row each."""

from collections.abc import Sequence

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.report.charts.theme import GREY, PANEL, PERCENT, colour_by, extent, inline, tooltip

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
    axis = alt.Axis(grid=True, ticks=False, labelPadding=8)
    base = (
        alt.Chart(inline(frame[[name for name in used if name in frame]]))
        .transform_filter(shown)
        .encode(
            y=alt.Y(f"{row}:N", sort=None, title=None, axis=axis),
            yOffset=alt.YOffset(f"{by}:N", sort=None),
            color=colour_by(by, names or frame[by].tolist(), orient="bottom"),
            tooltip=tooltip(*tooltips, shares=[value, low, high]),
        )
    )
    scale = extent(frame.assign(at=0.0), "at", value, low, high)

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title=title, axis=PERCENT, scale=scale)

    points = base.mark_point(filled=True, size=60, opacity=1).encode(x=x(value))
    bars = base.mark_rule(strokeWidth=1.5).encode(x=x(low), x2=f"{high}:Q")
    rule = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY).encode(x=x("at"))
    step = max(22, 9 * frame[by].nunique())
    height = step * frame[row].nunique()
    return alt.layer(rule, bars, points).properties(
        height=height, width=PANEL, title=alt.Title(alt.ExprRef(heading))
    )
