"""Theme, colours and axes of all charts, what a reader chooses, and data inside specifications."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from src.utils.defended_names import PLAIN

GREY = "#888888"
"""Colour of zero lines, rules and references, legible on light and on dark."""
ACCENT = "#c2410c"
"""Colour of what is chosen, and of a white box's frame."""
PANEL = 260
"""Width of a chart, or of one panel of several, in a file; a page gives it the width there is."""
STROKES: dict[str, Any] = {"symbolType": "stroke", "symbolStrokeWidth": 4}
"""Symbols in the legends of curves."""
PERCENT = alt.Axis(format=".0%")
WHOLE = alt.Scale(domain=[0, 1])
"""Scale of shares from 0 to 1."""
FOOLED, CORRECT = "fooled", "correct"
"""Words for a rate: images that fool a model, or that it classifies correctly all the same."""
MEAN = "mean of sources"
"""Source of the rows that are means over single sources."""
RATES = {
    f"rate{end}": f"chosen_shown == '{CORRECT}' ? datum.robust_accuracy{end} : "
    f"datum.success_rate{end}"
    for end in ("", "_low", "_high")
}
"""Expressions of the rate that the reader chose to see, and of its interval."""


THEME = "transferability"


@alt.theme.register(THEME, enable=False)  # importing this changes no other charts
def theme() -> alt.theme.ThemeConfig:
    """Return the configuration of every chart, without the ink, which a page sets by its theme."""
    limits: Any = {"labelLimit": 260, "titleLimit": 400}
    legend: Any = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    return {
        "config": {
            "font": "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif",
            "title": {
                **{"anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 8},
                **{"subtitleFontSize": 12, "frame": "group"},
            },
            "axis": {
                **{"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
                **{"gridOpacity": 0.3, "domain": False, "tickSize": 4, "labelSeparation": 5},
            },
            "header": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 180},
            "legend": legend | {"symbolOpacity": 1, "columns": 4} | limits,
            "view": {"stroke": None},
            "axisY": {"labelLimit": 480},
            "line": {"strokeWidth": 2},
        }
    }


@dataclass(frozen=True)
class Choice:
    """First choice of a page, whose script sets the parameters `chosen_NAME` of all charts.

    Attributes:
        source: Empty: the mean over all.
        target: The target that stands out; empty: all.
        eps: Budget in units of 1/255.
        shown: `FOOLED` or `CORRECT`.
        first_source: Source of the pair whose details are drawn, with `first_target`.
    """

    attack: str = ""
    source: str = ""
    target: str = ""
    defence: str = PLAIN
    eps: float = 0.0
    protocol: str = ""
    shown: str = FOOLED
    first_source: str = ""
    first_target: str = ""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of charts, by name."""
        return {f"chosen_{name}": value for name, value in asdict(self).items()}


def chosen(*columns: str) -> str:
    """Return the expression that a row is of what was chosen in these columns."""
    names = {"eps_255": "eps"}
    return " && ".join(f"datum.{each} == chosen_{names.get(each, each)}" for each in columns)


def where(test: str, value: Any, otherwise: Any) -> Any:
    """Return the condition of an encoding: a value where an expression holds, else another."""
    return alt.condition(test, alt.value(value), alt.value(otherwise))


WHITE_BOX_GREY = "#d3d7dd"
"""Colour of white boxes, about which nobody asks: outside the scale of rates."""
OF_PAIR = (
    f"{chosen('attack')} && datum.source == chosen_first_source && "
    "datum.target == chosen_first_target"
)
"""Expression that a row is of the pair whose details are drawn."""
PAIR_TITLE = (
    "chosen_attack + ': ' + chosen_first_source + ' \N{RIGHTWARDS ARROW} ' + chosen_first_target"
)
"""Expression of that pair's name."""


def inline(frame: pd.DataFrame) -> alt.InlineData:
    """Return a table as CSV inside the specification: a third of the size of JSON records.

    Numbers below 1,000 keep four significant digits, larger ones all before the point, and budgets,
    which charts compare, all digits. Names stay text, even one that reads like a number.
    """
    parse: dict[str, Any] = {
        str(name): "number" if kind.kind in "iuf" else "string"
        for name, kind in frame.dtypes.items()
    }
    if "eps_255" in frame:
        frame = frame.assign(eps_255=frame["eps_255"].map(repr))
    written: Any = {"index": False, "float_format": _digits, "lineterminator": "\n"}
    text = frame.to_csv(**written)
    if "\r" in text:  # in a name, where pandas leaves it bare, and it would end a row
        text = frame.to_csv(**written, quoting=1)
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=parse))


def _digits(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def colour_by(
    column: str, names: Iterable[str], title: str | None = None, **legend: Any
) -> alt.Color:
    """Return a colour per name of a column, in this order: the same in every chart."""
    domain = list(dict.fromkeys(names))
    scale = alt.Scale(domain=domain, scheme="tableau10" if len(domain) <= 10 else "tableau20")
    return alt.Color(f"{column}:N", scale=scale, legend=alt.Legend(title=title or column, **legend))


def colour_of_levels(column: str, sort: Any = "descending", **legend: Any) -> alt.Color:
    """Return a colour for each level of initial confidence, in this order; {} for no legend."""
    scheme: Any = alt.SchemeParams(name="viridis", extent=[0.15, 0.95])
    named = alt.Legend(title="initial confidence", format=".0%", **legend) if legend else None
    return alt.Color(f"{column}:O", sort=sort, scale=alt.Scale(scheme=scheme), legend=named)


def budgets(frame: pd.DataFrame) -> alt.X:
    """Return an x axis of budgets: square-root scale, ticks at those tried."""
    tried = sorted(set(frame["eps_255"]))
    # With no precision a label is rounded to the step of the ticks.
    axis = alt.Axis(values=tried, labelOverlap="greedy", format=".6~g")
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    return alt.X("eps_255:Q", title="budget (1/255), square-root scale", scale=scale, axis=axis)


def curve(base: alt.Chart, value: str, lines: list[Any], **encodings: Any) -> Any:
    """Return curves of shares with bands of `VALUE_low` and `VALUE_high`, which have no tooltip."""
    band = base.mark_area(opacity=0.13).encode(y=f"{value}_low:Q", y2=f"{value}_high:Q")
    y = alt.Y(f"{value}:Q", title=None, scale=WHOLE, axis=PERCENT)
    line = base.mark_line(point=alt.OverlayMarkDef(size=28))
    return alt.layer(band, line.encode(y=y, tooltip=lines, **encodings))


def one_model(chart: Any, frame: pd.DataFrame) -> Any:
    """Return the chart of one model's rows at a time, with a menu of the models."""
    models = list(dict.fromkeys(frame["model"]))
    bound = alt.binding_select(options=models, name="model ")
    part = alt.param(name="selected_part", value=models[0], bind=bound)
    return chart.transform_filter("datum.model == selected_part").add_params(part)


def extent(frame: pd.DataFrame, *columns: str, **more: Any) -> alt.Scale:
    """Return a scale over the values of columns whatever is chosen; some choices have no row."""
    values = frame[[*columns]].to_numpy(float)
    known = values[~np.isnan(values)]
    ends = [float(known.min()), float(known.max())] if len(known) else [0.0, 1.0]
    return alt.Scale(domain=ends, nice=True, **more)


def tooltip(*names: str, shares: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Any]:
    """Return a tooltip's lines: columns of words and counts, of shares (per cent), of numbers.

    A word of `names` may be several columns, separated by spaces.
    """
    columns: list[tuple[str, str, Any]] = [
        (name, "N", alt.Undefined) for name in " ".join(names).split()
    ]
    columns += [(name, "Q", ".1%") for name in shares]
    columns += [(name, "Q", ".3g") for name in numbers]
    return [
        alt.Tooltip(f"{name}:{kind}", title=name.replace("_", " "), format=form)
        for name, kind, form in columns
    ]
