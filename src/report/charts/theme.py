"""Theme, colours, axes and tooltips of all charts, and inline data."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

GREY = "#888888"
"""Colour of zero lines, rules and references, legible on light and on dark."""
ACCENT = "#c2410c"
"""Colour of chosen marks, and of the frames of white boxes."""
PALETTE = ["#0a66b0", "#b04600", "#00573f", "#7a3aa8", "#a8124f", "#6b4a12", "#00697a"]
"""Colours of attacks by rank; those of the page's light style."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right"]
DASHES = [[], [6, 3], [2, 2.5], [9, 3, 2, 3], [4, 4], [10, 4], [1, 3]]
"""Markers and dashes of attacks by rank; those of the page."""
SHADES = ["#8a939c", "#6b95b8", "#2f77b5", "#16191d"]
"""Colours of groups by initial confidence, the least confident first; those of the page."""
PANEL = 260
"""Width of a chart, or of one of its panels, before it adapts to the window."""
STROKES: dict[str, Any] = {"symbolType": "stroke", "symbolStrokeWidth": 4}
"""Legend symbols for curves."""
_LEGEND = 300
"""Width of a legend below a chart, in pixels."""
PERCENT = alt.Axis(format=".2~%")  # a step may be less than 1 %
WHOLE = alt.Scale(domain=[0, 1])
"""Scale for shares, from 0 to 1."""
FOOLED = "fooled"
"""Name of a success."""
MEAN = "mean of sources"
"""Name in the column `source` for means over single sources."""


FONT = "-apple-system, 'Segoe UI', Roboto, Arial, 'Liberation Sans', sans-serif"


def theme() -> alt.theme.ThemeConfig:
    """Return the configuration of every chart; colours of text follow the theme of the page."""
    limits: Any = {"labelLimit": 260, "titleLimit": 400}
    legend: Any = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    marks: Any = {"dot": {"size": 60}, "vertex": {"size": 28}, "interval": {"strokeWidth": 1.5}}
    return {
        "config": {
            "font": FONT,
            "title": {
                **{"anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 8},
                **{"subtitleFontSize": 12, "frame": "group"},
            },
            "axis": {
                **{"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
                **{"gridOpacity": 0.3, "domain": False, "tickSize": 4, "labelSeparation": 5},
            },
            "legend": legend | {"symbolOpacity": 1, "columns": 4} | limits,
            "view": {"stroke": None},
            "axisY": {"labelLimit": 480},
            "line": {"strokeWidth": 2},
            "style": marks,
        }
    }


PAGE_THEME = "transferability-page"


@alt.theme.register(PAGE_THEME, enable=False)  # this import must not change other charts
def page_theme() -> alt.theme.ThemeConfig:
    """Return the configuration of charts on the page, with the colours of its style sheet."""
    shared: Any = theme()
    config: dict[str, Any] = shared["config"]
    text, second, line = "var(--text)", "var(--second)", "var(--line)"
    ticks = {"labelFontSize": 11, "titleFontSize": 12, "labelColor": second, "titleColor": second}
    axis = {"gridColor": "var(--grid)", "gridOpacity": 1, "tickColor": line, "domainColor": line}
    names = {"labelColor": text, "titleColor": second, "labelFontSize": 12}
    styles = {"name": {"fontSize": 12, "fontWeight": "bold"}}
    whole: Any = {
        "config": {
            **config,
            "background": "transparent",
            "padding": {"left": 2, "top": 6, "right": 6, "bottom": 12},
            "font": FONT,
            "axis": {**config["axis"], **ticks, **axis},
            "axisX": {"domain": True},
            "legend": {**config["legend"], **names},
            "title": {**config["title"], "color": text, "subtitleColor": second},
            "text": {"color": text},
            "style": {**config["style"], **styles},
        }
    }
    return whole


PAPER_TEXT = 7
"""Size of all text in a printed chart, in points of 1/72 in."""


def paper_theme() -> dict[str, Any]:
    """Return the configuration of printed charts, which have the colours and fonts of `theme`."""
    config, text = theme()["config"], {"fontSize": PAPER_TEXT}
    sizes = {"labelFontSize": PAPER_TEXT, "titleFontSize": PAPER_TEXT, "labelLimit": 0}
    ticks = {"tickSize": 2, "tickWidth": 0.5, "gridWidth": 0.5, "titlePadding": 3}
    marks = {"dot": {"size": 22}, "vertex": {"size": 9}, "interval": {"strokeWidth": 1}}
    return {
        **{"font": config["font"], "view": config["view"], "line": {"strokeWidth": 1.1}},
        "axis": config["axis"] | sizes | ticks | {"labelPadding": 2, "labelFlush": False},
        "axisY": {"tickCount": 5},
        "title": {
            **{"fontSize": PAPER_TEXT, "fontWeight": "normal", "anchor": "start"},
            **{"frame": "bounds", "offset": 3, "lineHeight": PAPER_TEXT + 1},
        },
        "legend": sizes
        | {"symbolSize": 30, "columns": 5, "titleFontWeight": "normal", "offset": 2},
        "style": dict.fromkeys(("name", "small-cell"), text) | marks,
    }


ROWS = alt.NamedData("rows")
"""The rows of a chart that the page adds."""


def where(test: str, value: Any, otherwise: Any) -> Any:
    """Return a conditional encoding: `value` if the expression `test` is true, else `otherwise`."""
    return alt.condition(test, alt.value(value), alt.value(otherwise))


WHITE_BOX_GREY = "#d3d7dd"
"""Colour of white boxes, outside the colour scale for rates."""


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
    return alt.Color(f"{column}:N", scale=scale, legend=alt.Legend(title=title or column, **legend))


def budgets(frame: pd.DataFrame) -> alt.X:
    """Return an x axis for budgets: square-root scale, ticks at the tried budgets."""
    tried = sorted(set(frame["eps_255"]))
    # Without a count, narrow charts leave out ticks; without a precision, labels are rounded.
    axis = alt.Axis(values=tried, tickCount=len(tried), labelOverlap="greedy", format=".6~g")
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    return alt.X("eps_255:Q", title="budget (1/255), square-root scale", scale=scale, axis=axis)


def curve(base: alt.Chart, value: str, lines: list[Any], **encodings: Any) -> Any:
    """Draw curves of shares with bands from `VALUE_low` to `VALUE_high`; bands have no tooltip."""
    low = alt.Y(f"{value}_low:Q", title=None)
    band = base.mark_area(opacity=0.13).encode(y=low, y2=f"{value}_high:Q")
    y = alt.Y(f"{value}:Q", title=None, scale=WHOLE, axis=PERCENT)
    line = base.mark_line(point=alt.OverlayMarkDef(style="vertex"))
    return alt.layer(band, line.encode(y=y, tooltip=lines, **encodings))


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


def tooltip(*names: str, shares: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Any]:
    """Return the lines of a tooltip: columns with names or counts, with shares, with numbers.

    An element of `names` may list several columns, separated by spaces. Shares are in percent.
    """
    columns: list[tuple[str, str, Any]] = [
        (name, "N", alt.Undefined) for name in " ".join(names).split()
    ]
    columns += [(name, "Q", ".1%") for name in shares]
    columns += [(name, "Q", ".3g") for name in numbers]
    return [
        alt.Tooltip(f"{name}:{encoding}", title=name.replace("_", " "), format=form)
        for name, encoding, form in columns
    ]
