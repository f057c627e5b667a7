"""Theme, colours, axes and menus of all charts, and data as CSV inside the specification."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import pandas as pd

GREY = "#888888"
"""Colour of zero lines, rules and references, legible on light and on dark."""
PANEL = 190
"""Width of one panel of several, in pixels."""
STROKES: dict[str, Any] = {"symbolType": "stroke", "symbolStrokeWidth": 4}
"""Symbols in the legends of curves."""
PERCENT = alt.Axis(format=".0%")
WHOLE = alt.Scale(domain=[0, 1])
"""Scale of shares from 0 to 1."""


THEME = "transferability"


@alt.theme.register(THEME, enable=False)  # importing this changes no other charts
def theme() -> alt.theme.ThemeConfig:
    """Return the configuration of every chart: sizes and schemes, no ink.

    Colours of text, axes and background are the reader's: a page adds those of Vega's light or
    dark theme, which a specification's own would beat.
    """
    limits: Any = {"labelLimit": 260, "titleLimit": 400}
    return {
        "config": {
            "font": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif",
            "title": {"anchor": "start", "fontSize": 14, "subtitleFontSize": 12, "offset": 10},
            "axis": {"labelFontSize": 11, "titleFontSize": 12, "gridOpacity": 0.35},
            "header": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 180},
            "legend": {"labelFontSize": 12, "titleFontSize": 12, "symbolOpacity": 1} | limits,
            "view": {"stroke": None},
            "axisY": {"labelLimit": 480},
            "line": {"strokeWidth": 2},
        }
    }


def inline(frame: pd.DataFrame) -> alt.InlineData:
    """Return a table as CSV inside the specification: a third of the size of JSON records.

    Numbers keep four significant digits, but for budgets, which charts compare; missing ones are
    null. Names are kept as text, even one that reads like a number.
    """
    parse: dict[str, Any] = {
        str(name): "number" if kind.kind in "iuf" else "string"
        for name, kind in frame.dtypes.items()
    }
    if "eps_255" in frame:
        frame = frame.assign(eps_255=frame["eps_255"].map(repr))
    text = frame.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    if "\r" in text:  # in a name, where pandas leaves it bare, and it would end a row
        text = frame.to_csv(index=False, float_format="%.4g", lineterminator="\n", quoting=1)
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


def colour_by(
    column: str, names: Iterable[str], title: str | None = None, **legend: Any
) -> alt.Color:
    """Return one colour a name, the same in every chart: ten distinct ones, else twenty.

    `names` are all of the column, in the order of their colours.
    """
    domain = list(dict.fromkeys(names))
    scale = alt.Scale(domain=domain, scheme="tableau10" if len(domain) <= 10 else "tableau20")
    return alt.Color(f"{column}:N", scale=scale, legend=alt.Legend(title=title or column, **legend))


def colour_of_levels(column: str, **legend: Any) -> alt.Color:
    """Return a colour for each level of initial confidence, the highest first."""
    scheme: Any = alt.SchemeParams(name="viridis", extent=[0.15, 0.95])
    named = alt.Legend(title="initial confidence", format=".0%", **legend)
    scale = alt.Scale(scheme=scheme)
    return alt.Color(f"{column}:O", sort="descending", scale=scale, legend=named)


def budgets(frame: pd.DataFrame) -> alt.X:
    """Return an x axis of budgets: square-root scale, ticks at those tried."""
    tried = sorted(set(frame["eps_255"]))
    # With no precision a label is rounded to the step of the ticks.
    axis = alt.Axis(values=tried, labelOverlap=True, format=".6~g")
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    return alt.X("eps_255:Q", title="budget (1/255)", scale=scale, axis=axis)


def curve(
    base: alt.Chart, value: str, title: str | None, lines: list[Any], **encodings: Any
) -> Any:
    """Return curves of shares from 0 to 1, with the bands of `VALUE_low` and `VALUE_high`.

    With the title None the y axis of the panel to the left holds here too. The tooltip's lines and
    the encodings are those of the curves alone.
    """
    band = base.mark_area(opacity=0.13).encode(y=f"{value}_low:Q", y2=f"{value}_high:Q")
    axis = PERCENT if title else alt.Axis(labelExpr="' '", ticks=False)
    y = alt.Y(f"{value}:Q", title=title, scale=WHOLE, axis=axis)
    line = base.mark_line(point=alt.OverlayMarkDef(size=28))
    return alt.layer(band, line.encode(y=y, tooltip=lines, **encodings))


def menu(name: str, label: str, options: list[Any], value: Any) -> alt.Parameter:
    """Return a parameter that the reader chooses from a list."""
    bound = alt.binding_select(options=options, name=f"{label} ")
    return alt.param(name=name, value=value, bind=bound)


def one_part(chart: Any, frame: pd.DataFrame, column: str) -> Any:
    """Return the chart of one value's rows at a time, with a menu of the values of a column."""
    parts = list(dict.fromkeys(frame[column]))
    chosen = menu("selected_part", column, parts, parts[0])
    return chart.transform_filter(f"datum['{column}'] == selected_part").add_params(chosen)


def tooltip(*names: str, shares: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Any]:
    """Return a tooltip's lines: columns of words and counts, of shares (per cent), of numbers."""
    columns: list[tuple[str, str, Any]] = [(name, "N", alt.Undefined) for name in names]
    columns += [(name, "Q", ".1%") for name in shares]
    columns += [(name, "Q", ".3g") for name in numbers]
    return [
        alt.Tooltip(f"{name}:{kind}", title=name.replace("_", " "), format=form)
        for name, kind, form in columns
    ]
