"""Dot plots: values with their intervals, a row each."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from src.report.charts.theme import GREY, Drawn, inline, menu, tooltip

MOST_ROWS = 60
"""A longer dot plot shows the rows of one source, or whatever it is divided by, at a time."""


def dot_plot(
    frame: pd.DataFrame,
    value: str,
    *,
    colour: alt.Color,
    offset: str,
    title: str,
    name: str,
    divided_by: str,
    percent: bool = True,
    tooltips: Sequence[str] = (),
    select: alt.Parameter | None = None,
) -> Drawn:
    """Return points with intervals, rows in the order of the table, and a rule at 0.

    Args:
        frame: With `row` (which names the rows), `value` and its interval, `VALUE_low` and
            `VALUE_high` (NaN: none), and what the other arguments name.
        value: Column of the values.
        colour: Encoding of the colour.
        offset: Column whose values stand below each other within a row.
        title: Of the x axis.
        name: Of the chart, for its menu.
        divided_by: Column that a menu chooses a value of, where the rows are too many.
        percent: Whether values are shares.
        tooltips: More columns that a tooltip tells.
        select: A selection of points.
    """
    low, high = f"{value}_low", f"{value}_high"
    rows = alt.Axis(grid=True, ticks=False, labelPadding=8)
    base = alt.Chart(inline(frame)).encode(
        y=alt.Y("row:N", sort=None, title=None, axis=rows),
        yOffset=alt.YOffset(f"{offset}:N", sort=None),
        color=colour,
        tooltip=tooltip(*tooltips, **{"shares" if percent else "numbers": [value, low, high]}),
    )
    chosen = []
    parts = list(dict.fromkeys(frame[divided_by]))
    if len(frame) > MOST_ROWS and len(parts) > 1:
        chosen = [menu(f"{name}_of", divided_by, parts, parts[0])]
        base = base.transform_filter(f"datum['{divided_by}'] == {name}_of")
    axis = alt.Axis(format=".0%" if percent else ".1f")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X(f"{value}:Q", title=title, axis=axis)
    )
    if select is not None:
        shown = alt.condition(select, alt.value(1), alt.value(0.45))
        points = points.encode(opacity=shown).add_params(select)
    bars = base.mark_rule(strokeWidth=1.5).encode(x=f"{low}:Q", x2=f"{high}:Q")
    rule = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY).encode(x="at:Q")
    step: Any = {"step": 11 if frame[offset].nunique() <= 3 else 8, "for": "offset"}
    return alt.layer(rule, bars, points).properties(height=step, width=320).add_params(*chosen)
