"""Curves over the budget, and names at the ends of curves."""

from collections.abc import Sequence
from typing import Any

import altair as alt
from altair.typing import ChartType

from .theme import ROWS, WHOLE, tooltip

_CROSS = "M-1,-1L1,1M1,-1L-1,1"
_AT = alt.NamedData("at")
"""The chosen budget, as the only row: `eps_255`."""


def series_chart(
    tried: Sequence[float],
    height: float,
    scale: alt.Scale = WHOLE,
    names: bool = True,
    *,
    rows: Any = ROWS,
    at: bool = True,
    end: float | None = None,
    bands: bool = False,
    title: str | None = None,
    size: float = 46,
    line_height: float = 14,
) -> ChartType:
    """Draw series over the budget as lines with markers, on a linear axis with every budget.

    The rows have `eps_255`, `value`, `series`, and how it is drawn: `colour`, `dash`, `shape`,
    `width`, `label` (the name at its end) and `right` (False: a cross); for `bands` also `low` and
    `high`. `at` marks one budget, `end` is that of the axis (None: the largest tried). A `title` of
    the y axis adds one to the x axis. `size` is the area of a marker, `line_height` the least
    distance of names.
    """
    top = scale.to_dict()["domain"][1]
    plain: dict[str, Any] = {"labelOverlap": "greedy", "grid": False, "labelFlush": False}
    plain |= {"tickCount": len(tried) + 1, "labelSeparation": 1}  # else ticks are left out
    ticks = alt.Axis(values=[0, *tried], format=".6~g", **plain)
    across = alt.Scale(domain=[0, end or max(tried)])
    budget = title and "budget (1/255)"
    x = alt.X("eps_255:Q", title=budget, scale=across, axis=ticks)
    grid = alt.Axis(format=".0%", tickCount=4, title=title)
    y = alt.Y("value:Q", scale=scale, axis=grid)
    as_given: dict[str, Any] = {"scale": None, "legend": None}
    base = alt.Chart(rows).encode(x=x, detail="series:N", color=alt.Color("colour:N", **as_given))
    lines = tooltip("series", "eps_255", shares=["value"])
    line = base.mark_line().encode(
        y=y,
        strokeDash=alt.StrokeDash("dash:N", **as_given),
        strokeWidth=alt.StrokeWidth("width:Q", **as_given),
    )
    right, wrong = (base.transform_filter(f"{no}datum.right") for no in ("", "!"))
    dots = right.mark_point(filled=True, size=size, opacity=1).encode(
        y=y, shape=alt.Shape("shape:N", **as_given), tooltip=lines
    )
    crosses = wrong.mark_point(size=size, strokeWidth=size / 23, opacity=1, shape=_CROSS)
    layers = [line, dots, crosses.encode(y=y, tooltip=lines)]
    if bands:
        low = alt.Y("low:Q", scale=scale, axis=grid)
        layers.insert(0, base.mark_area(opacity=0.13).encode(y=low, y2="high:Q"))
    if at:
        layers = _mark(x, layers)
    if names:
        step = line_height * top / height
        colour = alt.Color("colour:N", **as_given)
        ends = at_last("series").transform_filter("datum.label")
        labels = names_at_ends("label", "value", ends, colour, step=step, scale=scale)
        layers += [label.properties(data=rows) for label in labels]
    return alt.layer(*layers).properties(height=height)


def _mark(x: alt.X, layers: Sequence[Any]) -> list[Any]:
    """Add marks of the chosen budget: a rule below the layers, a number on the axis."""
    rule = alt.Chart(_AT).mark_rule(strokeWidth=1, color="var(--second)").encode(x=x)
    tick = alt.Chart(_AT).encode(x=x, y=alt.value(alt.ExprRef("height + 13")))
    square: dict[str, Any] = {"shape": "square", "size": 230, "filled": True, "opacity": 1}
    box = tick.mark_point(color="var(--text)", **square)
    number = tick.mark_text(color="var(--back)", fontSize=11, fontWeight="bold", dy=1)
    return [rule, *layers, box, number.encode(text=alt.Text("eps_255:Q", format=".6~g"))]


def at_last(by: str) -> alt.Chart:
    """Return a chart of the rows at the largest budget for each value of the column `by`."""
    last: Any = [alt.JoinAggregateFieldDef(op="max", field="eps_255", **{"as": "last"})]
    chart = alt.Chart().transform_joinaggregate(last, groupby=[by])
    return chart.transform_filter("datum.eps_255 == datum.last")


def names_at_ends(
    by: str,
    value: str,
    ends: alt.Chart,
    colour: Any,
    x: str = "eps_255",
    step: float = 0.085,
    scale: alt.Scale = WHOLE,
    apart: Sequence[str] = (),
) -> list[Any]:
    """Write names to the right of points (`x`, `value`), without overlap, with lines to them.

    A name is at least one `step` below the name above it, and within the domain of the `scale`.
    Rows that differ in the columns `apart` have their names side by side.
    """
    low = scale.to_dict()["domain"][0]
    by_value: Any = [alt.SortField(value, order="descending")]
    within: Any = {"groupby": [*apart]} if apart else {}
    placed = (
        ends.transform_window(rank="row_number()", sort=by_value, **within)
        .transform_joinaggregate(count="count()", **within)
        .transform_calculate(shifted=f"datum.{value} + datum.rank * {step}")
        .transform_window(least="min(shifted)", sort=by_value, frame=[None, 0], **within)
        .transform_calculate(
            place=f"max(datum.least, {low} + datum.count * {step}) - datum.rank * {step}"
        )
    )
    line = placed.mark_rule(strokeWidth=0.8, xOffset=3, x2Offset=22).encode(
        x=f"{x}:Q", x2=f"{x}:Q", y=alt.Y(f"{value}:Q", scale=scale), y2="place:Q"
    )
    labels = placed.mark_text(align="left", dx=25, style="name").encode(
        x=f"{x}:Q", y=alt.Y("place:Q", scale=scale), text=f"{by}:N"
    )
    return [part.encode(color=colour) for part in (line, labels)]
