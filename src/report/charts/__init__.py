"""Charts as Vega-Lite specifications: one function each, for the page, paper and notebooks.

A function draws rows, such as those of a statistic, and computes none of their numbers. Without
rows a chart draws `ROWS`, which the page adds.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType
from pandas.api.types import is_integer_dtype, is_numeric_dtype

from ...analysis import OWN, WHITE_BOX
from ...config.sections import ChartSettings
from .theme import (
    ACCENT,
    GREY,
    INK,
    LINE,
    PANEL,
    PERCENT,
    PLAIN,
    ROWS,
    WHITE_BOX_GREY,
    WHOLE,
    colour_by,
    extent,
    inline,
    points,
    tooltip,
    where,
)

_CROSS = "M-1,-1L1,1M1,-1L-1,1"
_AT = alt.NamedData("at")
"""The chosen budget, as the only row: `eps_255`."""
_TICK = "M-0.15,-1H0.15V1H-0.15Z"
"""A vertical bar, as a symbol of a legend."""
_COUNTS = ["images", "n", "denominator", "success", "control_success", "still_correct"]
_COUNTS += ["correct", "abstained"]
"""Columns of counts in tooltips."""
_GIVEN: dict[str, Any] = {"scale": None, "legend": None}
"""Keywords of an encoding whose values are in the rows, as colours and dashes."""


def curves(
    tried: Sequence[float],
    height: float,
    scale: alt.Scale = WHOLE,
    names: bool = True,
    *,
    rows: Any = ROWS,
    at: bool = False,
    end: float | None = None,
    bands: bool = False,
    title: str | None = None,
    line: float = 14,
) -> Any:
    """Draw series over the budget as lines with markers, on a linear axis with every budget.

    The rows have `eps_255`, `value`, `series`, and how it is drawn: `colour`, `dash`, `shape`,
    `width`, `label` (the name at its end) and `right` (False: a cross); for `bands` also `low` and
    `high`. `at` marks one budget, `end` is that of the axis (None: the largest tried). A `title` of
    the y axis adds one to the x axis. `line` is the least distance of names.
    """
    plain: dict[str, Any] = {"labelOverlap": "greedy", "grid": False, "labelFlush": False}
    plain |= {"tickCount": len(tried) + 1, "labelSeparation": 1}  # else ticks are left out
    ticks = alt.Axis(values=[0, *tried], format=".6~g", **plain)
    across = alt.Scale(domain=[0, end or max(tried)])
    x = alt.X("eps_255:Q", title=title and "budget (1/255)", scale=across, axis=ticks)
    grid = alt.Axis(format=".0%", tickCount=4, title=title)
    y = alt.Y("value:Q", scale=scale, axis=grid)
    colour = alt.Color("colour:N", **_GIVEN)
    base = alt.Chart().encode(x=x, detail="series:N", color=colour)
    tips = tooltip("series eps_255", shares=["value"])
    curve = base.mark_line().encode(
        y=y,
        strokeDash=alt.StrokeDash("dash:N", **_GIVEN),
        strokeWidth=alt.StrokeWidth("width:Q", **_GIVEN),
    )
    right, wrong = (base.transform_filter(f"{no}datum.right") for no in ("", "!"))
    dots = right.mark_point(filled=True, style="marker", opacity=1)
    dots = dots.encode(y=y, shape=alt.Shape("shape:N", **_GIVEN), tooltip=tips)
    crosses = wrong.mark_point(style="cross", opacity=1, shape=_CROSS).encode(y=y, tooltip=tips)
    layers: list[Any] = [curve, dots, crosses]
    if bands:
        low = alt.Y("low:Q", scale=scale, axis=grid)
        layers.insert(0, base.mark_area(opacity=0.13).encode(y=low, y2="high:Q"))
    if at:
        layers = _mark(x, layers)
    if names:
        step = line * scale.to_dict()["domain"][1] / height
        last: Any = [alt.JoinAggregateFieldDef(op="max", field="eps_255", **{"as": "last"})]
        ends = alt.Chart().transform_joinaggregate(last, groupby=["series"])
        ends = ends.transform_filter("datum.eps_255 == datum.last")
        ends = ends.transform_filter("datum.label")
        layers += names_at_ends("eps_255", "value", ends, colour, step, scale)
    return alt.layer(*layers, data=rows).properties(height=height)


def _mark(x: alt.X, layers: Sequence[Any]) -> list[Any]:
    """Add marks of the chosen budget: a rule below the layers, a number on the axis."""
    rule = alt.Chart(_AT).mark_rule(strokeWidth=1, color="var(--second)").encode(x=x)
    tick = alt.Chart(_AT).encode(x=x, y=alt.value(alt.ExprRef("height + 13")))
    square: dict[str, Any] = {"shape": "square", "size": 230, "filled": True, "opacity": 1}
    box = tick.mark_point(color="var(--text)", **square)
    number = tick.mark_text(color="var(--back)", fontSize=11, fontWeight="bold", dy=1)
    return [rule, *layers, box, number.encode(text=alt.Text("eps_255:Q", format=".6~g"))]


def names_at_ends(
    x: str,
    value: str,
    ends: alt.Chart,
    colour: Any,
    step: float,
    scale: alt.Scale,
    apart: Sequence[str] = (),
) -> list[Any]:
    """Write each `label` to the right of its point (`x`, `value`), and draw lines to them.

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
        x=f"{x}:Q", y=alt.Y("place:Q", scale=scale), text="label:N"
    )
    return [part.encode(color=colour) for part in (line, labels)]


def matrix(rows: pd.DataFrame, column: str, angle: float) -> ChartType:
    """Draw the transfer matrix of one attack at one budget, with the shares of a column in cells.

    Cells are dark where the share is large, and grey if they are white boxes. The rows are those of
    one protocol and defence. `angle` is that of the targets' names.
    """
    sources, targets = (list(dict.fromkeys(rows[name])) for name in ("source", "target"))
    top = alt.Axis(orient="top", labelAngle=angle, ticks=False, labelLimit=220)
    left = alt.Axis(orient="left", labelAngle=0, ticks=False, labelLimit=220)
    base = alt.Chart().encode(
        x=alt.X("target:N", sort=targets, title="target", axis=top),
        y=alt.Y("source:N", sort=sources, title="source", axis=left),
    )
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    rate = alt.Color(f"{column}:Q", scale=scale, legend=None)
    white = f"datum.relation == '{WHITE_BOX}'"
    rects = base.mark_rect(strokeWidth=2, invalid=None).encode(
        color=alt.when(white).then(alt.value(WHITE_BOX_GREY)).otherwise(rate),
        stroke=where(f"datum.relation == '{OWN}'", "#f2b28e", "transparent"),
    )
    ink = where(f"datum.{column} > 0.55 && !({white})", "white", "#1d2127")
    texts = base.mark_text(style="name").encode(text="share:N", color=ink)
    spread = "datum.success_rate_sd"  # over seeds, in points
    spread = f"(isValid({spread}) ? ' \N{PLUS-MINUS SIGN} ' + format(100 * {spread}, '.1f') : '')"
    spread = spread if column == "success_rate" else "''"
    points = rows[["source", "target", "relation", "n", column, "success_rate_sd"]]
    return alt.layer(rects, texts, data=inline(points)).transform_calculate(
        share=f"datum.n > 0 ? format(datum.{column}, '.0%') + {spread} : 'n/a'",
    )


def ranking(rows: pd.DataFrame, title: str) -> ChartType:
    """Draw the mean success with a line from `start` to `end`, and a vertical line `at` the first.

    Undecided attacks have the colour of the first.
    """
    names = alt.Axis(ticks=False, labelPadding=3)
    y = alt.Y("label:N", sort=list(rows["label"]), title=None, axis=names)
    head: dict[str, Any] = {"orient": "top", "format": ".3~%", "tickCount": 4, "grid": True}
    axis = alt.Axis(labelFlush=True, title=title, **head)
    along: dict[str, Any] = {"scale": alt.Scale(zero=False, nice=True), "axis": axis}
    colour = where("datum.undecided", ACCENT, PLAIN)
    base = alt.Chart(inline(rows)).encode(y=y, color=colour)
    band = {"y": y.bandPosition(0), "y2": alt.Y2("label", bandPosition=1)}
    line = base.mark_rule(strokeWidth=0.7).encode(x=alt.X("at:Q", **along), **band)
    line = line.encode(color=alt.value(ACCENT))
    return alt.layer(line, *points(base, "x", "mean", "start", "end", **along))


def cost(
    rows: pd.DataFrame, title: str, across: Sequence[float], up: Sequence[float], step: float
) -> ChartType:
    """Draw the `mean` over `gradients`, in these domains, with names at least one `step` apart."""
    colour = alt.Color("colour:N", **_GIVEN)
    steps = [step * 10.0**power for power in range(-3, 9) for step in (1, 2, 5)]
    ticks = alt.Axis(values=steps, format=",.6~g", grid=False, labelOverlap=True)
    scale = alt.Scale(domain=list(up), nice=False)
    place = alt.Scale(type="log", domain=list(across), nice=False)
    x = alt.X("gradients:Q", title="gradients per image", axis=ticks, scale=place)
    base = alt.Chart().encode(x=x, color=colour)
    bars, dots = points(base, "y", "mean", "low", "high", title=title, axis=PERCENT, scale=scale)
    line, name = names_at_ends("gradients", "mean", alt.Chart(), colour, step, scale, ["column"])
    dark, around = (name.encode(color=alt.value(tone)) for tone in (INK, "white"))
    around.mark = alt.MarkDef(**{**name.mark.to_dict(), "stroke": "white", "strokeWidth": 2})
    return alt.layer(bars, line, around, dots, dark, data=inline(rows))


def statistic(rows: pd.DataFrame, chart: ChartSettings, height: float = 220) -> ChartType:
    """Draw the column `y` of a statistic, with intervals from `Y_low` to `Y_high` if there are any.

    `ROWS` are drawn, some of these rows; the axes have room for all.
    """
    y, marks, flat = chart.y, chart.marks, chart.marks in ("rows", "ticks", "bars")
    ends = [end for end in (f"{y}_low", f"{y}_high") if end in rows]
    numeric = is_numeric_dtype(rows[chart.x]) and not flat
    lines = marks == "lines" or (numeric and not marks)
    whole = chart.percent and chart.y_scale == "linear" and (lines or marks == "bars")
    room = extent(rows.assign(at=0.0), y, *ends, *["at"] * flat, type=chart.y_scale)
    value: dict[str, Any] = {"title": chart.title(y), "scale": WHOLE if whole else room}
    value |= {"axis": PERCENT} if chart.percent else {}
    base, colour, tips = alt.Chart(ROWS), chart.colour, _tips(rows, chart, [y, *ends], numeric)
    legend: dict[str, Any] = {"symbolType": "stroke", "symbolStrokeWidth": 4} if lines else {}
    legend |= {"symbolType": _TICK, "symbolOpacity": 1} if marks == "ticks" else {}
    base = base.encode(color=alt.value(PLAIN))
    if colour:
        scheme = colour_by(colour, rows[colour], chart.title(colour), orient="bottom", **legend)
        base = base.encode(color=scheme.legend(None) if chart.names else scheme)
    size: dict[str, Any] = {"width": PANEL, "height": height}
    if flat:
        axis, step = alt.Axis(grid=marks != "bars", ticks=False, labelPadding=8), 22
        base = base.encode(y=alt.Y(f"{chart.x}:N", sort=None, title=None, axis=axis))
        if colour and marks == "rows":
            step = max(step, 9 * rows[colour].nunique())
            base = base.encode(yOffset=alt.YOffset(f"{colour}:N", sort=None))
        size["height"] = alt.Step(step, **{"for": "position"})
    else:
        base = base.encode(x=_across(rows, chart, numeric))
    at: dict[str, Any] = {"x" if flat else "y": (alt.X if flat else alt.Y)(f"{y}:Q", **value)}
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY)
    layers = [zero.encode(x=alt.X("at:Q", **value))] * (flat and marks != "bars")
    if lines:
        base = base.encode(detail="source:N") if "source" in rows else base
        if ends:
            low, high = alt.Y(f"{ends[0]}:Q", **value), f"{ends[1]}:Q"
            layers.append(base.mark_area(opacity=0.13).encode(y=low, y2=high))
        at |= {"strokeDash": alt.StrokeDash(f"{chart.dash}:N", legend=None)} if chart.dash else {}
        line = base.mark_line(point=alt.OverlayMarkDef(style="vertex"))
        layers.append(line.encode(**at, tooltip=tips))
    elif marks == "bars":
        layers.append(base.mark_bar().encode(**at, tooltip=tips))
    elif marks == "ticks":
        tick = base.mark_tick(thickness=2.5, size=17, opacity=0.8)
        layers.append(tick.encode(**at, tooltip=tips))
    else:
        layers += points(base.encode(tooltip=tips), "x" if flat else "y", y, *ends, **value)
    if chart.names and not (flat or lines):
        names = base.mark_text(align="left", dx=7, dy=-5, fontSize=11)
        layers.append(names.encode(**at, text=f"{colour or chart.x}:N"))
    return alt.layer(*layers).properties(**size)


def _across(rows: pd.DataFrame, chart: ChartSettings, numeric: bool) -> alt.X:
    """Return the horizontal axis of a statistic's numbers or names."""
    title = chart.title(chart.x)
    if not numeric:
        return alt.X(f"{chart.x}:N", sort=None, title=title)
    ticks: dict[str, Any] = {"format": ".6~g"}
    ticks |= {"tickMinStep": 1} if is_integer_dtype(rows[chart.x]) else {}
    if chart.x_scale == "sqrt":
        ticks |= {"values": sorted({*rows[chart.x]}), "labelOverlap": "greedy"}
    scale = extent(rows, chart.x, type=chart.x_scale, padding=34 * chart.names)
    return alt.X(f"{chart.x}:Q", title=title, axis=alt.Axis(**ticks), scale=scale)


def _tips(rows: pd.DataFrame, chart: ChartSettings, values: list[str], numeric: bool) -> list[Any]:
    """Return a statistic's tooltip: names, counts, and values, and `x` if it is a number."""
    numbers = [chart.x] * numeric
    texts = ["attack", "source", "target", chart.x, chart.colour, chart.dash, *_COUNTS]
    texts = [name for name in dict.fromkeys(texts) if name in rows and name not in numbers]
    if chart.percent:
        return tooltip(" ".join(texts), shares=values, numbers=numbers)
    return tooltip(" ".join(texts), numbers=[*numbers, *values])


def profiles(rows: Any = ROWS) -> ChartType:
    """Draw the five highest probabilities, one colour per level of initial confidence."""
    scale = alt.Scale(scheme=alt.SchemeParams(name="viridis", extent=[0.15, 0.95]))
    named = alt.Legend(title="initial confidence", format=".0%", orient="bottom")
    bars = alt.Chart(rows).mark_bar().properties(width=PANEL, height=160)
    return bars.encode(
        x=alt.X("rank:O", title="class, by probability", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("level:N", sort="descending"),
        y=alt.Y("confidence:Q", title="mean probability", axis=PERCENT),
        color=alt.Color("level:O", sort="descending", scale=scale, legend=named),
        tooltip=tooltip("model level rank images", shares=["confidence"]),
    )


def histogram() -> ChartType:
    """Draw counts of correct and wrong images by bins of confidence, from `low` to `high`."""
    right = alt.Scale(domain=["correct", "wrong"], range=[PLAIN, "#d08a3c"])
    bins = alt.Axis(format=".0%", grid=False)
    bars = alt.Chart(ROWS).mark_bar(stroke="var(--back)").properties(width=PANEL, height=160)
    return bars.encode(
        x=alt.X("low:Q", title=None, axis=bins, scale=WHOLE, bin="binned"),
        x2="high:Q",
        y=alt.Y("images:Q", title=None, axis=alt.Axis(tickMinStep=1, tickCount=4)),
        color=alt.Color("images_are:N", scale=right).legend(title=None, orient="bottom"),
        order="images_are:O",
        tooltip=tooltip("images_are images", shares=["low", "high"]),
    )


def classes(rows: pd.DataFrame, title: str, width: float, step: float) -> ChartType:
    """Draw classes as bars, by `rank`, with a `text` and `colour` each."""
    y = alt.Y("rank:O", axis=None, scale=alt.Scale(domain=list(range(5))))
    base = alt.Chart(inline(rows)).encode(y=y)
    x, colour = alt.X("value:Q", axis=None, scale=WHOLE), alt.Color("colour:N", scale=None)
    bars = base.mark_bar(height=step - 1).encode(x=x, color=colour)
    names = base.mark_text(align="left", dx=2, limit=width, style="name", color=INK)
    names = names.encode(x=alt.value(0), text="text:N")
    heading = alt.Title(title, offset=1)
    return alt.layer(bars, names).properties(width=width, height=5 * step, title=heading)


def strip(rows: pd.DataFrame, width: float, height: float) -> ChartType:
    """Draw pictures by their `url` side by side, with the lines of their `text` below them."""
    base = alt.Chart(inline(rows))
    base = base.encode(x=alt.X("place:O", axis=None, scale=alt.Scale(padding=0)))
    pictures = base.mark_image(width=width, height=height)
    pictures = pictures.encode(url="url:N", y=alt.value(height / 2))
    texts = base.mark_text(style="name", baseline="top", lineBreak="\n", lineHeight=LINE)
    colour = alt.Color("colour:N", scale=None)
    texts = texts.encode(text="text:N", color=colour, y=alt.value(height + 2))
    lines = rows["text"].str.count("\n").max() + 1
    return alt.layer(pictures, texts).properties(height=height + (lines + 0.3) * LINE)
