"""Whether images with a high initial confidence are harder to manipulate."""

from typing import Any

import altair as alt
import pandas as pd

from src.report.charts.dots import dot_plot
from src.report.charts.theme import (
    GREY,
    PANEL,
    Drawn,
    budget_axis,
    inline,
    menu,
    tooltip,
)

_PAIR = ["attack", "source", "target"]


def hypothesis_chart(effects: pd.DataFrame, bins: pd.DataFrame) -> Drawn:
    """Link the rank correlation of every pair with one pair's curves by initial confidence.

    Args:
        effects: A row per attack, source and target, with `row` (the pair in words), `n` images,
            `flipped` ones, and `rho` with `rho_low` and `rho_high`: rank correlation between
            initial confidence and minimum adversarial budget.
        bins: Of the pairs in detail: a row per bin of initial confidence (`bin` in words,
            in the order of the table) and budget, with `n`, `robust_accuracy` and `confidence`
            and their intervals; without any the dots stand alone.
    """
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


def _by_bin(bins: pd.DataFrame, pair: alt.Parameter) -> Drawn:
    """Return accuracy and confidence over the budget, a line per bin of initial confidence."""
    x = alt.X("eps_255:Q", **budget_axis(sorted(set(bins["eps_255"]))))
    order = list(dict.fromkeys(bins.sort_values("bin_low", ascending=False)["bin"]))
    scheme: Any = alt.SchemeParams(name="viridis", extent=[0.15, 0.95])
    colour = alt.Color(
        "bin:O",
        sort=order,
        scale=alt.Scale(scheme=scheme),
        legend=alt.Legend(title="initial confidence", symbolType="stroke", symbolStrokeWidth=4),
    )
    panels = []
    for value, words in (
        ("robust_accuracy", "still correct"),
        ("confidence", "mean confidence"),
    ):
        limits = [value, f"{value}_low", f"{value}_high"]
        lines = tooltip(*_PAIR, "bin", "eps_255", "n", shares=limits)
        y = alt.Y(f"{value}:Q", title=words, axis=alt.Axis(format=".0%"))
        base = alt.Chart(inline(bins)).transform_filter(pair).encode(x=x, color=colour)
        band = base.mark_area(opacity=0.08).encode(y=f"{value}_low:Q", y2=f"{value}_high:Q")
        line = base.mark_line(point=True).encode(y=y.scale(domain=[0, 1]), tooltip=lines)
        panels.append(alt.layer(band, line).properties(width=PANEL + 30, height=170))
    name = "pair.attack ? pair.attack[0] + ', ' + pair.source[0] + ' to ' + pair.target[0] : ''"
    return alt.vconcat(*panels).properties(title=alt.Title(alt.ExprRef(name)))


def trajectories_chart(images: pd.DataFrame) -> Drawn:
    """Show the confidence over the budget, image by image, of one pair's galleries.

    Args:
        images: A row per image and budget: `pair` (in words), `image` (number and class), `kind`,
            `eps_255`, `confidence`, `true_confidence`, `predicted_name` and `outcome` (`correct` or
            `wrong`).
    """
    pairs = list(dict.fromkeys(images["pair"]))
    chosen = menu("images_of", "pair", pairs, pairs[0])
    x = alt.X("eps_255:Q", **budget_axis(sorted(set(images["eps_255"]))))
    lines = tooltip(
        *("pair", "image", "kind", "eps_255", "predicted_name"),
        shares=["confidence", "true_confidence"],
    )
    y = alt.Y("confidence:Q", title="confidence", axis=alt.Axis(format=".0%"))
    base = alt.Chart().encode(x=x)
    line = base.mark_line(color=GREY).encode(y=y)
    true = base.mark_line(color=GREY, strokeDash=[2, 2]).encode(y="true_confidence:Q")
    words = alt.Legend(title="prediction (line); true class (dotted)", orient="bottom")
    scale = alt.Scale(domain=["correct", "wrong"], range=["#4e79a7", "#e15759"])
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=y.scale(domain=[0, 1]),
        color=alt.Color("outcome:N", scale=scale, legend=words),
        shape=alt.Shape("outcome:N", scale=alt.Scale(domain=["correct", "wrong"]), legend=words),
        tooltip=lines,
    )
    return (
        alt.layer(line, true, points, data=inline(images))
        .properties(width=PANEL, height=110)
        .facet(facet=alt.Facet("image:N", sort=None, title=None), columns=4)
        .transform_filter("datum.pair == images_of")
        .add_params(chosen)
    )
