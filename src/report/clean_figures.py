"""Figures of the clean data: classes, and how confident one model is in them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from src.report.style import (
    PALETTE,
    SMALL_SIZE,
    TEXT_SIZE,
    WHISKER,
    add_title,
    class_labels,
    drawable,
    per_cent,
    percent_axis,
    percents,
    plain_text,
    thin_ticks,
    tidy,
)

_MOST_BARS = 20
_MOST_COUNTS = 12
_MOST_NAMED = 25
_MOST_POINTS = 600
_MOST_WHISKERS = 400
_ENDS = 3
_NAME_LIMIT = 26
_DEVIATION = "one standard deviation, cut at 0 and 100 %"
_BLUE, _VERMILLION, _SKY = PALETTE[0], PALETTE[1], PALETTE[5]


def class_counts_figure(
    frame: pd.DataFrame, class_names: Sequence[str], *, dataset: str | None = None
) -> Figure:
    """Draw how many images the most frequent classes have.

    Args:
        frame: Columns `label`, `images` and `share` in [0, 1], one row per class.
        class_names: Name of every class.
        dataset: Name of the data set, for the title.

    Returns:
        Figure with a bar for each of the 20 most frequent classes; with more classes, a second
        panel shows how many classes have 1, 2, 3, ... images (in ranges, if counts vary a lot).

    Raises:
        ValueError: If there is no image, a column is missing or a class has no name.
    """
    rows = drawable(frame, ["label"], ["images", "share"])
    rows = rows[rows["images"] > 0].sort_values(["images", "label"], ascending=[False, True])
    if rows.empty:
        raise ValueError("there is nothing to draw: no class has an image.")
    top = rows.head(_MOST_BARS)
    many = len(rows) > _MOST_BARS
    height = 0.9 + 0.21 * max(len(top), 4)
    figure = Figure(figsize=(8.6 if many else 6.4, height), layout="constrained")
    panels = figure.subplots(1, 1 + many, squeeze=False, width_ratios=[1.5, 1] if many else [1])
    _count_bars(panels[0, 0], top, class_names)
    if many:
        _counts_of_counts(panels[0, 1], rows["images"].to_numpy(dtype=np.int64))
        panels[0, 0].set_title(f"{_MOST_BARS} most frequent classes", fontsize=TEXT_SIZE)
        panels[0, 1].set_title(f"all {len(rows)} classes", fontsize=TEXT_SIZE)
    total = int(rows["images"].sum())
    add_title(
        figure,
        dataset and plain_text(dataset),
        f"{total} {_noun(total, 'image')}",
        f"{len(rows)} of {len(class_names)} {_noun(len(class_names), 'class', 'classes')}",
    )
    return figure


def confidence_profiles_figure(frame: pd.DataFrame, *, model: str) -> Figure:
    """Draw the mean confidences of the top five classes by initial confidence.

    Args:
        frame: Columns `level`, `rank` (from 1), `images`, `confidence`, `confidence_low` and
            `confidence_high` (10 % and 90 % quantile), confidences in [0, 1]. A level without
            images has images = 0 and NaN.
        model: Whose confidence it is.

    Returns:
        Figure with a panel per level from the highest to the lowest, bars in per cent.

    Raises:
        ValueError: If no level has an image, or a column is missing.
    """
    columns = ["level", "rank", "images", "confidence_low", "confidence_high"]
    drawable(frame, columns, ["confidence"])
    levels = sorted(frame["level"].unique(), reverse=True)
    columns_count = min(len(levels), 3)
    rows_count = -(-len(levels) // columns_count)
    size = (max(2.8 * columns_count, 4.2), 1.0 + 1.75 * rows_count)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows_count, columns_count, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(levels):
            axes.set_visible(False)
            continue
        _profile(axes, frame[frame["level"] == levels[place]], levels[place])
        percent_axis(axes, "confidence" if place % columns_count == 0 else "")
        axes.set_ylim(-3, 119)
        if place + columns_count >= len(levels):
            axes.set_xlabel("rank of the class", fontsize=TEXT_SIZE)
            axes.tick_params(labelbottom=True)
    handles = [
        Line2D([], [], color=_SKY, linewidth=7, label="mean over the images"),
        Line2D([], [], color=WHISKER, linewidth=1.3, label="10 % to 90 % of the images"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, fontsize=SMALL_SIZE, frameon=False
    )
    add_title(figure, f"{plain_text(model)}: top 5 confidences by initial confidence")
    return figure


def class_confidence_figure(
    frame: pd.DataFrame, class_names: Sequence[str], *, model: str
) -> Figure:
    """Draw the mean confidence of every class, in descending order.

    Args:
        frame: Columns `label`, `images`, `confidence` in [0, 1] and `confidence_sd` (NaN for one
            image), one row per class.
        class_names: Name of every class.
        model: Whose confidence it is.

    Returns:
        Figure in per cent with one standard deviation to both sides, cut at 0 and 100 %, for
        classes with more than one image. Up to 25 classes are all named, of more the first and
        the last three; of very many, evenly spaced ones are drawn and the legend says so.

    Raises:
        ValueError: If no class has a confidence, a column is missing or a class has no name.
    """
    rows = drawable(frame, ["label", "confidence_sd"], ["images", "confidence"])
    rows = rows.sort_values(["confidence", "label"], ascending=[False, True])
    if len(rows) <= _MOST_NAMED:
        figure = Figure(figsize=(6.4, 1.4 + 0.21 * max(len(rows), 4)), layout="constrained")
        axes = figure.subplots()
        _named_classes(axes, rows, class_names)
    else:
        figure = Figure(figsize=(8.6, 4.9), layout="constrained")
        axes, ends = figure.subplots(2, 1, height_ratios=[5.5, 1])
        _ranked_classes(axes, rows)
        _name_ends(ends, rows, class_names)
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL_SIZE, frameon=False)
    images = int(rows["images"].sum())
    add_title(
        figure,
        f"{plain_text(model)}: mean confidence per class",
        f"{len(rows)} {_noun(len(rows), 'class', 'classes')}",
        f"{images} {_noun(images, 'image')}",
    )
    return figure


def _count_bars(axes: Axes, top: pd.DataFrame, class_names: Sequence[str]) -> None:
    pairs = zip(top["images"].tolist(), top["share"].tolist(), strict=True)
    texts = [f"{int(images)} ({per_cent(share)} %)" for images, share in pairs]
    names = class_labels(top["label"], class_names, _NAME_LIMIT)
    _bars(axes, names, top["images"].to_numpy(), texts, _BLUE)
    axes.set_xlabel("images (share of all images)", fontsize=TEXT_SIZE)


def _counts_of_counts(axes: Axes, images: NDArray[np.int64]) -> None:
    """Draw how many classes have so and so many images."""
    starts = _range_starts(int(images.min()), int(images.max()))
    classes = np.bincount(np.searchsorted(starts[:-1], images, "right") - 1)
    names = [f"{a}" if b - a == 1 else f"{a} to {b - 1}" for a, b in pairwise(starts)]
    _bars(axes, names, classes, [str(count) for count in classes], _SKY)
    axes.set_ylabel("images in the class", fontsize=TEXT_SIZE)
    axes.set_xlabel("number of classes", fontsize=TEXT_SIZE)


def _range_starts(lowest: int, highest: int) -> list[int]:
    """Choose where ranges of counts begin, and one past the last: single, doubling or equal."""
    if highest - lowest < _MOST_COUNTS:
        return list(range(lowest, highest + 2))
    if highest >= 8 * lowest:
        doubled = [lowest]
        while doubled[-1] <= highest:
            doubled.append(2 * doubled[-1])
        return doubled
    step = -(-(highest - lowest + 1) // _MOST_COUNTS)
    return list(range(lowest, highest + step + 1, step))


def _bars(
    axes: Axes, names: list[str], lengths: NDArray[np.generic], texts: list[str], colour: str
) -> None:
    """Draw lying bars from top to bottom, with room for the text behind each."""
    places = np.arange(len(names))
    bars = axes.barh(places, lengths, color=colour, height=0.75)
    axes.bar_label(bars, texts, padding=3, fontsize=SMALL_SIZE)
    axes.set_yticks(places, names)
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(names), 4) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * float(lengths.max()))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _profile(axes: Axes, rows: pd.DataFrame, level: float) -> None:
    images = int(rows["images"].max())
    axes.set_title(f"initial confidence {100 * level:.3g} %, n = {images}", fontsize=SMALL_SIZE)
    tidy(axes)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(sorted(rows["rank"].unique()))
    rows = rows[rows["confidence"].notna()]
    if rows.empty:
        axes.text(0.5, 0.5, "no image", ha="center", transform=axes.transAxes, fontsize=TEXT_SIZE)
        return
    rank, mean = rows["rank"].to_numpy(), percents(rows, "confidence")
    axes.bar(rank, mean, color=_SKY, width=0.7)
    # Not `yerr`: a mean may lie outside these quantiles.
    low, high = percents(rows, "confidence_low"), percents(rows, "confidence_high")
    axes.vlines(rank, low, high, color=WHISKER, linewidth=1.3)
    for x, value, top in zip(rank, mean, np.fmax(mean, high), strict=True):
        axes.text(x, top + 2, per_cent(value / 100), ha="center", va="bottom", fontsize=SMALL_SIZE)


def _named_classes(axes: Axes, rows: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Draw a few classes, each with its name and number of images."""
    place = np.arange(len(rows))
    mean, low, high = _deviations(rows)
    axes.hlines(place, low, high, color=_SKY, linewidth=3, label=_DEVIATION)
    axes.plot(mean, place, "o", color=_BLUE, markersize=5, label="mean of a class")
    names = class_labels(rows["label"], class_names, _NAME_LIMIT)
    pairs = zip(names, rows["images"].tolist(), strict=True)
    axes.set_yticks(place, [f"{name}, n = {int(images)}" for name, images in pairs])
    axes.set_ylim(max(len(rows), 4) - 0.4, -0.6)
    axes.set_xlim(-3, 103)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("mean confidence (%)", fontsize=TEXT_SIZE)


def _ranked_classes(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw many classes as a falling line over their rank."""
    rank = np.arange(1, len(rows) + 1)
    mean, low, high = _deviations(rows)
    several = np.flatnonzero(np.isfinite(low))
    step = max(1, -(-len(several) // _MOST_WHISKERS))
    chosen = several[::step]
    # One line with gaps: a separate one for each class makes a large SVG.
    gap = np.full(len(chosen), np.nan)
    x = np.stack([rank[chosen], rank[chosen], gap], axis=1)
    y = np.stack([low[chosen], high[chosen], gap], axis=1)
    which = f", every {step}th class" if step > 1 else ""
    axes.plot(x.ravel(), y.ravel(), color=_SKY, linewidth=1.0, label=_DEVIATION + which)
    shown = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_POINTS)).round().astype(int)
    axes.plot(rank[shown], mean[shown], color=_BLUE, linewidth=1.8, label="mean of a class")
    margin = 0.02 * len(rows)
    axes.set_xlim(1 - margin, len(rows) + margin)
    inner = [tick for tick in MaxNLocator(8).tick_values(1, len(rows)) if 1 < tick < len(rows)]
    axes.set_xticks(thin_ticks([1, *inner, len(rows)]))
    axes.set_xlabel("rank of the class by mean confidence", fontsize=TEXT_SIZE)
    percent_axis(axes, "mean confidence")


def _deviations(rows: pd.DataFrame) -> tuple[NDArray[np.float64], ...]:
    """Return means and the ends of one standard deviation in per cent; NaN ends for one image."""
    mean, deviation = percents(rows, "confidence"), percents(rows, "confidence_sd")
    return mean, np.clip(mean - deviation, 0, 100), np.clip(mean + deviation, 0, 100)


def _name_ends(axes: Axes, rows: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Name the classes with the highest and the lowest mean, in an empty panel."""
    axes.set_axis_off()
    for heading, part, x, side in (
        ("highest", rows.head(_ENDS), 0.0, "left"),
        ("lowest", rows.tail(_ENDS), 1.0, "right"),
    ):
        names = class_labels(part["label"], class_names, 2 * _NAME_LIMIT)
        values = zip(names, part["confidence"].tolist(), part["images"].tolist(), strict=True)
        lines = [f"{name}: {100 * mean:.4g} %, n = {int(images)}" for name, mean, images in values]
        axes.text(
            x,
            1.0,
            "\n".join([f"{heading} mean confidence", *lines]),
            transform=axes.transAxes,
            ha=side,
            va="top",
            fontsize=SMALL_SIZE,
        )


def _noun(count: int, one: str, many: str | None = None) -> str:
    return one if count == 1 else many or f"{one}s"
