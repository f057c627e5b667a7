"""Charts at a printed size, for papers: lengths are in 1/72 in, and all text has one size."""

import json
import logging
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from math import ceil, floor, nan
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from altair.typing import ChartType

from ..analysis import OWN, TRANSFER, WHITE_BOX
from ..analysis.ranking import by_mean
from ..utils.model_names import renamed
from . import charts
from .charts.theme import (
    DASHES,
    MEAN,
    PALETTE,
    PERCENT,
    PRINT,
    SHAPES,
    WHOLE,
    colour_by,
    inline,
    paper_theme,
    points,
)
from .page.html import VEGA_LITE
from .shown import Shown, pairs_of
from .verdicts import COUNTED

log = logging.getLogger(__name__)

FOOLED = "fooled"
LINE, LETTER = PRINT.row, 0.52 * PRINT.text
"""Height of a line and mean width of a letter, in 1/72 in."""
_BELOW = 41.0
"""Height of an axis with its title, and of the chart's title, in 1/72 in."""
_MOST_BANDS = 3
VALUES = {
    "success": ("success_rate", FOOLED),
    "accuracy": ("robust_accuracy", "still correct"),
    "confidence": ("confidence", "confidence"),
    "true_confidence": ("true_confidence", "confidence in the true class"),
}
"""Columns and titles of what curves and matrices show, by the name that users type."""
_DRAWN = ["eps_255", "value", "low", "high", "series", "label", "colour", "dash", "shape", "width"]
_DRAWN += ["right"]
_TO = " \N{RIGHTWARDS ARROW} "
_SUCCESS = "other models fooled"
_AXES = ("attack", "source", "target")
_UNITS = {"in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4, "pt": 72 / 72.27}  # pt: TeX points


@dataclass(frozen=True)
class Figure:
    """A printed chart: its rows, the chosen attacks, sources and targets (empty: all), and size.

    Attributes:
        width: Width in 1/72 in; `height` likewise.
        names: Printed names of attacks and models, by their own names.
        value: One of `VALUES`.
    """

    shown: Shown
    width: float
    height: float
    names: Mapping[str, str] = field(default_factory=dict)
    attack: Sequence[str] = ()
    source: Sequence[str] = ()
    target: Sequence[str] = ()
    value: str = "success"

    def chosen(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows for the chosen attacks, protocol and defence."""
        choice = self.shown.choice
        rows = rows[rows["attack"].isin(self.attack)] if self.attack else rows
        return rows[(rows["defence"] == choice.defence) & (rows["protocol"] == choice.protocol)]

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows of the ranking at the chosen budget, best first."""
        rows = self.shown.ranking
        rows = self.of_first(rows[rows["eps_255"] == self.shown.choice.eps])
        return self.labelled(by_mean(rows, "attack"))

    def of_first(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of rankings for the chosen sources or else their mean.

        If there are several rankings (one per norm, for example) and no chosen attacks, only the
        first is used.
        """
        rows = rows[(rows["defence"] == self.shown.choice.defence) & (rows["of"] == rows["source"])]
        rows = self.of_sources(rows.dropna(subset="mean").assign(target=""))
        if self.attack:
            return rows[rows["attack"].isin(self.attack)]
        return rows[rows["part"] == rows["part"].min()]

    def of_sources(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the chosen sources, or else of their mean, or else the only source."""
        return rows[rows["source"].isin(self.source or [self.shown.choice.source or MEAN])]

    def labelled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add `label`, the printed names that tell rows apart; raise if none or too many."""
        if rows.empty:
            raise ValueError(
                "Nothing to draw: with these names no image counts on other models. Choose others."
            )
        axes = [axis for axis in _AXES if rows[axis].nunique() > 1]
        names = pd.DataFrame({axis: self.drawn(rows[axis]) for axis in axes or ["attack"]})
        separator = ", "
        if axes[-2:] == ["source", "target"]:
            separator, names["target"] = ": ", names.pop("source") + _TO + names["target"]
        rows = rows.assign(label=names.agg(separator.join, axis=1))
        self.check(rows["label"].unique())
        left = [
            f"{name} (another ranking, or none)"
            for name in self.attack or self.shown.options["attack"]
            if name not in {*rows["attack"]}
        ]
        if left:
            log.warning(f"Not drawn: {', '.join(left)}. Choose with attack or source.")
        return rows

    def heading(self, rows: pd.DataFrame, eps: float | None = None) -> str:
        """Name the rows' attack, source and target, or `attacks` and so on, and a budget."""
        attack, source, target = (
            f"{axis}s" if rows[axis].nunique() > 1 else renamed(rows[axis].iloc[0], self.names)
            for axis in _AXES
        )
        text = f"{attack}: {source}{_TO}{target or 'other models'}"
        return text if eps is None else f"{text} at {eps:g}/255"

    def order(self, rows: pd.DataFrame) -> list[str]:
        """Return the labels in the order of their colours; attacks by rank, as on the page."""
        options = self.shown.options
        names = [self.renamed(pd.Series(options[axis])) for axis in ("attack", "target")]
        every = next((its for its in names if rows["label"].isin(its).all()), rows["label"])
        return list(dict.fromkeys(every))

    def colour(self, rows: pd.DataFrame) -> alt.Color:
        """Return the colours of the labels; single attacks and models have those of the page."""
        return colour_by("label", self.order(rows)).legend(None)

    def title(self, rows: pd.DataFrame, fooled: str = FOOLED) -> str:
        """Name what is shown of the rows; success is `fooled`, unless all attacks are targeted."""
        every = self.shown.rows
        aimed = every.loc[every["attack"].isin(rows["attack"]), "targeted"].all()
        success = "target class reached" if aimed else fooled
        return success if self.value == "success" else VALUES[self.value][1]

    def renamed(self, column: pd.Series) -> pd.Series:
        """Return a column with the printed names."""
        return column.map(lambda name: renamed(name, self.names))

    def drawn(self, column: pd.Series) -> pd.Series:
        """Return `renamed` names that are drawn; raise a `ValueError` if two are alike."""
        names = self.renamed(column)
        if names.nunique() < column.nunique():
            same = column.groupby(names).nunique().idxmax()
            raise ValueError(f"names: {same!r} is the printed name of several.")
        return names

    def check(self, names: Collection[str], key: str = "") -> None:
        """Raise a `ValueError` if the names do not fit below each other or into half the width.

        `key` is a text below the title.
        """
        lines = len(names) + ceil(len(key) * LETTER / self.width)
        if (need := lines * LINE + _BELOW) > self.height:
            raise ValueError(
                f"{len(names)} names need a height of {ceil(need / 7.2) / 10:g}in. Set it, or "
                "choose fewer with attack, source and target."
            )
        longest = max(names, key=len)
        if len(longest) * LETTER > self.width / 2:
            raise ValueError(
                f"The name {longest!r} is too long: shorten it with names, or increase width."
            )


def to_points(**length: str) -> float:
    """Convert a length such as `width="3.3in"` to units of 1/72 in."""
    ((key, text),) = length.items()
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+) *({'|'.join(_UNITS)})", text)
    if not match or float(match[1]) == 0:
        raise ValueError(f"{key}={text}: write a number and in, cm, mm or pt, such as 3.3in.")
    return float(match[1]) * _UNITS[match[2]]


def over_budgets(figure: Figure) -> ChartType:
    """Draw the figure's value over the budget, one line per chosen attack, source and target.

    If no target is chosen, lines are means on other models, as in the ranking, or white boxes if
    there are no other models.
    """
    if not (figure.target or (figure.shown.rows["relation"] == TRANSFER).any()):
        figure = replace(figure, target=figure.shown.options["target"])
    column = VALUES[figure.value][0]
    rows = figure.labelled(_over_budgets(figure, column).dropna(subset="value"))
    bands = rows["label"].nunique() <= _MOST_BANDS
    top = ceil(10 * rows[["value", "high"] if bands else ["value"]].max().max()) / 10 or 0.1
    title = figure.title(rows, FOOLED if figure.target else _SUCCESS)
    rows, heading = styled(rows, figure.order(rows)), figure.heading(rows)
    scale = alt.Scale(domain=[0, min(top, 1)])
    return printed(over(rows, figure.height - _BELOW, title, scale, bands=bands), figure, heading)


def over(
    rows: pd.DataFrame,
    height: float,
    title: str,
    scale: alt.Scale = WHOLE,
    *,
    bands: bool = False,
    names: bool = True,
) -> Any:
    """Draw `value` over the budget in the page's style; `rows` are `styled`."""
    columns = [name for name in _DRAWN if name in rows]
    data = alt.InlineData(values=json.loads(rows[columns].to_json(orient="records")))
    tried = sorted({*rows["eps_255"]} - {0.0})
    look: dict[str, Any] = {"bands": bands, "title": title, "sizes": PRINT}
    return charts.curves(tried, height, scale, names, rows=data, **look)


def _over_budgets(figure: Figure, column: str) -> pd.DataFrame:
    """Return a quantity as `value` with `low` and `high`, for pairs or as means on other models."""
    shown = figure.shown
    if figure.target:
        of_pair = (shown.rows["source"] != MEAN) | (shown.rows["relation"] == TRANSFER)
        rows = shown.rows[shown.rows["target"].isin(figure.target) & of_pair]
    else:
        ranked = figure.of_first(shown.ranking)["attack"]
        rows = shown.overall[shown.overall["attack"].isin(ranked)].assign(target="")
    rows = figure.of_sources(figure.chosen(rows))
    ends = {"value": column, "low": f"{column}_low", "high": f"{column}_high"}
    return rows.assign(**{end: rows.get(name, nan) for end, name in ends.items()})


def styled(
    rows: pd.DataFrame, order: Sequence[str], colours: Sequence[str] = PALETTE
) -> pd.DataFrame:
    """Add what `series_chart` draws; labels have colour, dash and marker by their place.

    The first seven places look as on the page. All of the first 343 differ.
    """
    places, count = rows["label"].map(list(order).index), len(DASHES)
    look: dict[str, list[Any]] = {
        "colour": [colours[place % len(colours)] for place in places],
        "dash": [DASHES[place % count] for place in places + places // count],
        "shape": [SHAPES[place % count] for place in places + places // count**2],
    }
    right = rows.get("right", True)
    return rows.assign(**look, width=1.1, series=rows["label"], right=right)


def over_cost(figure: Figure) -> ChartType:
    """Draw mean success over gradients per image, one point with its interval per attack."""
    rows, x = figure.ranked, "gradients"
    if rows[x].isna().any():
        raise ValueError("The gradients of some attacks are unknown: choose others with attack.")
    if free := ", ".join(rows.loc[rows[x] == 0, "label"]):
        raise ValueError(
            f"{free}: a cost of 0 has no place on a logarithmic axis. Choose others with attack."
        )
    steps = [step * 10.0**power for power in range(-3, 9) for step in (1, 2, 5)]
    ticks = alt.Axis(values=steps, format=",.6~g", grid=False, labelOverlap=True)
    start = rows[x].min() / 1.3
    room = (rows["label"].str.len() * LETTER + 34) / (figure.width - 45)  # of the axis, for a name
    end = (start * (rows[x] / start) ** (1 / (1 - room).clip(lower=0.3))).max()
    at = (np.log(rows[x] / start) / np.log(end / start)).sort_values()
    right = (at + room).loc[at.index].cummax()  # ends of names
    rows["column"] = (at > right.shift()).cumsum()  # of names one below another
    across = alt.Scale(type="log", domain=[start, end], nice=False)
    low = floor(20 * rows[["mean", "low"]].min().min()) / 20
    high = (floor(20 * rows[["mean", "high"]].max().max()) + 1) / 20
    colour, scale = figure.colour(rows), alt.Scale(domain=[low, high], nice=False)
    base = alt.Chart().encode(
        x=alt.X(f"{x}:Q", title="gradients per image", axis=ticks, scale=across), color=colour
    )
    title = figure.title(rows, _SUCCESS)
    bars, dots = points(base, "y", "mean", "low", "high", title=title, axis=PERCENT, scale=scale)
    step = LINE / (figure.height - _BELOW) * (high - low)
    line, name = charts.names_at_ends(x, "mean", alt.Chart(), colour, step, scale, ["column"])
    dark, around = (name.encode(color=alt.value(tone)) for tone in ("#16191d", "white"))
    around.mark = alt.MarkDef(**{**name.mark.to_dict(), "stroke": "white", "strokeWidth": 2})
    heading = figure.heading(rows, figure.shown.choice.eps)
    chart = alt.layer(bars, line, around, dots, dark, data=inline(rows))
    return printed(chart, figure, heading)


def in_order(figure: Figure) -> ChartType:
    """Draw mean success and the difference from the first, one row per attack by rank.

    The interval of the difference is drawn from the first's mean, a vertical line that it does not
    reach exactly if the attack is significantly weaker. Without tests it is that of the mean.
    """
    rows = figure.ranked
    at = (rows["mean"] - rows["difference"]).fillna(rows["mean"])
    rows = rows.assign(at=at, start=at + rows["difference_low"], end=at + rows["difference_high"])
    first = "the first of the ranking" if rows["rank"].min() > 1 else "the first"  # not drawn
    first = "the first of its ranking" if at.round(9).nunique() > 1 else first
    key = f"Lines: simultaneous 95 % intervals of the difference from {first} (vertical line). "
    key += "Grey: significantly weaker; red: not."
    if rows["start"].isna().all():
        rows = rows.assign(at=nan, start=rows["low"], end=rows["high"], undecided="")
        key = "Lines: 95 % intervals of means, not of differences."
    figure.check(rows["label"], key)
    chart = charts.ranking(rows, figure.title(rows, _SUCCESS))
    return printed(chart, figure, figure.heading(rows, figure.shown.choice.eps), key)


def cells(figure: Figure) -> ChartType:
    """Draw the figure's value for one attack in percent, sources x targets, white boxes in grey."""
    choice, column = figure.shown.choice, VALUES[figure.value][0]
    attack, *more = figure.attack or [choice.attack]
    if more:
        raise ValueError("A matrix shows one attack: choose one with attack.")
    rows = replace(figure, attack=[attack]).chosen(pairs_of(figure.shown.rows))
    rows = rows[rows["eps_255"] == choice.eps]
    for axis in ("source", "target"):
        rows = rows[rows[axis].isin(getattr(figure, axis) or rows[axis])]
        rows[axis] = figure.drawn(rows[axis])
    sources, targets = (list(rows[axis].unique()) for axis in ("source", "target"))
    words = "mean over" if "confidence" in column else "share of"
    relations = {*rows["relation"]}
    spread = column == "success_rate" and bool(rows["success_rate_sd"].notna().any())
    key = f"Cells: {figure.title(rows)}, {words} {COUNTED[choice.protocol]}"
    key += "; grey: white box" * (WHITE_BOX in relations)
    key += "; orange frame: the source's network behind another defence" * (OWN in relations)
    key += "; \N{PLUS-MINUS SIGN}: standard deviation over the seeds, in points" * spread
    figure.check(sources, key)
    cell = (figure.width - max(map(len, sources)) * LETTER - 20) / len(targets)
    if cell < 2.5 * LETTER:
        raise ValueError(
            f"{len(targets)} targets do not fit: set width, or choose fewer with target."
        )
    turned = max(map(len, targets)) * LETTER > cell
    right = (figure.width / len(targets) - cell) / 2 * turned  # room for the last slanted name
    chart = charts.matrix(rows, column, angle=-40 * turned)
    return printed(chart, figure, figure.heading(rows, choice.eps), key, right=right)


def heading_of(figure: Figure, *texts: str) -> Any:
    """Return a title that is as wide as the figure; each text begins a line."""
    wrapped = (textwrap.wrap(text, int(figure.width / LETTER)) for text in texts)
    return alt.Title([*chain(*wrapped)])


def printed(chart: Any, figure: Figure, *texts: str, right: float = 0) -> ChartType:
    """Give a chart a title and the figure's size, including the axes and the room at its right.

    Each of the texts begins a line of the title.
    """
    pads: Any = {"left": 3, "top": 3, "bottom": 3, "right": 3 + right}
    fit: Any = alt.AutoSizeParams(type="fit", contains="padding")
    chart = chart.properties(
        width=figure.width, height=figure.height, autosize=fit, padding=pads, background="white"
    )
    return chart.properties(title=heading_of(figure, *texts)).configure(**paper_theme())


def writer(path: Path) -> Callable[[dict[str, Any]], bytes]:
    """Return the function that renders a specification, chosen by the file's suffix."""
    writers: dict[str, Callable[[dict[str, Any]], bytes]] = {
        ".pdf": partial(vl_convert.vegalite_to_pdf, vl_version=VEGA_LITE),
        ".png": partial(vl_convert.vegalite_to_png, vl_version=VEGA_LITE, ppi=600),
        ".svg": _svg,
    }
    if path.suffix not in writers:
        raise ValueError(f"out={path}: must end in .pdf, .svg or .png.")
    return writers[path.suffix]


def _svg(spec: dict[str, Any]) -> bytes:
    """Render an SVG with lengths in points: without a unit they would be pixels of 1/96 in."""
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    return re.sub(r'\b(width|height)="([\d.]+)"', r'\1="\2pt"', svg, count=2).encode()
