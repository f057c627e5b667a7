"""Theme, sizes, colours, scales and tooltips of all charts, and inline data."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

GREY = "#888888"
"""Colour of zero lines, rules and references, legible on light and on dark."""
ACCENT = "#c2410c"
"""Colour of chosen marks, and of the frames of white boxes."""
PLAIN = "#6b7788"
"""Colour of bars, and of attacks that are weaker."""
INK = "#16191d"
"""Colour of printed text."""
PALETTE = ["#0a66b0", "#b04600", "#00573f", "#7a3aa8", "#a8124f", "#6b4a12", "#00697a"]
"""Colours of attacks by rank; those of the page's light style."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right"]
DASHES = [[], [6, 3], [2, 2.5], [9, 3, 2, 3], [4, 4], [10, 4], [1, 3]]
"""Markers and dashes of attacks by rank; those of the page."""
SHADES = ["#8a939c", "#6b95b8", "#2f77b5", "#16191d"]
"""Colours of groups by initial confidence, the least confident first; those of the page."""
WHITE_BOX_GREY = "#d3d7dd"
"""Colour of white boxes, outside the colour scale for rates."""
PANEL = 260
"""Width of a chart, or of one of its panels, before it adapts to the window."""
_LEGEND = 300
"""Width of a legend below a chart, in pixels."""
PERCENT = alt.Axis(format=".2~%")  # a step may be less than 1 %
WHOLE = alt.Scale(domain=[0, 1])
"""Scale for shares, from 0 to 1."""
MEAN = "mean of sources"
"""Name in the column `source` for means over single sources."""
ROWS = alt.NamedData("rows")
"""The rows of a chart that the page adds."""
PRINT, LINE = 7.0, 8.0
"""Size of text on paper and in notebooks, and height of a line, in 1/72 in."""
FONT = "-apple-system, 'Segoe UI', Roboto, Arial, 'Liberation Sans', sans-serif"


def theme(text: float = 12) -> dict[str, Any]:
    """Return the configuration that all charts share; marks have the size of their text."""
    plain, scale = {"titleFontSize": text, "titleFontWeight": "normal"}, text / 12
    sizes = {"marker": 46, "cross": 46, "dot": 60, "vertex": 28}
    styles: dict[str, Any] = {name: {"size": size * scale**2} for name, size in sizes.items()}
    styles["cross"]["strokeWidth"] = 2 * scale
    return {
        "font": FONT,
        "view": {"stroke": None},
        "line": {"strokeWidth": 2 * scale},
        "axis": {
            **{"labelFontSize": text, "gridOpacity": 0.3, "domain": False},
            **{"tickSize": text // 3, "labelSeparation": 5, **plain},
        },
        "legend": {"labelFontSize": text, **plain},
        "title": {"anchor": "start", "fontSize": text},
        "style": {**styles, "interval": {"strokeWidth": 1.5 * scale}, "name": {"fontSize": text}},
    }


def page_theme() -> dict[str, Any]:
    """Return the configuration of charts on the page, with the colours of its style sheet."""
    config = theme()
    text, second, line = "var(--text)", "var(--second)", "var(--line)"
    lines = {"gridColor": "var(--grid)", "gridOpacity": 1, "tickColor": line, "domainColor": line}
    config["axis"] |= {**lines, "labelFontSize": 11, "labelColor": second, "titleColor": second}
    config["legend"] |= {"symbolOpacity": 1, "columns": 4, "labelLimit": 260, "titleLimit": 400}
    config["legend"] |= {"labelColor": text, "titleColor": second}
    config["style"]["name"] |= {"fontWeight": "bold", "limit": 140}
    config |= {"background": "transparent", "axisX": {"domain": True}, "axisY": {"labelLimit": 480}}
    config |= {"padding": {"left": 2, "top": 6, "right": 6, "bottom": 12}, "text": {"color": text}}
    return config


def paper_theme() -> dict[str, Any]:
    """Return the configuration of printed charts."""
    config = theme(PRINT)
    config["axis"] |= {"labelLimit": 0, "tickWidth": 0.5, "gridWidth": 0.5, "titlePadding": 3}
    config["axis"] |= {"labelPadding": 2, "labelFlush": False}
    config["axisY"] = {"tickCount": 5}
    config["title"] |= {"fontWeight": "normal", "frame": "bounds", "offset": 3}
    config["title"] |= {"lineHeight": LINE}
    config["legend"] |= {"labelLimit": 0, "symbolSize": 30, "columns": 5, "offset": 2}
    return config


def where(test: str, value: Any, otherwise: Any) -> Any:
    """Return a conditional encoding: `value` if the expression `test` is true, else `otherwise`."""
    return alt.condition(test, alt.value(value), alt.value(otherwise))


def inline(rows: pd.DataFrame) -> alt.InlineData:
    """Return rows as the data of a chart."""
    return alt.InlineData(values=json.loads(rows.to_json(orient="records")))


def colour_by(
    column: str, names: Iterable[str], title: str | None = None, **legend: Any
) -> alt.Color:
    """Return one colour per name in a column, in this order, so that all charts agree."""
    domain = list(dict.fromkeys(names))
    few: Any = {"range": PALETTE[: len(domain)]}
    many: Any = {"scheme": "tableau20"}
    scale = alt.Scale(domain=domain, **(few if len(domain) <= len(PALETTE) else many))
    columns = _LEGEND // (24 + 6 * max(map(len, map(str, domain)), default=0))
    if columns < 4:  # long names have fewer columns than the theme's
        legend["columns"] = max(1, columns)
    return alt.Color(f"{column}:N", scale=scale, legend=alt.Legend(title=title, **legend))


def points(base: Any, channel: str, value: str, low: str, high: str, **axis: Any) -> list[Any]:
    """Draw points and their intervals along a channel, `x` or `y`, with these keywords."""
    of: Any = {"x": alt.X, "y": alt.Y}[channel]
    at, end = (of(f"{name}:Q", **axis) for name in (value, low))
    bars = base.mark_rule(style="interval").encode(**{channel: end, f"{channel}2": f"{high}:Q"})
    dots = base.mark_point(filled=True, style="dot", opacity=1, cursor="pointer")
    return [bars, dots.encode(**{channel: at})]


def extent(frame: pd.DataFrame, *columns: str, **more: Any) -> alt.Scale:
    """Return a scale over all values of these columns; it stays when a choice selects no rows."""
    values = frame[[*columns]].to_numpy(float)
    finite = values[~np.isnan(values)]
    ends = [float(finite.min()), float(finite.max())] if len(finite) else [0.0, 1.0]
    return alt.Scale(domain=ends, nice=True, **more)


def tooltip(names: str, shares: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Any]:
    """Return the lines of a tooltip: columns with names or counts, with shares, with numbers."""
    columns: list[tuple[str, str, Any]] = [(name, "N", alt.Undefined) for name in names.split()]
    columns += [(name, "Q", ".1%") for name in shares]
    columns += [(name, "Q", ".3g") for name in numbers]
    return [
        alt.Tooltip(f"{name}:{encoding}", title=name.replace("_", " "), format=form)
        for name, encoding, form in columns
    ]
