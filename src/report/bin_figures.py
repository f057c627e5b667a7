"""Figures by initial confidence: curves of its bins, kinds of images, Hypothesis 1."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from src.analysis import is_white_box
from src.analysis.confidence_bins import FEWEST_IMAGES
from src.report.style import (
    GRID,
    INK,
    PALE,
    PALETTE,
    RIGHT,
    SMALL_SIZE,
    TEXT_SIZE,
    WHISKER,
    WRONG,
    add_title,
    budget_axis,
    drawable,
    pair_name,
    percent_axis,
    percents,
    plain_text,
    tidy,
    wrap_title,
)

_ENDS = ("low", "high")
_WHITE_BOX = " (white box)"
_COLOURS = colormaps["viridis"]
_LIGHTEST = 0.86  # of the colours, whose last ones are too light for white paper
_VERDICTS = {
    "supported": ("o", RIGHT[1], "supported: confident images need larger budgets"),
    "contradicted": ("s", WRONG[1], "contradicted"),
    "undecided": ("D", INK, "undecided"),
}


def confidence_bins_figure(frame: pd.DataFrame, *, attack: str, source: str, target: str) -> Figure:
    """Draw robust accuracy and confidence over the budget, one line per initial confidence.

    Args:
        frame: Result of `src.analysis.confidence_bins.by_initial_confidence`.
        attack: Name of the attack, for the title.
        source: Model that the adversarial images were made on.
        target: Model that they were shown to.

    Returns:
        Figure with two panels in per cent, robust accuracy and mean confidence in the predicted
        class, and a legend with the number of images of each bin. The higher the initial
        confidence, the darker the line; neighbours alternate solid and dashed. Bands are 95 %
        intervals; bins with fewer than 10 images have a thin line without one.

    Raises:
        ValueError: If there is no image in any bin, or a column is missing.
    """
    bounds = [f"{name}_{end}" for name in ("robust_accuracy", "confidence") for end in _ENDS]
    rows = drawable(
        frame,
        ["bin_low", "bin_high", *bounds],
        ["eps_255", "n", "robust_accuracy", "confidence"],
    )
    bins = rows[["bin_low", "bin_high"]].drop_duplicates().sort_values("bin_low", ascending=False)
    figure = Figure(figsize=(9.0, max(4.2, 1.6 + 0.16 * len(bins))), layout="constrained")
    accuracy, confidence = figure.subplots(1, 2, sharex=True)
    handles = []
    for place, low in enumerate(bins["bin_low"]):
        line = rows[rows["bin_low"] == low].sort_values("eps_255")
        handles.append(_draw_bin(accuracy, confidence, line, place, len(bins)))
    for axes, label in ((accuracy, "robust accuracy"), (confidence, "mean confidence")):
        tidy(axes)
        percent_axis(axes, label)
        budget_axis(axes, rows["eps_255"])
    figure.legend(
        handles=[*handles, *_notes(rows)],
        title="initial confidence",
        loc="outside right center",
        fontsize=SMALL_SIZE,
        title_fontsize=SMALL_SIZE,
        frameon=False,
        handlelength=2.6,
        labelspacing=0.35,
    )
    total = int(rows.groupby("bin_low")["n"].max().sum())
    add_title(figure, *_what(attack, source, target), f"n = {total}")
    return figure


def kind_shares_figure(
    frame: pd.DataFrame,
    kinds: Mapping[str, str],
    *,
    attack: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> Figure:
    """Draw the share of images of each kind by their initial confidence.

    Args:
        frame: Result of `src.analysis.phenomena.kind_shares`.
        kinds: What readers call each kind, in the order of the panels.
        attack: Name of the attack, for the title.
        source: Model that the adversarial images were made on, for the title.
        target: Model that they were shown to, for the title.

    Returns:
        Figure with a panel per kind: bars over the bins of initial confidence in per cent with
        95 % Wilson intervals; above each bar stand its number of images and that of its bin.

    Raises:
        ValueError: If no bin has an image of which the kind is known, or a column is missing.
    """
    rows = drawable(
        frame,
        ["bin_low", "bin_high", "kind", "images", "share_low", "share_high"],
        ["n", "share"],
    )
    present = [kind for kind in kinds if (rows["kind"] == kind).any()]
    if not present:
        raise ValueError(
            f"there is nothing to draw: no row of the table is of the kinds {', '.join(kinds)}."
        )
    columns = min(len(present), 2)
    lines = -(-len(present) // columns)
    figure = Figure(figsize=(4.4 * columns + 0.1, 0.7 + 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(present):
            axes.set_visible(False)
            continue
        _draw_kind(axes, rows[rows["kind"] == present[place]])
        wrap_title(axes, plain_text(kinds[present[place]]), 4.0)
        axes.set_ylabel("share (%)" if place % columns == 0 else "", fontsize=TEXT_SIZE)
        if place + columns >= len(present):
            axes.set_xlabel("initial confidence (%)", fontsize=TEXT_SIZE)
            axes.tick_params(labelbottom=True)
    total = int(rows.groupby("bin_low")["n"].max().sum())
    add_title(figure, *_what(attack, source, target), f"n = {total}")
    return figure


def effects_figure(frame: pd.DataFrame) -> Figure:
    """Draw how strongly the initial confidence goes with the smallest flipping budget.

    Args:
        frame: One row per attack, source and target with the columns of
            `src.analysis.hypothesis.Effect`.

    Returns:
        Figure with a row per pair, by attack: Spearman's rho with its 95 % interval and the
        number of images. Symbol and colour give the verdict; white boxes have a bold name.

    Raises:
        ValueError: If no pair has a correlation, or a column is missing.
    """
    columns = ["attack", "source", "target", "n", "flipped", "rho_low", "rho_high", "verdict"]
    known = drawable(frame, columns, ["rho"])
    attacks = list(dict.fromkeys(frame["attack"]))
    # One empty line between attacks, and one above each for its name.
    lines = len(frame) + 2 * len(attacks) - 1
    figure = Figure(figsize=(8.6, 1.5 + 0.2 * lines), layout="constrained")
    axes = figure.subplots()
    place, names = 0.0, {}
    for attack in attacks:
        names[place] = f"{plain_text(attack)}:"
        for row in frame[frame["attack"] == attack].to_dict("records"):
            place += 1
            names[place] = _pair(row)
            _draw_effect(axes, place, row)
        place += 2
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=INK, linewidth=1.0)
    axes.set_yticks(list(names), list(names.values()))
    axes.tick_params(axis="y", length=0)
    for label in axes.get_yticklabels():
        if label.get_text().endswith(_WHITE_BOX):
            label.set_fontweight("bold")
    axes.set_ylim(place - 1.3, -0.7)
    low, high = known[["rho_low", "rho"]].min().min(), known[["rho_high", "rho"]].max().max()
    axes.set_xlim(max(-1.03, min(low, 0) - 0.08), min(1.03, max(high, 0) + 0.08))
    axes.set_xlabel(
        "rank correlation $\\rho$ of initial confidence and smallest flipping budget",
        fontsize=TEXT_SIZE,
    )
    figure.legend(
        handles=[
            Line2D([], [], marker=marker, color=colour, markersize=6, label=label)
            for name, (marker, colour, label) in _VERDICTS.items()
            if (known["verdict"] == name).any()
        ],
        loc="outside lower center",
        ncols=len(_VERDICTS),
        fontsize=SMALL_SIZE,
        frameon=False,
    )
    add_title(figure, "Hypothesis 1 by pair: correlation with 95 % interval")
    return figure


def _what(attack: str | None, source: str | None, target: str | None) -> tuple[str | None, ...]:
    """Return the parts of a title that say which pair is shown."""
    made = " made on ".join(plain_text(name) for name in (attack, source) if name)
    return made or None, target and f"shown to {plain_text(target)}"


def _draw_bin(
    accuracy: Axes, confidence: Axes, line: pd.DataFrame, place: int, bins: int
) -> Line2D:
    """Draw one bin into both panels and return its entry in the legend."""
    low, high = float(line["bin_low"].iloc[0]), float(line["bin_high"].iloc[0])
    images = int(line["n"].max())
    few = images < FEWEST_IMAGES
    colour = _COLOURS(_LIGHTEST * place / max(bins - 1, 1))
    width = 0.7 if few else 1.6
    style: Literal["-", "--"] = "--" if place % 2 else "-"
    x = line["eps_255"].to_numpy()
    for axes, name in ((accuracy, "robust_accuracy"), (confidence, "confidence")):
        if not few:
            bottom, top = (percents(line, f"{name}_{end}") for end in _ENDS)
            light = 0.15 if bins <= 6 else 0.08 if bins <= 12 else 0.05
            axes.fill_between(x, bottom, top, color=colour, alpha=light, linewidth=0)
        y = percents(line, name)
        axes.plot(x, y, style, color=colour, linewidth=width, marker="o", markersize=1.8 * width)
    bounds = " to ".join(f"{round(100 * bound, 3) + 0.0:g}" for bound in (low, high))
    label = f"{bounds} %, n = {images}"
    return Line2D([], [], linestyle=style, color=colour, linewidth=width, label=label)


def _notes(rows: pd.DataFrame) -> list[Line2D | Patch]:
    """Return the entries of the legend that explain bands and thin lines."""
    few = rows.groupby("bin_low")["n"].max() < FEWEST_IMAGES
    notes: list[Line2D | Patch] = []
    if not few.all():
        notes.append(Patch(color=PALE, label="95 % interval"))
    if few.any():
        label = f"thin: n < {FEWEST_IMAGES}, no interval"
        notes.append(Line2D([], [], color=INK, linewidth=0.7, label=label))
    return notes


def _draw_kind(axes: Axes, rows: pd.DataFrame) -> None:
    low, high = percents(rows, "bin_low"), percents(rows, "bin_high")
    middle = (low + high) / 2
    axes.bar(middle, percents(rows, "share"), width=0.84 * (high - low), color=PALETTE[5])
    bottom, top = percents(rows, "share_low"), percents(rows, "share_high")
    axes.vlines(middle, bottom, top, color=WHISKER, linewidth=1.3)
    for x, images, n in zip(middle, rows["images"], rows["n"], strict=True):
        text = f"{int(images)}\n{int(n)}"
        axes.text(x, 106, text, ha="center", va="bottom", fontsize=SMALL_SIZE, linespacing=1.1)
    axes.text(
        -1, 106, "images\nof n =", ha="right", va="bottom", fontsize=SMALL_SIZE, linespacing=1.1
    )
    tidy(axes)
    axes.grid(visible=False, axis="x")
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_ylim(0, 135)
    axes.set_yticks(range(0, 101, 25))
    axes.spines["left"].set_bounds(0, 100)


def _pair(row: Mapping[str, object]) -> str:
    source, target = str(row["source"]), str(row["target"])
    return pair_name(source, target) + (_WHITE_BOX if is_white_box(source, target) else "")


def _draw_effect(axes: Axes, place: float, row: Mapping[str, float]) -> None:
    """Draw one pair: its interval, its point, and its numbers behind the panel."""
    axes.axhline(place, color=GRID, linewidth=0.6, zorder=0)
    rho, counts = row["rho"], f"{int(row['flipped'])} of {int(row['n'])} flip"
    numbers = "$\\rho$: not estimated"
    if np.isfinite(rho):
        marker, colour, _ = _VERDICTS.get(str(row["verdict"]), _VERDICTS["undecided"])
        low, high = row["rho_low"], row["rho_high"]
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes.plot([rho], [place], marker=marker, color=colour, markersize=6)
        numbers = f"$\\rho$ = {rho:.2f}"
        if np.isfinite(low) and np.isfinite(high):
            numbers += f" [{low:.2f}, {high:.2f}]"
    axes.annotate(
        f"{numbers}, {counts}".replace("-", "\u2212"),
        (1, place),
        (6, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=SMALL_SIZE,
        annotation_clip=False,
    )
