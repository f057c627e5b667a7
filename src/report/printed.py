"""Charts at a printed size, for papers: lengths are in 1/72 in, and all text has one size."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, floor
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from altair.typing import ChartType
from scipy.optimize import isotonic_regression

from src.analysis import CLEAN, TRANSFER
from src.report.charts.theme import ACCENT, MEAN, inline, theme, where
from src.report.page.html import VEGA_LITE
from src.report.page.view import View
from src.utils.model_ref import renamed

_TEXT, _LINE = 7, 8.0
_LETTER = 0.52 * _TEXT
"""Mean width of a letter, in 1/72 in."""
_BELOW = 30.0
"""Height of an axis with its title, in 1/72 in."""
_MOST_BANDS = 3
_COLOURS = (
    *("#1b6ca8", "#c2410c", "#2e7d32", "#7b3fa0", "#a6761d", "#c2185b"),
    *("#00838f", "#555555", "#6d4c41", "#3949ab", "#7a8b00", "#000000"),
)
_PERCENT = alt.Axis(format=".0%", tickCount=5)
_SUCCESS = "other models fooled"
_UNITS = {"in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4, "pt": 72 / 72.27}  # pt: TeX points


@dataclass(frozen=True)
class Figure:
    """A printed chart: its rows, the chosen attacks, sources and targets (empty: all), and size.

    Attributes:
        width: Width in 1/72 in; `height` likewise.
        names: Printed names of attacks and models, by their own names.
    """

    view: View
    width: float
    height: float
    names: Mapping[str, str] = field(default_factory=dict)
    attack: Sequence[str] = ()
    source: Sequence[str] = ()
    target: Sequence[str] = ()

    @property
    def pairs(self) -> pd.DataFrame:
        """The rows for the chosen attacks, protocol and defence."""
        rows, choice = self.view.rows, self.view.choice
        return self._chosen(
            rows[(rows["defence"] == choice.defence) & (rows["protocol"] == choice.protocol)]
        )

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows of the ranking at the chosen budget, best first."""
        rows = self.means
        rows = rows[rows["eps_255"] == self.view.choice.eps]
        return self.labelled(rows.sort_values("mean", ascending=False, kind="stable"))

    @property
    def means(self) -> pd.DataFrame:
        """The rows of the ranking at all budgets, for the chosen sources or else their mean.

        If there are several rankings (one per norm, for example) and no chosen attacks, only the
        first is used.
        """
        rows = self.view.ranking
        rows = rows[rows["own_position" if self.source else "position"].notna()]
        keys = ["eps_255", "source"] if self.source else ["eps_255"]
        part = (rows["heading"] != "").groupby([rows[key] for key in keys]).cumsum()
        rows = rows.assign(part=part, target="").dropna(subset="mean")
        rows = self._chosen(rows[rows["source"].isin(self.sources)])
        return rows if self.attack else rows[rows["part"] == rows["part"].min()]

    @property
    def sources(self) -> Sequence[str]:
        """The chosen sources, or else their mean, or else the only source."""
        every = list(self.view.rows["source"].unique())
        return self.source or ([MEAN] if MEAN in every else every)

    def _chosen(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["attack"].isin(self.attack)] if self.attack else rows

    def labelled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add `label`, the printed names that tell rows apart; raise if none or too many."""
        if rows.empty:
            raise ValueError(
                "Nothing to draw: with these names no image counts on other models. Choose others."
            )
        axes = [axis for axis in ("attack", "source", "target") if rows[axis].nunique() > 1]
        names = pd.DataFrame({axis: self.renamed(rows[axis]) for axis in axes or ["attack"]})
        rows = rows.assign(label=names.agg(", ".join, axis=1))
        self.check(rows["label"].unique())
        return rows

    def renamed(self, column: pd.Series) -> pd.Series:
        """Return a column with the printed names."""
        return column.map(lambda name: renamed(name, self.names))

    def check(self, names: Collection[str]) -> None:
        """Raise a `ValueError` if the names do not fit below each other or into half the width."""
        if (need := len(names) * _LINE + _BELOW) > self.height:
            raise ValueError(
                f"{len(names)} names need a height of {ceil(need / 7.2) / 10:g}in. Set it, or "
                "choose fewer with attack, source and target."
            )
        longest = max(names, key=len)
        if len(longest) * _LETTER > self.width / 2:
            raise ValueError(
                f"The name {longest!r} is too long: shorten it with names, or increase width."
            )


def points(**length: str) -> float:
    """Convert a length such as `width="3.3in"` to units of 1/72 in."""
    ((key, text),) = length.items()
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+) *({'|'.join(_UNITS)})", text)
    if not match or float(match[1]) == 0:
        raise ValueError(f"{key}={text}: write a number and in, cm, mm or pt, such as 3.3in.")
    return float(match[1]) * _UNITS[match[2]]


def over_budgets(figure: Figure) -> ChartType:
    """Draw success over the budget, one line per chosen attack, source and target.

    If no target is chosen, success is the mean on other models, as in the ranking.
    """
    rows = figure.means
    if figure.target:
        new = {f"success_rate{end}": end.strip("_") or "mean" for end in ("", "_low", "_high")}
        rows = figure.pairs.rename(columns=new).dropna(subset="mean")
        rows = rows[rows["target"].isin(figure.target) & rows["source"].isin(figure.sources)]
        rows = rows[(rows["source"] != MEAN) | (rows["relation"] == TRANSFER)]
    rows = figure.labelled(rows)
    ends = rows[rows["eps_255"] == rows.groupby("label")["eps_255"].transform("max")]
    ends = ends.sort_values("mean", ascending=False, kind="stable").assign(x=ends["eps_255"])
    bands = len(ends) <= _MOST_BANDS
    tried = sorted(set(rows["eps_255"]))
    axis = alt.Axis(values=tried, labelOverlap="greedy", format=".6~g", grid=False)
    x = _scaled("budget (1/255)", axis, 0, 1.05 * tried[-1])
    top = rows[["mean", "high"] if bands else ["mean"]].max().max()
    y = _scaled("fooled" if figure.target else _SUCCESS, _PERCENT, 0, ceil(10 * top) / 10 or 0.1)
    colours = ends.set_index("label").assign(colour=_colours(len(ends)))["colour"]
    base = _inked(rows.assign(colour=rows["label"].map(colours))).encode(x=x("eps_255"))
    base = base.encode(detail="label:N")
    dots = alt.OverlayMarkDef(size=9)
    layers = [base.mark_line(strokeWidth=1.1, point=dots).encode(y=y("mean"))]
    layers += [base.mark_area(opacity=0.15).encode(y=y("low", axis=None), y2="high:Q")] * bands
    return _with_direct_labels(layers, ends, x, y, figure)


def over_cost(figure: Figure) -> ChartType:
    """Draw mean success over gradients per image, one point with its interval per attack."""
    rows = figure.ranked
    if rows["gradients"].isna().any():
        raise ValueError("The gradients of some attacks are unknown: choose others with attack.")
    axis = alt.Axis(values=[10**power for power in range(8)], format="~s", grid=False)
    most = rows["gradients"].max()
    x = _scaled("gradients per image", axis, rows["gradients"].min() / 1.3, 1.7 * most, type="log")
    low, high = rows[["mean", "low"]].min().min(), rows[["mean", "high"]].max().max()
    y = _scaled(_SUCCESS, _PERCENT, floor(20 * low) / 20, (floor(20 * high) + 1) / 20)
    base = _inked(rows.assign(colour=_colours(len(rows)))).encode(x=x("gradients"))
    points = base.mark_point(filled=True, size=22, opacity=1).encode(y=y("mean"))
    bars = base.mark_rule(strokeWidth=0.8).encode(y=y("low", axis=None), y2="high:Q")
    return _with_direct_labels([points, bars], rows.assign(x=rows["gradients"]), x, y, figure)


def in_order(figure: Figure) -> ChartType:
    """Draw mean success with its interval, one row per attack by rank.

    Attacks that are not significantly weaker than the first share its colour.
    """
    rows = figure.ranked
    names = list(rows["label"])
    colour = where("datum.undecided == 'yes' || datum.undecided == 'first'", ACCENT, "#3c4654")
    y = alt.Y("label:N", sort=names, title=None, axis=alt.Axis(ticks=False, labelPadding=3))
    base = alt.Chart(inline(rows)).encode(y=y, color=colour)
    scale = alt.Scale(zero=False, nice=True)
    x = alt.X("mean:Q", title=_SUCCESS, axis=_PERCENT, scale=scale)
    points = base.mark_point(filled=True, size=22, opacity=1).encode(x=x)
    bars = base.mark_rule(strokeWidth=1).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    return _printed([bars, points], figure)


def cells(figure: Figure) -> ChartType:
    """Draw the success of one attack in percent, sources x targets, white boxes in grey."""
    attack, *more = figure.attack or [figure.view.choice.attack]
    if more:
        raise ValueError("A matrix shows one attack: choose one with attack.")
    rows = replace(figure, attack=[attack]).pairs
    rows = rows[~rows["source"].isin([MEAN, CLEAN]) & (rows["eps_255"] == figure.view.choice.eps)]
    for axis in ("source", "target"):
        rows = rows[rows[axis].isin(getattr(figure, axis) or rows[axis])]
        rows[axis] = figure.renamed(rows[axis])
    sources, targets = (list(rows[axis].unique()) for axis in ("source", "target"))
    figure.check(sources)
    cell = (figure.width - max(map(len, sources)) * _LETTER - 20) / len(targets)
    if cell < 2.5 * _LETTER:
        raise ValueError(
            f"{len(targets)} targets do not fit: set width, or choose fewer with target."
        )
    share = (100 * rows["success_rate"]).map("{:.0f}".format, na_action="ignore").fillna("n/a")
    rows = rows.assign(share=share)
    turned = -40 if max(map(len, targets)) * _LETTER > cell else 0
    head = alt.Axis(orient="top", labelAngle=turned, ticks=False, title="target", labelPadding=2)
    side = alt.Axis(ticks=False, title="source", labelPadding=3)
    scale = alt.Scale(paddingInner=0.04)
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("target:N", sort=targets, axis=head, scale=scale),
        y=alt.Y("source:N", sort=sources, axis=side, scale=scale),
    )
    black = f"datum.relation == '{TRANSFER}'"
    blues = alt.Scale(domain=[0, 1], scheme="blues")
    shade = alt.Color("success_rate:Q", scale=blues, legend=None)
    rects = [
        base.transform_filter(black).mark_rect(invalid=None).encode(color=shade),
        base.transform_filter(f"!({black})").mark_rect(color="#e3e3e3"),
    ]
    ink = where(f"{black} && datum.success_rate > 0.55", "white", "#1d2127")
    text = base.mark_text(fontSize=_TEXT).encode(text="share:N", color=ink)
    moved = (
        (figure.width / len(targets) - cell) / 2 if turned else 0
    )  # room for the last slanted name
    return _printed([*rects, text], figure, right=moved)


def _colours(count: int) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(count)]


def _inked(rows: pd.DataFrame) -> alt.Chart:
    """Return a chart whose marks take their colour from each row."""
    return alt.Chart(inline(rows)).encode(color=alt.Color("colour:N", scale=None))


def _scaled(title: str, axis: Any, low: float, high: float, **kind: Any) -> Callable[..., Any]:
    """Return a function that encodes any column on the same scale."""
    scale = alt.Scale(domain=[low, high], nice=False, **kind).to_dict()
    common = {"type": "quantitative", "title": title, "axis": axis.to_dict(), "scale": scale}
    return lambda column, **other: common | {"field": column} | other


def _with_direct_labels(
    layers: Sequence[Any], ends: pd.DataFrame, x: Any, y: Any, figure: Figure
) -> ChartType:
    """Add a label to the end (`x`, `mean`) of each curve, with a line to it; best first.

    Labels that are close are moved apart. They form an axis, so that Vega-Lite measures their
    width.
    """
    (_, right), (low, high) = (scaled("")["scale"]["domain"] for scaled in (x, y))
    up = ends.assign(colour=_colours(len(ends)), right=right).sort_values("mean", kind="stable")
    steps = _LINE / (figure.height - _BELOW) * (high - low) * np.arange(len(up))
    free = isotonic_regression(up["mean"] - steps).x.clip(low, high - steps[-1])
    up["at"] = (free + steps).round(4)
    at, labels = up["at"].tolist(), up["label"].tolist()
    inks: Any = [
        {"test": f"datum.value == {value}", "value": colour}
        for value, colour in zip(at, up["colour"], strict=True)
    ]
    axis = alt.Axis(
        orient="right",
        values=at,
        title=None,
        ticks=False,
        grid=False,
        labelOverlap=False,
        labelExpr=f"{json.dumps(labels)}[indexof({at}, datum.value)]",
        labelColor={"condition": inks, "value": "black"},
    )
    lines = _inked(up).mark_rule(strokeWidth=0.4, opacity=0.6)
    lines = lines.encode(x=x("x"), x2="right:Q", y=y("mean", axis=axis.to_dict()), y2="at:Q")
    return _printed([*layers, lines], figure, "independent")


def _printed(
    layers: Sequence[Any], figure: Figure, y: Any = "shared", right: float = 0
) -> ChartType:
    """Combine layers into one chart of the figure's size, including the axes."""
    config = theme()["config"]
    axis: dict[str, Any] = {
        "labelFontSize": _TEXT,
        "titleFontSize": _TEXT,
        "titleFontWeight": "normal",
    }
    axis |= {"domain": False, "tickSize": 2, "gridOpacity": 0.4, "gridWidth": 0.5, "tickWidth": 0.5}
    axis |= {"labelLimit": 0, "titlePadding": 3, "labelPadding": 2, "labelFlush": False}
    pads: Any = {"left": 3, "top": 3, "bottom": 3, "right": 3 + right}
    fit: Any = alt.AutoSizeParams(type="fit", contains="padding")
    chart = alt.layer(*layers).properties(
        width=figure.width, height=figure.height, autosize=fit, padding=pads, background="white"
    )
    return chart.resolve_axis(y=y).configure(
        font=config["font"], axis=axis, view=alt.ViewConfig(stroke=None)
    )


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
