"""Theme, sizes, colours, scales and tooltips of all charts, and inline data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
FONT = "-apple-system, 'Segoe UI', Roboto, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Sizes:
    """Sizes of text and marks, in pixels; in a printed chart, in 1/72 in.

    Attributes:
        row: Height of a line of text, and least distance of names at the ends of curves.
        marker: Area of a marker of `curves`; `dot` and `vertex` are those of other marks.
        interval: Width of the line of an interval.
    """

    text: float
    ticks: float
    row: float
    line: float
    marker: float
    dot: float
    vertex: float
    interval: float


PAGE = Sizes(text=12, ticks=11, row=14, line=2, marker=46, dot=60, vertex=28, interval=1.5)
PRINT = Sizes(text=7, ticks=7, row=8, line=1.1, marker=14, dot=22, vertex=9, interval=1)
"""Sizes on the page, and on paper and in notebooks."""
PAGE_THEME = "transferability-page"


def theme(sizes: Sizes = PAGE) -> dict[str, Any]:
    """Return the configuration that all charts share, in these sizes."""
    plain = {"titleFontSize": sizes.text, "titleFontWeight": "normal"}
    styles = {"dot": {"size": sizes.dot}, "vertex": {"size": sizes.vertex}}
    styles["interval"] = {"strokeWidth": sizes.interval}
    return {
        "font": FONT,
        "view": {"stroke": None},
        "line": {"strokeWidth": sizes.line},
        "axis": {
            **{"labelFontSize": sizes.ticks, "gridOpacity": 0.3, "domain": False},
            **{"tickSize": sizes.text // 3, "labelSeparation": 5, **plain},
        },
        "legend": {"labelFontSize": sizes.text, **plain},
        "title": {"anchor": "start", "fontSize": sizes.text},
        "style": {**styles, "name": {"fontSize": sizes.text}},
    }


@alt.theme.register(PAGE_THEME, enable=False)  # this import must not change other charts
def page_theme() -> alt.theme.ThemeConfig:
    """Return the configuration of charts on the page, with the colours of its style sheet."""
    config = theme()
    text, second, line = "var(--text)", "var(--second)", "var(--line)"
    lines = {"gridColor": "var(--grid)", "gridOpacity": 1, "tickColor": line, "domainColor": line}
    config["axis"] |= {**lines, "labelColor": second, "titleColor": second}
    config["legend"] |= {"symbolOpacity": 1, "columns": 4, "labelLimit": 260, "titleLimit": 400}
    config["legend"] |= {"labelColor": text, "titleColor": second}
    config["style"]["name"]["fontWeight"] = "bold"
    config |= {"background": "transparent", "axisX": {"domain": True}, "axisY": {"labelLimit": 480}}
    config |= {"padding": {"left": 2, "top": 6, "right": 6, "bottom": 12}, "text": {"color": text}}
    whole: Any = {"config": config}
    return whole


def paper_theme() -> dict[str, Any]:
    """Return the configuration of printed charts."""
    config, text = theme(PRINT), PRINT.text
    config["axis"] |= {"labelLimit": 0, "tickWidth": 0.5, "gridWidth": 0.5, "titlePadding": 3}
    config["axis"] |= {"labelPadding": 2, "labelFlush": False}
    config["axisY"] = {"tickCount": 5}
    config["title"] |= {"fontWeight": "normal", "frame": "bounds", "offset": 3}
    config["title"] |= {"lineHeight": text + 1}
    config["legend"] |= {"labelLimit": 0, "symbolSize": 30, "columns": 5, "offset": 2}
    config["style"]["small-cell"] = {"fontSize": text}
    return config


def where(test: str, value: Any, otherwise: Any) -> Any:
    """Return a conditional encoding: `value` if the expression `test` is true, else `otherwise`."""
    return alt.condition(test, alt.value(value), alt.value(otherwise))


def inline(frame: pd.DataFrame) -> alt.InlineData:
    """Return a table as inline CSV data, which is a third of the size of JSON records.

    Numbers below 1,000 keep four significant digits, larger numbers all digits before the point.
    Budgets keep all digits, because charts compare them. Names stay text, even if they look like
    numbers.
    """
    parse: dict[str, Any] = {
        str(name): "number" if dtype.kind in "iuf" else "string"
        for name, dtype in frame.dtypes.items()
    }
    if "eps_255" in frame:
        frame = frame.assign(eps_255=frame["eps_255"].map(repr))
    written: Any = {"index": False, "float_format": _digits, "lineterminator": "\n"}
    text = frame.to_csv(**written)
    if "\r" in text:  # in a name: pandas does not quote it, and it would end the row
        text = frame.to_csv(**written, quoting=1)
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


def _digits(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def colour_by(
    column: str, names: Iterable[str], title: str | None = None, **legend: Any
) -> alt.Color:
    """Return one colour per name in a column, in this order, so that all charts agree."""
    domain = list(dict.fromkeys(names))
    few: Any = {"range": PALETTE[: len(domain)]}
    many: Any = {"scheme": "tableau20"}
    scale = alt.Scale(domain=domain, **(few if len(domain) <= len(PALETTE) else many))
    columns = _LEGEND // (24 + 6 * max(map(len, domain), default=0))
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
    known = values[~np.isnan(values)]
    ends = [float(known.min()), float(known.max())] if len(known) else [0.0, 1.0]
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
