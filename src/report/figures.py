"""Figures of the rates: curves over the budget and the transfer matrix as a heat map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from src.analysis import CLEAN, is_white_box
from src.analysis.matrix import is_targeted, measure_of, words_of
from src.report.style import (
    LINE_STYLES,
    MARKERS,
    PALETTE,
    SMALL_SIZE,
    TEXT_SIZE,
    add_title,
    budget,
    budget_axis,
    percent_axis,
    plain_text,
    save_figure,
    tidy,
)

__all__ = ["curves", "heat_map", "save_figure"]

_EMPTY = "no image in the denominator"
_MARKER_SIZE = 4.5
_COLOURS = "viridis"
_WHITE_BOX_EDGE = "#D55E00"
_ONE_LINE_CELLS = 4  # up to so many columns a cell is written on one line


def curves(
    rates: pd.DataFrame,
    source: str,
    attack: str,
    *,
    dataset: str | None = None,
    protocol: str | None = None,
) -> Figure:
    """Draw robust accuracy and confidence of every target over the budget.

    For targeted attacks the success rate takes the place of the robust accuracy.

    Args:
        rates: Result of `src.analysis.rates.rates`, one line per target; NaN rates
            (empty denominators) leave gaps.
        source: Model that the adversarial images were made on; marked in the legend.
        attack: Name of the attack, for the title.
        dataset: Name of the data set, for the title.
        protocol: Which images form the denominator, for the title.

    Returns:
        Figure with two panels in per cent: robust accuracy with its 95 % Wilson band, and the
        mean confidence in the predicted (solid) and in the true class (dashed, open markers).
    """
    targeted = is_targeted(rates)
    measure = "success_rate" if targeted else "robust_accuracy"
    targets = list(rates["target"].unique())
    columns = min(len(targets), 3)
    legend_rows = -(-len(targets) // columns)
    figure = Figure(figsize=(8.6, 3.9 + 0.2 * legend_rows), layout="constrained")
    accuracy, confidence = figure.subplots(1, 2, sharex=True)
    for place, target in enumerate(targets):
        line = rates[rates["target"] == target].sort_values("eps_255")
        _draw_target(accuracy, confidence, line, source, place, measure)
    rate = words_of(measure, targeted).rate
    for axes, label in ((accuracy, rate), (confidence, "mean confidence")):
        percent_axis(axes, label)
        budget_axis(axes, rates["eps_255"])
        tidy(axes)
        if not rates["denominator"].any():
            axes.text(0.5, 0.5, _EMPTY, ha="center", transform=axes.transAxes, fontsize=TEXT_SIZE)
    keys: dict[str, Any] = {
        "fontsize": SMALL_SIZE,
        "loc": "best",
        "framealpha": 0.85,
        "handlelength": 2.8,
    }
    accuracy.legend(handles=[Patch(color="#BBBBBB", label="95 % Wilson interval")], **keys)
    confidence.legend(handles=_class_handles(), **keys)
    figure.legend(
        handles=accuracy.get_lines(),
        loc="outside lower center",
        ncols=columns,
        fontsize=TEXT_SIZE,
        frameon=False,
        handlelength=2.8,
    )
    add_title(
        figure,
        plain_text(f"{attack} made on {source}"),
        dataset and plain_text(dataset),
        protocol and f"protocol: {protocol}",
    )
    return figure


def heat_map(
    matrix: pd.DataFrame,
    *,
    dataset: str | None = None,
    attack: str | None = None,
    protocol: str | None = None,
) -> Figure:
    """Draw the transfer matrix: rows = made on, columns = shown to.

    Args:
        matrix: Result of `src.analysis.rates.matrix`.
        dataset: Name of the data set, for the title.
        attack: Name of the attack, for the title.
        protocol: Which images form the denominator, for the title.

    Returns:
        Figure whose cells hold `count / denominator = rate` on a colour scale of 0 to 100 %,
        which says what is counted; white-box cells (the target is the source, or a member of
        an ensemble) are outlined. Cells with an empty denominator and pairs that were not run
        are grey.
    """
    measure = measure_of(matrix)
    sources, targets = list(matrix["source"].unique()), list(matrix["target"].unique())
    one_line = len(targets) <= _ONE_LINE_CELLS
    cell_width, cell_height = (1.75, 0.6) if one_line else (1.0, 0.6)
    margin = 0.085 * max(len(name) for name in sources) + 1.5
    size = (margin + cell_width * len(targets), 1.6 + cell_height * len(sources))
    figure = Figure(figsize=(max(size[0], 4.8), size[1]), layout="constrained")
    axes = figure.subplots()
    values = matrix.pivot(index="source", columns="target", values=measure)
    shares = 100 * values.reindex(index=sources, columns=targets).to_numpy()
    scale = colormaps[_COLOURS].with_extremes(bad="#DDDDDD")
    image = axes.imshow(
        np.ma.masked_invalid(shares), cmap=scale, norm=Normalize(0, 100), aspect="auto"
    )
    pairs = zip(matrix["source"].tolist(), matrix["target"].tolist(), strict=True)
    cells: dict[tuple[str, str], str] = dict(zip(pairs, matrix["cell"].tolist(), strict=True))
    for y, source in enumerate(sources):
        for x, target in enumerate(targets):
            text = cells.get((source, target), "not run")
            text = text if one_line else text.replace(" = ", "\n= ")
            _write_cell(axes, x, y, text, shares[y, x], to_rgb(scale(shares[y, x] / 100)))
            if is_white_box(source, target):
                _outline(axes, x, y, 0.06 / cell_width, 0.06 / cell_height)
    _grid_lines(axes, sources, targets)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    words = words_of(measure, is_targeted(matrix))
    bar.set_label(f"{words.rate} (%)", fontsize=TEXT_SIZE)
    bar.ax.tick_params(labelsize=SMALL_SIZE)
    eps = matrix.loc[matrix["source"] != CLEAN, "eps_255"].iloc[0]
    add_title(
        figure,
        attack and plain_text(attack),
        dataset and plain_text(dataset),
        f"$\\epsilon$ = {budget(eps)}",
        protocol and f"protocol: {protocol}",
    )
    return figure


def _draw_target(
    accuracy: Axes,
    confidence: Axes,
    line: pd.DataFrame,
    source: str,
    place: int,
    measure: str,
) -> None:
    """Draw one target's lines; the white box is thicker."""
    target = line["target"].iloc[0]
    colour = PALETTE[place % len(PALETTE)]
    look: dict[str, Any] = {
        "color": colour,
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": _MARKER_SIZE,
        "linewidth": 2.4 if is_white_box(source, target) else 1.4,
    }
    x = line["eps_255"].to_numpy()
    low, high = 100 * line[f"{measure}_low"].to_numpy(), 100 * line[f"{measure}_high"].to_numpy()
    accuracy.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    style = LINE_STYLES[place % len(LINE_STYLES)]
    label = _legend_label(target, source, line["denominator"])
    accuracy.plot(x, 100 * line[measure].to_numpy(), linestyle=style, label=label, **look)
    predicted, true = 100 * line["confidence"].to_numpy(), 100 * line["true_confidence"].to_numpy()
    confidence.plot(x, predicted, linestyle="-", **look)
    confidence.plot(x, true, linestyle="--", markerfacecolor="white", **look)


def _legend_label(target: str, source: str, denominators: pd.Series) -> str:
    counts = sorted({int(n) for n in denominators})
    count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"{plain_text(target)}{' (white box)' if is_white_box(source, target) else ''}, n = {count}"
    )


def _class_handles() -> list[Line2D]:
    look: dict[str, Any] = {"color": "#555555", "marker": "o", "markersize": _MARKER_SIZE}
    return [
        Line2D([], [], label="predicted class", **look),
        Line2D([], [], label="true class", linestyle="--", markerfacecolor="white", **look),
    ]


def _write_cell(
    axes: Axes, x: int, y: int, text: str, share: float, background: tuple[float, float, float]
) -> None:
    """Write a cell in black or white, whichever contrasts more with its colour."""
    if np.isnan(share):
        colour = "#333333"
    else:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        # Equal contrast with black and with white (WCAG 2) lies at this luminance.
        colour = "black" if luminance > 0.179 else "white"
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=SMALL_SIZE)


def _outline(axes: Axes, x: int, y: int, inset_x: float, inset_y: float) -> None:
    corner = (x - 0.5 + inset_x, y - 0.5 + inset_y)
    box = Rectangle(corner, 1 - 2 * inset_x, 1 - 2 * inset_y, fill=False, linewidth=2.2)
    box.set_edgecolor(_WHITE_BOX_EDGE)
    box.set_path_effects([withStroke(linewidth=4.0, foreground="white")])
    box.set_gid("white box")
    axes.add_patch(box)


def _grid_lines(axes: Axes, sources: Sequence[str], targets: Sequence[str]) -> None:
    axes.set_xticks(range(len(targets)), map(plain_text, targets), fontsize=TEXT_SIZE)
    axes.set_yticks(range(len(sources)), map(plain_text, sources), fontsize=TEXT_SIZE)
    if len(targets) > _ONE_LINE_CELLS:
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_xlabel("shown to (outlined: white box)", fontsize=TEXT_SIZE)
    axes.set_ylabel("made on", fontsize=TEXT_SIZE)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for x in range(1, len(targets)):
        axes.axvline(x - 0.5, color="white", linewidth=1.5)
    for y, above in enumerate(sources[:-1]):
        axes.axhline(y + 0.5, color="white", linewidth=5 if above == CLEAN else 1.5)
