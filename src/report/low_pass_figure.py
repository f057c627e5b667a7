"""The figure of the accuracy on clean images without their high frequencies."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from src.report.style import (
    LINE_STYLES,
    MARKERS,
    PALE,
    PALETTE,
    SMALL_SIZE,
    TEXT_SIZE,
    add_title,
    count_range,
    drawable,
    model_name,
    percent_axis,
    percents,
    tidy,
)

_ALL_AT = 1.15  # times the highest cutoff: where the unfiltered images stand


def low_pass_figure(frame: pd.DataFrame) -> Figure:
    """Draw the accuracy on clean images that lost their high frequencies.

    Args:
        frame: Result of `src.analysis.frequency.low_pass_accuracy`.

    Returns:
        Figure with a line per model in per cent and its 95 % Wilson band over the cutoff. The
        accuracy on unfiltered images (cutoff inf) stands apart at the right end, named "all".

    Raises:
        ValueError: If no model has an accuracy, or a column is missing.
    """
    columns = ["target", "cutoff", "n", "accuracy_low", "accuracy_high"]
    rows = drawable(frame, columns, ["accuracy"])
    whole = rows[np.isposinf(rows["cutoff"].to_numpy(dtype=np.float64))]
    rows = drawable(rows, columns, ["cutoff"])
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    models = list(dict.fromkeys(rows["target"]))
    for place, target in enumerate(models):
        line = rows[rows["target"] == target].sort_values("cutoff")
        colour, x = PALETTE[place % len(PALETTE)], line["cutoff"].to_numpy()
        low, high = percents(line, "accuracy_low"), percents(line, "accuracy_high")
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            x,
            percents(line, "accuracy"),
            linestyle=LINE_STYLES[place % len(LINE_STYLES)],
            marker=MARKERS[place % len(MARKERS)],
            color=colour,
            linewidth=1.6,
            markersize=5,
            label=f"{model_name(str(target))}, n = {count_range(line['n'])}",
        )
    percent_axis(axes, "accuracy")
    cutoffs = np.unique(rows["cutoff"].to_numpy(dtype=np.float64))
    ticks, names = cutoffs, [f"{cutoff:.3g}" for cutoff in cutoffs]
    handles: list[Artist] = list(axes.get_lines())
    if len(whole):
        ticks, names = np.append(cutoffs, _ALL_AT * cutoffs[-1]), [*names, "all"]
        _unfiltered(axes, whole, models, float(ticks[-1]))
    axes.set_xticks(ticks, names)
    axes.set_xlim(0, 1.06 * ticks[-1])
    axes.set_xlabel("frequencies kept: below so many cycles per pixel", fontsize=TEXT_SIZE)
    handles.append(Patch(color=PALE, label="95 % Wilson interval"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 2),
        fontsize=SMALL_SIZE,
        frameon=False,
        handlelength=2.8,
    )
    add_title(figure, "accuracy on low-passed clean images")
    return figure


def _unfiltered(axes: Axes, rows: pd.DataFrame, models: list[str], middle: float) -> None:
    """Draw each model's accuracy on unfiltered images as a point, side by side."""
    for row in rows.to_dict("records"):
        if row["target"] not in models:
            continue
        place = models.index(row["target"])
        x = middle * (1 + 0.02 * (place - (len(models) - 1) / 2))
        colour = PALETTE[place % len(PALETTE)]
        ends = [100 * row["accuracy_low"], 100 * row["accuracy_high"]]
        axes.plot([x, x], ends, color=colour, linewidth=1.3)
        marker = MARKERS[place % len(MARKERS)]
        axes.plot([x], [100 * row["accuracy"]], marker=marker, color=colour, markersize=5)
