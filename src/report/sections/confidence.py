"""Whether confident images are harder to manipulate, and single images."""

import pandas as pd

from src.report.charts.confidence import hypothesis_chart, trajectories_chart
from src.report.measure import Measured
from src.report.page import Figure, Section, Table
from src.report.sections.text import (
    MOST_ROWS,
    enough,
    pair_names,
    span,
    too_few,
    with_intervals,
)

FEWEST_IN_BIN = 10
"""Bins of fewer images are left out."""


def hypothesis(found: Measured) -> Section | None:
    """Return the rank correlation of every pair, and a pair's curves by initial confidence."""
    effects = found.table("effects")
    if effects.empty:
        return None
    title = "Are confident images harder to manipulate?"
    rows = effects[enough(effects["n"])]
    if rows.empty:
        return Section("hypothesis", title, (too_few(effects["n"]),))
    rows = rows.assign(row=pair_names(rows))
    bins = found.table("bins")
    if len(bins):
        bins = bins[bins["n"] >= FEWEST_IN_BIN].assign(bin=_bin_names)
    verdicts = rows["verdict"].value_counts()
    counts = ", ".join(f"{name} for {count}" for name, count in verdicts.items())
    text = (
        f"Hypothesis 1, images with a high initial confidence are harder to manipulate, is "
        f"{counts} of {len(rows)} pairs (95 % intervals, not corrected for the number of pairs)."
    )
    detailed = len(bins.drop_duplicates(["attack", "source", "target"])) if len(bins) else 0
    beside = (
        f" Right: accuracy and confidence of the selected pair (of {detailed} pairs) by bins of "
        f"initial confidence with at least {FEWEST_IN_BIN} images."
    )
    caption = (
        "Spearman's correlation between initial confidence and minimum adversarial budget, "
        f"of {span(rows['n'])} initially correct images a pair; above 0, more "
        f"confident images need a larger budget.{beside if detailed else ''}"
    )
    chart = hypothesis_chart(rows, bins)
    name = "Initial confidence and minimum adversarial budget"
    figure = Figure("hypothesis", name, caption, chart, rows)
    return Section("hypothesis", title, (text,), (figure,), (_effects_table(rows),))


def _bin_names(bins: pd.DataFrame) -> list[str]:
    ends = zip(bins["bin_low"], bins["bin_high"], strict=True)
    return [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in ends]


def _effects_table(effects: pd.DataFrame) -> Table:
    rows = effects.head(MOST_ROWS)
    counts = zip(rows["flipped"], rows["n"], strict=True)
    frame = pd.DataFrame(
        {
            "attack": rows["attack"],
            "pair": rows["row"],
            "misclassified": [f"{flipped} of {n}" for flipped, n in counts],
            "rho": with_intervals(rows, "rho", ".2f"),
            "Hypothesis 1": rows["verdict"],
        }
    )
    caption = "Images misclassified at some budget, and rank correlation with its 95 % interval."
    return Table("Pair by pair", caption, frame)


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
        chart = trajectories_chart(rows)
        figures.append(Figure("images", "Single images over the budget", caption, chart, rows))
    text = "Galleries: the clearest cases by definition (see below). Examples: by index."
    return Section("images", "Images", (text,), tuple(figures), albums=tuple(found.albums))
