"""Initial confidence and minimum adversarial budget, and single images over the budgets."""

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis.confidence import BIN_WIDTH
from src.report.charts.dots import dot_plot
from src.report.charts.theme import (
    GREY,
    PANEL,
    PERCENT,
    STROKES,
    WHOLE,
    budgets,
    colour_of_levels,
    curve,
    inline,
    one_part,
    tooltip,
)
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.sections.text import ENOUGH, pair_names, span, too_few

FEWEST_IN_BIN = 10
"""Fewest images of a bin that is drawn."""

_PAIR = ["attack", "source", "target"]


def hypothesis(found: Measured) -> Section | None:
    """Return the rank correlation of every pair, and a pair's curves by initial confidence."""
    effects = found.table("effects")
    if effects.empty:
        return None
    title = "Are confident images harder to manipulate?"
    rows = effects[effects["n"] >= ENOUGH]
    if rows.empty:
        return Section("hypothesis", title, (too_few(effects["n"]),))
    rows = rows.assign(row=pair_names(rows))
    bins = found.table("bins")
    if len(bins):
        bins = bins[bins["n"] >= FEWEST_IN_BIN].merge(rows[_PAIR])
    verdicts = rows["verdict"].value_counts()
    counts = ", ".join(f"{name} for {count}" for name, count in verdicts.items())
    text = (
        f"Hypothesis 1, images with a high initial confidence are harder to manipulate, is "
        f"{counts} of {len(rows)} pairs (95 % intervals, not corrected for the number of pairs)."
    )
    detailed = len(bins.drop_duplicates(_PAIR)) if len(bins) else 0
    beside = (
        f" Right: accuracy and confidence of the selected pair (of {detailed}; report.pairs: more) "
        f"by bins of initial confidence with at least {FEWEST_IN_BIN} images."
    )
    caption = (
        "Spearman's correlation between initial confidence and minimum adversarial budget, "
        f"of {span(rows['n'])} initially correct images a pair; above 0, more "
        f"confident images need a larger budget.{beside if detailed else ''}"
    )
    chart = _effects_chart(rows, bins)
    name = "Initial confidence and minimum adversarial budget"
    figure = Figure("hypothesis", name, caption, chart, rows)
    return Section("hypothesis", title, (text,), (figure,))


def images(found: Measured) -> Section | None:
    """Return the galleries by definition, their curves, and example images."""
    if not found.albums:
        return None
    figures = []
    rows = found.table("gallery_predictions")
    if len(rows):
        rows = rows.assign(pair=rows["attack"] + ": " + pair_names(rows))
        rows = rows.drop_duplicates(["pair", "image", "eps_255"])
        caption = "Confidence in the predicted and in the true class; the images of the galleries."
        chart = _images_chart(rows)
        figures.append(Figure("images", "Single images over the budget", caption, chart, rows))
    text = "Galleries: the clearest cases by definition (see below). Examples: spread over classes."
    return Section("images", "Images", (text,), tuple(figures), albums=tuple(found.albums))


def _effects_chart(effects: pd.DataFrame, bins: pd.DataFrame) -> ChartType:
    """Link the dots of every pair with one pair's curves; without bins the dots stand alone."""
    first = [*effects[_PAIR].iloc[0]] if bins.empty else [*bins[_PAIR].iloc[0]]
    pair = alt.selection_point(
        name="pair", fields=_PAIR, value=[dict(zip(_PAIR, first, strict=True))], empty=False
    )
    dots = dot_plot(
        effects,
        "rho",
        "rank correlation (Spearman's rho)",
        [*_PAIR, "n", "flipped", "verdict"],
        percent=False,
        select=pair,
    ).properties(title=alt.Title("Every pair", subtitle="click a dot for its curves"))
    if bins.empty:
        return dots
    return alt.hconcat(dots, _by_bin(bins, pair), spacing=30).resolve_scale(color="independent")


def _by_bin(bins: pd.DataFrame, pair: alt.Parameter) -> ChartType:
    """Return accuracy and confidence over the budget, a line per bin of initial confidence."""
    words = {"labelExpr": f"datum.label + ' to ' + format(datum.value + {BIN_WIDTH}, '.0%')"}
    base = (
        alt.Chart(inline(bins))
        .transform_filter(pair)
        .encode(x=budgets(bins), color=colour_of_levels("bin_low", **words, **STROKES))
    )
    panels = []
    for value, title in (("robust_accuracy", "still correct"), ("confidence", "mean confidence")):
        limits = [value, f"{value}_low", f"{value}_high"]
        lines = tooltip(*_PAIR, "eps_255", "n", shares=["bin_low", "bin_high", *limits])
        panels.append(curve(base, value, title, lines).properties(width=PANEL + 30, height=170))
    name = "pair.attack ? pair.attack[0] + ', ' + pair.source[0] + ' to ' + pair.target[0] : ''"
    return alt.vconcat(*panels).properties(title=alt.Title(alt.ExprRef(name)))


def _images_chart(images: pd.DataFrame) -> ChartType:
    lines = tooltip(
        *("pair", "image", "kind", "eps_255", "predicted_name"),
        shares=["confidence", "true_confidence"],
    )
    y = alt.Y("confidence:Q", title="confidence", scale=WHOLE, axis=PERCENT)
    base = alt.Chart().encode(x=budgets(images))
    line = base.mark_line(color=GREY).encode(y=y)
    true = base.mark_line(color=GREY, strokeDash=[2, 2]).encode(y="true_confidence:Q")
    words = alt.Legend(title="prediction (line); true class (dotted)", orient="bottom")
    colours = alt.Scale(domain=["correct", "wrong"], range=["#4e79a7", "#e15759"])
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=y,
        color=alt.Color("outcome:N", scale=colours, legend=words),
        shape=alt.Shape("outcome:N", scale=alt.Scale(domain=["correct", "wrong"]), legend=words),
        tooltip=lines,
    )
    panel = alt.layer(line, true, points, data=inline(images)).properties(width=PANEL, height=110)
    panels = panel.facet(facet=alt.Facet("image:N", sort=None, title=None), columns=4)
    return one_part(panels, images, "pair")
