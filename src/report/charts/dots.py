"""Dot plots: values with their intervals, a row each."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.report.charts.theme import GREY, colour_by, inline, one_part, tooltip

MOST_ROWS = 60
"""Most rows drawn at once; a longer dot plot has a menu of parts."""


def dot_plot(
    frame: pd.DataFrame,
    value: str,
    title: str,
    tooltips: Sequence[str],
    *,
    by: str = "attack",
    names: Sequence[str] | None = None,
    divided_by: str = "source",
    percent: bool = True,
    select: alt.Parameter | None = None,
) -> ChartType:
    """Return points with intervals, rows in the order of the table, and a rule at 0.

    The frame has `row` (the label of a row), `value` with its interval `VALUE_low` and `VALUE_high`
    (NaN: none), and the columns that other arguments name. Values of `by` have colours, and stand
    below each other within a row; `names` are all of them in the order of their colours, None: as
    they come. With more than `MOST_ROWS` rows a menu chooses a value of `divided_by`.
    """
    low, high = f"{value}_low", f"{value}_high"
    rows = alt.Axis(grid=True, ticks=False, labelPadding=8)
    used = dict.fromkeys(["row", by, divided_by, value, low, high, *tooltips])
    base = alt.Chart(inline(frame[list(used)])).encode(
        y=alt.Y("row:N", sort=None, title=None, axis=rows),
        yOffset=alt.YOffset(f"{by}:N", sort=None),
        color=colour_by(by, frame[by] if names is None else names),
        tooltip=tooltip(*tooltips, **{"shares" if percent else "numbers": [value, low, high]}),
    )
    if len(frame) > MOST_ROWS:
        base = one_part(base, frame, divided_by)
    axis = alt.Axis(format=".0%" if percent else ".1f")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X(f"{value}:Q", title=title, axis=axis)
    )
    if select is not None:
        opacity = alt.condition(select, alt.value(1), alt.value(0.45))
        points = points.encode(opacity=opacity).add_params(select)
    bars = base.mark_rule(strokeWidth=1.5).encode(x=f"{low}:Q", x2=f"{high}:Q")
    rule = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY).encode(x="at:Q")
    step: Any = {"step": 11 if frame[by].nunique() <= 3 else 8, "for": "offset"}
    return alt.layer(rule, bars, points).properties(height=step, width=320)
