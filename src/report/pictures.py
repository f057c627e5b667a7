"""Figures of images: what an attack did to single examples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from src.report.style import (
    RIGHT,
    SMALL_SIZE,
    TEXT_SIZE,
    WRONG,
    add_title,
    budget,
    short_name,
)

_CHARACTERS_PER_INCH = 13  # of the small text under an image
_TRIPLE_INCHES = 1.75
_SERIES_INCHES = 1.25


def triple(
    clean: ArrayLike,
    adversarial: ArrayLike,
    eps_255: float,
    *,
    labels: Sequence[int],
    predicted: ArrayLike,
    confidence: ArrayLike,
    class_names: Sequence[str],
    title: str | None = None,
) -> Figure:
    """Draw image, perturbation and adversarial image side by side, one row per example.

    Args:
        clean: Images (E, C, H, W) in [0, 1], C = 1 or 3.
        adversarial: Their adversarial versions, same shape.
        eps_255: Budget; the perturbation is scaled so that it fills the grey range.
        labels: True classes, (E,).
        predicted: Predicted classes (2, E), first of the clean images.
        confidence: Confidence of those predictions, (2, E) in [0, 1].
        class_names: Name of every class.
        title: Title of the figure.

    Returns:
        Figure with three columns. Grey in the middle column means an unchanged pixel; its
        heading says the scale, and under it stands the largest change of the image.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    images, changed = _images(clean, "clean"), _images(adversarial, "adversarial")
    _same_shape(changed, images.shape, "adversarial")
    classes, confidences = _scores(predicted, confidence, (2, len(images)))
    _one_label_each(labels, len(images))
    figure, grid = _grid(len(images), 3, _TRIPLE_INCHES, title)
    scale = 255 / (2 * eps_255) if eps_255 > 0 else 1.0
    headings = (
        "clean",
        f"perturbation\n$\\times$ {scale:.3g} (grey: no change)",
        f"adversarial\n$\\epsilon$ = {budget(eps_255)}",
    )
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=TEXT_SIZE)
    for row, label in enumerate(labels):
        delta = changed[row] - images[row]
        _draw(grid[row][0], images[row])
        _draw(grid[row][1], np.clip(0.5 + scale * delta, 0, 1))
        _draw(grid[row][2], changed[row])
        _true_class(grid[row][0], class_names[label], _TRIPLE_INCHES)
        largest = 255 * np.abs(delta).max()
        grid[row][1].set_xlabel(f"largest change\n{largest:.3g}/255", fontsize=SMALL_SIZE)
        for column, which in ((0, 0), (2, 1)):
            _verdict(
                grid[row][column],
                class_names[classes[which, row]],
                confidences[which, row],
                bool(classes[which, row] == label),
                _TRIPLE_INCHES,
            )
    return figure


def series(
    clean: ArrayLike,
    adversarials: ArrayLike,
    eps_255: Sequence[float],
    *,
    labels: Sequence[int],
    predicted: ArrayLike,
    confidence: ArrayLike,
    class_names: Sequence[str],
    title: str | None = None,
) -> Figure:
    """Draw each example at every budget: one row per example, one column per budget.

    Args:
        clean: Images (E, C, H, W) in [0, 1], C = 1 or 3.
        adversarials: Their adversarial versions at K budgets, (K, E, C, H, W).
        eps_255: Budgets, (K,).
        labels: True classes, (E,).
        predicted: Predicted classes (K + 1, E), first of the clean images.
        confidence: Confidence of those predictions, (K + 1, E) in [0, 1].
        class_names: Name of every class.
        title: Title of the figure.

    Returns:
        Figure with K + 1 columns; right and wrong predictions differ in symbol and colour.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    images = _images(clean, "clean")
    changed = np.asarray(adversarials, dtype=np.float64)
    _same_shape(changed, (len(eps_255), *images.shape), "adversarials")
    classes, confidences = _scores(predicted, confidence, (len(eps_255) + 1, len(images)))
    _one_label_each(labels, len(images))
    figure, grid = _grid(len(images), len(eps_255) + 1, _SERIES_INCHES, title)
    headings = ["clean", *(f"$\\epsilon$ = {budget(eps)}" for eps in eps_255)]
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=TEXT_SIZE)
    for row, label in enumerate(labels):
        _true_class(grid[row][0], class_names[label], _SERIES_INCHES)
        for column, axes in enumerate(grid[row]):
            _draw(axes, images[row] if column == 0 else changed[column - 1, row])
            predicted_class = classes[column, row]
            _verdict(
                axes,
                class_names[predicted_class],
                confidences[column, row],
                bool(predicted_class == label),
                _SERIES_INCHES,
            )
    return figure


def _grid(
    rows: int, columns: int, size: float, title: str | None
) -> tuple[Figure, NDArray[np.object_]]:
    """Make a figure with square images of `size` inches and two lines of text under each."""
    height = rows * (size + 0.48) + 0.4 + (0.2 if title else 0.0)
    figure = Figure(figsize=(columns * (size + 0.12) + 0.4, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    add_title(figure, title)
    return figure, grid


def _draw(axes: Axes, image: NDArray[np.float64]) -> None:
    picture = np.clip(np.moveaxis(image, 0, -1), 0, 1)
    if picture.shape[-1] == 1:
        picture = np.repeat(picture, 3, axis=-1)
    # Small images as they are, pixel by pixel; larger ones than the paper holds are smoothed.
    axes.imshow(picture, interpolation="nearest" if picture.shape[0] <= 96 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _fit(name: str, inches: float) -> str:
    return short_name(name, int(inches * _CHARACTERS_PER_INCH))


def _true_class(axes: Axes, name: str, inches: float) -> None:
    axes.set_ylabel(f"true: {_fit(name, inches)}", fontsize=SMALL_SIZE)


def _verdict(axes: Axes, name: str, confidence: float, right: bool, inches: float) -> None:
    """Write the predicted class under an image and frame it, by colour and by symbol."""
    symbol, colour = RIGHT if right else WRONG
    text = f"{symbol} {_fit(name, inches)}\n{confidence:.1%}"
    axes.set_xlabel(text, fontsize=SMALL_SIZE, color=colour)
    axes.spines[:].set(visible=True, color=colour, linewidth=1.6)


def _images(values: ArrayLike, name: str) -> NDArray[np.float64]:
    images = np.asarray(values, dtype=np.float64)
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"{name} must have the shape (images, 1 or 3, height, width) with at least one image, "
            f"not {images.shape}."
        )
    return images


def _same_shape(values: NDArray[np.float64], shape: tuple[int, ...], name: str) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {values.shape}.")


def _scores(
    predicted: ArrayLike, confidence: ArrayLike, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    classes = np.asarray(predicted, dtype=np.int64)
    confidences = np.asarray(confidence, dtype=np.float64)
    for name, values in (("predicted", classes), ("confidence", confidences)):
        if values.shape != shape:
            raise ValueError(
                f"{name} must have the shape {shape} (clean first, then each budget; images), "
                f"not {values.shape}."
            )
    return classes, confidences


def _one_label_each(labels: Sequence[int], images: int) -> None:
    if len(labels) != images:
        raise ValueError(f"labels must name one class per image, got {len(labels)} for {images}.")
