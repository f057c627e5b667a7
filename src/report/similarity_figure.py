"""The figure that sets the transfer of each pair beside the likeness of its two models."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from src.analysis.similarity import FEWEST_PAIRS, transfer_regression
from src.report.point_labels import label_points
from src.report.style import (
    INK,
    MARKERS,
    PALETTE,
    SMALL_SIZE,
    TEXT_SIZE,
    add_title,
    budget,
    count_range,
    drawable,
    model_name,
    pair_name,
    percent_axis,
    percents,
    tidy,
)

MOST_LABELS = 6
"""With more pairs in a panel, or long names, colour and symbol alone tell them apart."""

_PREDICTORS = {
    "cosine": "mean cosine of the gradients (no unit)",
    "kappa": "agreement of errors, Cohen's $\\kappa$ (no unit)",
}
_STRIP_INCHES = 0.32
_LONGEST_LABEL = 32  # characters; longer ones would cover the panel


def similarity_figure(frame: pd.DataFrame) -> Figure:
    """Draw the success rate of every pair over the likeness of its source and target.

    Args:
        frame: Result of `src.analysis.similarity.pair_similarity`.

    Returns:
        Figure with a row per attack and two panels, over the mean gradient cosine and over the
        agreement of errors: one point per pair with 95 % intervals, colour by source, symbol by
        target, named if there are up to 6 and their names are short; where at least 4 different
        pairs of models are not white box, the line of
        `src.analysis.similarity.transfer_regression`.
        White boxes stand hollow in a strip at the side, as their likeness of 1 would push all
        others together.

    Raises:
        ValueError: If no pair has a success rate and one of the two numbers, or a column is
            missing.
    """
    columns = ["attack", "source", "target", "n", "cosine_low", "cosine_high", "white_box"]
    columns += ["success_rate_low", "success_rate_high", *_PREDICTORS]
    rows = drawable(frame, columns, ["success_rate"])
    rows = rows[rows[list(_PREDICTORS)].notna().any(axis=1)]
    if rows.empty:
        raise ValueError("there is nothing to draw: no pair has a gradient cosine or a kappa.")
    attacks = list(dict.fromkeys(rows["attack"]))
    white = rows["white_box"].astype(bool)
    strip = max(int((white & (rows["attack"] == attack)).sum()) for attack in attacks)
    figure = Figure(figsize=(8.9, 1.0 + 3.1 * len(attacks)), layout="constrained")
    side = _STRIP_INCHES * max(strip + 0.4, 2.2) if strip else 0.01
    grid = figure.subplots(
        len(attacks), 4, squeeze=False, sharey=True, width_ratios=[3.4, side, 3.4, side]
    )
    looks = _Looks(rows)
    regression = transfer_regression(rows)
    for panels, attack in zip(grid, attacks, strict=True):
        mine = rows["attack"] == attack
        for number, predictor in enumerate(_PREDICTORS):
            axes, beside = panels[2 * number : 2 * number + 2]
            fit = regression.query("attack == @attack and predictor == @predictor").iloc[0]
            _draw_pairs(axes, rows[mine & ~white], predictor, looks, fit)
            _limit(axes, rows[~white], predictor)
            _draw_white_boxes(beside, rows[mine & white], predictor, looks)
        percent_axis(panels[0], f"success rate of {model_name(str(attack))}")
    figure.legend(
        handles=looks.handles(),
        loc="outside lower center",
        ncols=min(max(len(looks.sources), len(looks.targets)), 5),
        fontsize=SMALL_SIZE,
        frameon=False,
        columnspacing=1.2,
    )
    at = rows["eps_255"].unique().tolist() if "eps_255" in rows else []
    add_title(
        figure,
        "transfer and likeness of models",
        f"$\\epsilon$ = {budget(at[0])}" if len(at) == 1 else None,
        f"n = {count_range(rows['n'])} images a pair",
    )
    _label(figure, grid[:, [0, 2]], rows[~white], attacks)
    return figure


def _draw_pairs(
    axes: Axes, rows: pd.DataFrame, predictor: str, looks: "_Looks", fit: pd.Series
) -> None:
    """Draw the pairs that are not white box, and their regression line."""
    tidy(axes)
    axes.set_xlabel(_PREDICTORS[predictor], fontsize=TEXT_SIZE)
    known = rows[rows[predictor].notna()]
    count = f"{len(known)} pair{'' if len(known) == 1 else 's'}"
    title = f"{count} not white box"
    if np.isfinite(fit["slope"]):
        place = known[predictor].to_numpy(dtype=np.float64)
        ends = np.array([place.min(), place.max()])
        line = 100 * (fit["intercept"] + fit["slope"] * ends)
        axes.plot(ends, line, "--", color=INK, linewidth=1.2, zorder=1)
        title += f", r = {fit['r']:.2f}".replace("-", "\u2212")
    elif fit["model_pairs"] < FEWEST_PAIRS:
        title += f", no line below {FEWEST_PAIRS} pairs of models"
    axes.set_title(title, fontsize=SMALL_SIZE)
    for row in known.to_dict("records"):
        x, y = row[predictor], 100 * row["success_rate"]
        look = looks.of(row["source"], row["target"])
        _upright(axes, x, row, look["color"])
        if predictor == "cosine":
            low, high = row["cosine_low"], row["cosine_high"]
            axes.plot([low, high], [y, y], color=look["color"], linewidth=1.2)
        axes.plot([x], [y], linestyle="none", markersize=7, zorder=3, **look)


def _upright(axes: Axes, x: float, row: Mapping[Any, float], colour: str) -> None:
    """Draw the interval of a success rate."""
    ends = [100 * row["success_rate_low"], 100 * row["success_rate_high"]]
    axes.plot([x, x], ends, color=colour, linewidth=1.2)


def _limit(axes: Axes, rows: pd.DataFrame, predictor: str) -> None:
    """Give the panels of all attacks the same horizontal range."""
    names = ["cosine", "cosine_low", "cosine_high"] if predictor == "cosine" else [predictor]
    values = rows[names].to_numpy(dtype=np.float64, na_value=np.nan)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.set_xticks([])
        axes.text(
            0.5,
            0.5,
            "no pair to show",
            ha="center",
            transform=axes.transAxes,
            fontsize=TEXT_SIZE,
        )
        return
    margin = 0.2 * np.ptp(values) or 0.05
    axes.set_xlim(values.min() - margin, values.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _draw_white_boxes(axes: Axes, rows: pd.DataFrame, predictor: str, looks: "_Looks") -> None:
    """Draw the white boxes side by side, with their likeness under each."""
    if rows.empty:
        axes.set_axis_off()
        return
    values = []
    for place, row in enumerate(rows.to_dict("records")):
        look = looks.of(row["source"], row["target"])
        _upright(axes, place, row, look["color"])
        axes.plot(
            [place],
            [100 * row["success_rate"]],
            linestyle="none",
            markersize=7,
            markerfacecolor="white",
            zorder=3,
            **look,
        )
        values.append(f"{row[predictor]:.2g}" if pd.notna(row[predictor]) else "n/a")
    tidy(axes)
    axes.grid(visible=False, axis="x")
    axes.set_title("white box", fontsize=SMALL_SIZE)
    axes.set_xticks(range(len(values)), values)
    axes.set_xlim(-0.7, len(values) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _label(
    figure: Figure, grid: NDArray[np.object_], rows: pd.DataFrame, attacks: Sequence[str]
) -> None:
    """Write the names of pairs beside their points, once the layout is known."""
    figure.draw_without_rendering()
    for panels, attack in zip(grid, attacks, strict=True):
        for axes, predictor in zip(panels, _PREDICTORS, strict=True):
            known = rows[(rows["attack"] == attack) & rows[predictor].notna()]
            texts = [
                pair_name(str(source), str(target))
                for source, target in zip(known["source"], known["target"], strict=True)
            ]
            if not 0 < len(texts) <= MOST_LABELS or max(map(len, texts)) > _LONGEST_LABEL:
                continue
            places = known[predictor].to_numpy(dtype=np.float64)
            label_points(axes, np.stack([places, percents(known, "success_rate")], 1), texts)


class _Looks:
    """Colours of the sources and symbols of the targets."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.sources = list(dict.fromkeys(rows["source"]))
        self.targets = list(dict.fromkeys(rows["target"]))

    def of(self, source: str, target: str) -> dict[str, Any]:
        """Return the look of one pair's point."""
        return {
            "color": self.colour(source),
            "marker": MARKERS[self.targets.index(target) % len(MARKERS)],
        }

    def colour(self, source: str) -> str:
        """Return the colour of a source."""
        return PALETTE[self.sources.index(source) % len(PALETTE)]

    def handles(self) -> list[Line2D]:
        """Return the entries of the legend."""
        made = [
            Line2D(
                [],
                [],
                color=self.colour(name),
                linewidth=4,
                label=f"made on {model_name(str(name))}",
            )
            for name in self.sources
        ]
        shown = [
            Line2D(
                [],
                [],
                linestyle="none",
                marker=MARKERS[place % len(MARKERS)],
                color=INK,
                label=f"shown to {model_name(str(name))}",
            )
            for place, name in enumerate(self.targets)
        ]
        # Column by column, so that the sources fill one line and the targets the next.
        pairs = zip_longest(made, shown, fillvalue=Line2D([], [], linestyle="none", label=" "))
        return [handle for pair in pairs for handle in pair]
