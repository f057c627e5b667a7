"""Whether images with a high initial confidence are harder to manipulate."""

import altair as alt
import pandas as pd

from src.report.charts.dots import dot_plot
from src.report.charts.theme import (
    GREY,
    PANEL,
    PERCENT,
    STROKES,
    WHOLE,
    Drawn,
    budgets,
    colour_of_levels,
    curve,
    inline,
    one_part,
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
    base = (
        alt.Chart(inline(bins))
        .transform_filter(pair)
        .encode(x=budgets(bins), color=colour_of_levels("bin", bins, "bin_low", **STROKES))
    )
    panels = []
    for value, words in (("robust_accuracy", "still correct"), ("confidence", "mean confidence")):
        limits = [value, f"{value}_low", f"{value}_high"]
        lines = tooltip(*_PAIR, "bin", "eps_255", "n", shares=limits)
        panels.append(curve(base, value, words, lines).properties(width=PANEL + 30, height=170))
    name = "pair.attack ? pair.attack[0] + ', ' + pair.source[0] + ' to ' + pair.target[0] : ''"
    return alt.vconcat(*panels).properties(title=alt.Title(alt.ExprRef(name)))


def trajectories_chart(images: pd.DataFrame) -> Drawn:
    """Show the confidence over the budget, image by image, of one pair's galleries.

    Args:
        images: A row per image and budget: `pair` (in words), `image` (number and class), `kind`,
            `eps_255`, `confidence`, `true_confidence`, `predicted_name` and `outcome` (`correct` or
            `wrong`).
    """
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
