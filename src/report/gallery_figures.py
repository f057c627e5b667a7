"""Figures of single images: how predictions change over the budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from src.report.style import (
    GRID,
    INK,
    PALE,
    RIGHT,
    SMALL_SIZE,
    WRONG,
    add_title,
    budget,
    budget_axis,
    class_labels,
    percent_axis,
    plain_text,
    tidy,
)

_ROW_INCHES = 1.95
_WIDTHS = (1.45, 2.6, 2.2, 2.2)
_BAR_NAME_LIMIT = 22
_TOP = 5
_BAR_RIGHT, _BAR_WRONG = "#9CC7E8", "#F2BE99"
"""Light versions of the colours of right and wrong, as text stands on them."""
_RIGHT_LOOK: dict[str, Any] = {"marker": "o", "mec": RIGHT[1], "mfc": RIGHT[1], "markersize": 5}
_WRONG_LOOK: dict[str, Any] = {"marker": "X", "mec": WRONG[1], "mfc": WRONG[1], "markersize": 6}


def gallery_figure(
    entries: "Sequence[Entry]", *, class_names: Sequence[str], title: str | None
) -> Figure:
    """Draw how the prediction for single images changes over the budget, one row per image.

    Args:
        entries: What to draw.
        class_names: Name of every class.
        title: Title of the figure; None for none.

    Returns:
        Figure with four columns: the clean image and its true class; the confidence in the
        predicted class (solid, right and wrong predictions differ in symbol and colour) and in
        the true class (dashed) over the budget, with a line at the key budget; the five most
        likely classes of the clean image, and those at the key budget.

    Raises:
        ValueError: If there is no entry, its values do not fit together, or a class has no name.
    """
    if not entries:
        raise ValueError("there is nothing to draw: the gallery has no image.")
    rows = [_Row(entry) for entry in entries]
    tried = np.concatenate([row.eps for row in rows])
    keys = [entry.key_eps_255 for entry in entries if entry.key_eps_255 > 0]
    figure = Figure(figsize=(8.9, 0.55 + _ROW_INCHES * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 4, squeeze=False, width_ratios=_WIDTHS)
    for row, panels in zip(rows, grid, strict=True):
        _draw_image(panels[0], row, class_names)
        _draw_confidence(panels[1], row)
        budget_axis(panels[1], tried, keys)
        if row is not rows[-1]:
            panels[1].set_xlabel("")
        _draw_top(panels[2], row, row.entry.clean_top5, class_names, "top 5 clean")
        key = "top 5: no such budget"
        if np.isfinite(row.entry.key_eps_255):
            key = f"top 5 at {_eps(row.entry.key_eps_255)}"
        words = plain_text(row.entry.key_words)
        _draw_top(panels[3], row, row.entry.key_top5, class_names, f"{key}\n({words})")
    figure.legend(
        handles=_handles(),
        loc="outside lower center",
        ncols=5,
        fontsize=SMALL_SIZE,
        frameon=False,
        columnspacing=1.2,
    )
    add_title(figure, title and plain_text(title))
    return figure


def _eps(eps_255: float) -> str:
    return f"$\\epsilon$ = {budget(float(f'{eps_255:.3g}'))}"


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], color=INK, label=f"{RIGHT[0]} predicted, right", **_RIGHT_LOOK),
        Line2D([], [], color=INK, label=f"{WRONG[0]} predicted, wrong", **_WRONG_LOOK),
        Line2D([], [], linestyle="--", color=RIGHT[1], linewidth=1.4, label="true class"),
        Line2D([], [], linestyle=":", color=INK, linewidth=1.4, label="budget of the last column"),
    ]


def _draw_image(axes: Axes, row: "_Row", class_names: Sequence[str]) -> None:
    image = row.image
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if image is None:
        axes.set_facecolor(GRID)
        axes.set_box_aspect(1)
        axes.text(
            0.5,
            0.5,
            "image\nnot stored",
            ha="center",
            va="center",
            transform=axes.transAxes,
            fontsize=SMALL_SIZE,
        )
    else:
        smooth = max(image.shape[:2]) > 96
        axes.imshow(image, interpolation="antialiased" if smooth else "nearest")
    axes.set_title(f"image {row.entry.index}", fontsize=SMALL_SIZE)
    (name,) = class_labels([row.entry.label], class_names)
    axes.set_xlabel(f"true: {name}", fontsize=SMALL_SIZE)


def _draw_confidence(axes: Axes, row: "_Row") -> None:
    """Draw the confidence in the predicted and in the true class over the budget."""
    right = row.predicted == row.entry.label
    if np.isfinite(row.entry.key_eps_255):
        axes.axvline(row.entry.key_eps_255, color=INK, linestyle=":", linewidth=1.4)
    axes.plot(row.eps, 100 * row.true_confidence, "--", color=RIGHT[1], linewidth=1.4)
    axes.plot(row.eps, 100 * row.confidence, "-", color=INK, linewidth=1.2)
    for mask, look in ((right, _RIGHT_LOOK), (~right, _WRONG_LOOK)):
        axes.plot(row.eps[mask], 100 * row.confidence[mask], linestyle="none", zorder=3, **look)
    tidy(axes)
    percent_axis(axes, "confidence")


def _draw_top(
    axes: Axes,
    row: "_Row",
    top: tuple[ArrayLike, ArrayLike],
    class_names: Sequence[str],
    heading: str,
) -> None:
    """Draw the most likely classes as bars with their names on them."""
    classes, confidences = _top(top)
    axes.set_title(heading, fontsize=SMALL_SIZE)
    axes.set_xlim(0, 100)
    axes.set_ylim(_TOP - 0.45, -0.55)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    if not len(classes):
        axes.text(
            0.5, 0.5, "not stored", ha="center", transform=axes.transAxes, fontsize=SMALL_SIZE
        )
        return
    names = class_labels(classes, class_names, _BAR_NAME_LIMIT)
    for place, (number, name, share) in enumerate(zip(classes, names, confidences, strict=True)):
        right = number == row.entry.label
        symbol = f"{RIGHT[0]} " if right else f"{WRONG[0]} " if place == 0 else ""
        colour = _BAR_RIGHT if right else _BAR_WRONG if place == 0 else PALE
        axes.barh(place, 100 * share, color=colour, height=0.8, alpha=1.0)
        look: dict[str, Any] = {"va": "center_baseline", "fontsize": SMALL_SIZE}
        axes.text(2.5, place, f"{symbol}{name}", ha="left", **look)
        axes.text(100, place, f"{share:.1%}", ha="right", **look)


def _top(top: tuple[ArrayLike, ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the most likely classes that are known, and their confidences."""
    if any(part is None for part in top):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    classes = np.atleast_1d(np.asarray(top[0], dtype=np.float64))
    confidences = np.atleast_1d(np.asarray(top[1], dtype=np.float64))
    if classes.shape != confidences.shape or classes.ndim != 1:
        raise ValueError(
            f"a top 5 must have one confidence per class, not shapes {classes.shape} and "
            f"{confidences.shape}."
        )
    known = np.isfinite(classes) & np.isfinite(confidences)
    return classes[known][:_TOP].astype(np.int64), confidences[known][:_TOP]


@dataclass(frozen=True)
class Entry:
    """One image of a gallery, K budgets.

    Attributes:
        image: Clean image (3, H, W) or (1, H, W), uint8; None if it was not stored.
        index: Number of the image.
        label: True class.
        eps_255: Budgets in units of 1/255, (K + 1,), rising, first 0.
        predicted: Predicted classes, (K + 1,).
        confidence: Their confidence, (K + 1,) in [0, 1].
        true_confidence: Confidence in the true class, (K + 1,) in [0, 1].
        clean_top5: Classes and confidences of the five most likely ones on the clean image, the
            likeliest first; fewer if there are fewer; empty or None if they were not stored.
        key_top5: The same at the key budget.
        key_eps_255: Budget that the row is about; NaN if there is none.
        key_words: What that budget is, such as `smallest flipping budget`.
    """

    image: NDArray[np.uint8] | None
    index: int
    label: int
    eps_255: ArrayLike
    predicted: ArrayLike
    confidence: ArrayLike
    true_confidence: ArrayLike
    clean_top5: tuple[ArrayLike, ArrayLike]
    key_top5: tuple[ArrayLike, ArrayLike]
    key_eps_255: float
    key_words: str


class _Row:
    """An entry whose values were checked and are arrays; `image` is (H, W, 3) or None."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.eps = np.asarray(entry.eps_255, dtype=np.float64)
        self.predicted = np.asarray(entry.predicted)
        self.confidence = np.asarray(entry.confidence, dtype=np.float64)
        self.true_confidence = np.asarray(entry.true_confidence, dtype=np.float64)
        if self.eps.ndim != 1 or not len(self.eps):
            raise ValueError(f"eps_255 must be a list of budgets, not of shape {self.eps.shape}.")
        for name in ("predicted", "confidence", "true_confidence"):
            shape = getattr(self, name).shape
            if shape != self.eps.shape:
                raise ValueError(
                    f"{name} of image {entry.index} must have the shape {self.eps.shape} of its "
                    f"eps_255, not {shape}."
                )
        self.image: NDArray[np.uint8] | None = None
        if entry.image is not None:
            pixels = np.asarray(entry.image)
            if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.dtype != np.uint8:
                raise ValueError(
                    f"image {entry.index} must be uint8 of the shape (1 or 3, height, width), not "
                    f"{pixels.dtype} {pixels.shape}."
                )
            self.image = np.broadcast_to(np.moveaxis(pixels, 0, -1), (*pixels.shape[1:], 3))
