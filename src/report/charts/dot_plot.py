"""Dot plots: values with their intervals, one row each, and success over the cost of attacks."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from .theme import ACCENT, GREY, PANEL, PERCENT, ROWS, colour_by, extent, points, tooltip, where


def dot_plot(
    frame: pd.DataFrame,
    value: str,
    title: str,
    tooltips: Sequence[str],
    *,
    by: str,
) -> ChartType:
    """Draw `ROWS`, some rows of a frame, as points with intervals per target, and a rule at 0.

    The columns `VALUE_low` and `VALUE_high` hold the intervals (NaN: none). Each value of `by` has
    a colour and its own line within a target's row.
    """
    low, high = f"{value}_low", f"{value}_high"
    rows = alt.Axis(grid=True, ticks=False, labelPadding=8)
    base = alt.Chart(ROWS).encode(
        y=alt.Y("target:N", sort=None, title=None, axis=rows),
        yOffset=alt.YOffset(f"{by}:N", sort=None),
        color=colour_by(by, frame[by].tolist(), orient="bottom"),
        tooltip=tooltip(*tooltips, shares=[value, low, high]),
    )
    scale = extent(frame.assign(at=0.0), "at", value, low, high)
    axis: Any = {"title": title, "axis": PERCENT, "scale": scale}
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY)
    rule = zero.encode(x=alt.X("at:Q", **axis))
    height = max(22, 9 * frame[by].nunique()) * frame["target"].nunique()
    layers = points(base, "x", value, low, high, **axis)
    return alt.layer(rule, *layers).properties(height=height, width=PANEL)


def differences(base: alt.Chart, y: alt.Y, title: str) -> ChartType:
    """Draw the mean success with a line from `start` to `end`, and a vertical line `at` the first.

    Undecided attacks have the colour of the first.
    """
    head = alt.Axis(
        orient="top", format=".3~%", tickCount=4, grid=True, labelFlush=True, title=title
    )
    domain = alt.Scale(zero=False, nice=True)
    colour = where("datum.undecided == 'yes' || datum.undecided == 'first'", ACCENT, "#6b7788")
    base = base.encode(y=y, color=colour)
    along: dict[str, Any] = {"scale": domain, "axis": head}
    band = {"y": y.bandPosition(0), "y2": alt.Y2("label", bandPosition=1)}
    line = base.mark_rule(strokeWidth=0.7).encode(x=alt.X("at:Q", **along), **band)
    line = line.encode(color=alt.value(ACCENT))
    return alt.layer(line, *points(base, "x", "mean", "start", "end", **along))


def success_over(column: str, title: str) -> ChartType:
    """Draw the `mean` success in `ROWS` of a ranking over a column, with the attacks' names."""
    lines = tooltip("attack", "source", "targets", column, shares=["mean", "low", "high"])
    across = alt.Scale(padding=34, zero=False)
    axis = alt.Axis(format=".4~g", grid=True)  # `~s` would turn 0.9 into 900m
    base = alt.Chart(ROWS).encode(
        x=alt.X(f"{column}:Q", scale=across, axis=axis).title(title),
        color=alt.value("#3b76af"),
        tooltip=lines,
    )
    up = alt.Scale(zero=False, padding=10)
    layers = points(base, "y", "mean", "low", "high", title=None, axis=PERCENT, scale=up)
    names = base.mark_text(align="left", dx=7, dy=-5, fontSize=11)
    layers.append(names.encode(text="attack:N", y=alt.Y("mean:Q", scale=up)))
    return alt.layer(*layers).properties(width=PANEL, height=260)
