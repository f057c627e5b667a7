"""Whether confident images are harder to manipulate, and single images."""

from typing import Any

import pandas as pd

from src.report import charts
from src.report.measure import Measured
from src.report.page import Figure, Section, Table
from src.report.sections.text import MOST_ROWS, enough, pairs, records, span, too_few

FEWEST_IN_BIN = 10
"""Bins of fewer images are not drawn."""


def hypothesis(found: Measured) -> Section | None:
    """Return the rank correlation of every pair, and a pair's curves by initial confidence."""
    effects = found.table("effects")
    if effects.empty:
        return None
    title = "Are confident images harder to manipulate?"
    told = effects[enough(effects["n"])]
    if told.empty:
        return Section("hypothesis", title, (too_few(effects["n"], "of Hypothesis 1"),))
    told = told.assign(row=pairs(told))
    bins = found.table("bins")
    if len(bins):
        bins = bins[bins["n"] >= FEWEST_IN_BIN].assign(bin=_bin_names)
    verdicts = told["verdict"].value_counts()
    counts = ", ".join(f"{name} for {count}" for name, count in verdicts.items())
    text = (
        f"Hypothesis 1, images with a high initial confidence are harder to manipulate, is "
        f"{counts} of {len(told)} pairs (95 % intervals, not corrected for the number of pairs)."
    )
    drawn = len(bins.drop_duplicates(["attack", "source", "target"])) if len(bins) else 0
    right = (
        f" Right: accuracy and confidence of the selected pair (of {drawn} pairs) by bins of "
        f"initial confidence with at least {FEWEST_IN_BIN} images."
    )
    caption = (
        "Spearman's correlation between initial confidence and minimum adversarial budget, "
        f"of {span(told['n'])} initially correct images a pair; above 0, more "
        f"confident images need a larger budget.{right if drawn else ''}"
    )
    chart = charts.hypothesis_chart(told, bins)
    figure = Figure(
        "hypothesis", "Initial confidence and the budget that fools", caption, chart, told
    )
    sentences = pd.DataFrame({"pair by pair": [_effect(row) for row in records(told)]})
    table = Table("Pair by pair", "One sentence a pair.", sentences.head(MOST_ROWS))
    return Section("hypothesis", title, (text,), (figure,), (table,))


def _bin_names(bins: pd.DataFrame) -> list[str]:
    ends = zip(bins["bin_low"], bins["bin_high"], strict=True)
    return [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in ends]


def _effect(row: dict[str, Any]) -> str:
    """Return what one pair says of Hypothesis 1."""
    pair = f"{row['attack']}, {row['row']}: {row['flipped']} of {row['n']} images are fooled"
    if row["why"]:
        return f"{pair}; no rank correlation ({row['why']})."
    interval = f"[{row['rho_low']:.2f}, {row['rho_high']:.2f}]"
    return f"{pair}, rho = {row['rho']:.2f} {interval}: {row['verdict']}."


def images(found: Measured) -> Section | None:
    """Return the galleries by definition, their curves, and example images."""
    if not found.albums:
        return None
    figures = []
    shown = found.table("shown")
    if len(shown):
        shown = shown.assign(pair=shown["attack"] + ": " + pairs(shown))
        shown = shown.drop_duplicates(["pair", "image", "eps_255"])
        caption = "Confidence in the predicted and in the true class; the images of the galleries."
        chart = charts.trajectories_chart(shown)
        figures.append(Figure("images", "Single images over the budget", caption, chart, shown))
    text = "Galleries: the clearest cases by definition (see below). Examples: by index."
    return Section("images", "Images", (text,), tuple(figures), albums=tuple(found.albums))
