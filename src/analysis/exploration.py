"""The clean data as one model sees it: classes, confidences and the five likeliest classes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import wilson_interval
from src.analysis.rates import group_totals, ratio
from src.checks import check_number

LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Initial confidences of the profiles, as in the study of ImageNet images."""

TOP_K = 5

_DIGITS = 7
"""Decimals to which confidences are compared with bounds: a float32 0.95 counts as 0.95."""


def class_counts(clean: pd.DataFrame) -> pd.DataFrame:
    """Count the images of each class.

    Args:
        clean: Clean rows (eps_255 = 0) of one model: a row per image.

    Returns:
        One row per class that has images, most images first, then by class: `label`, `images`
        and `share` of all images, in (0, 1].

    Raises:
        ValueError: If a column is missing, or the rows are not those of one model's clean images.
    """
    _check_clean(clean, ["label"])
    labels, images = np.unique(clean["label"].to_numpy(), return_counts=True)
    counts = pd.DataFrame({"label": labels, "images": images, "share": images / max(len(clean), 1)})
    order = np.lexsort((labels, -images))
    return counts.iloc[order].reset_index(drop=True)


def class_confidence(clean: pd.DataFrame) -> pd.DataFrame:
    """Average the confidence over the images of each class.

    Args:
        clean: Clean rows (eps_255 = 0) of one model: a row per image.

    Returns:
        One row per class that has images, highest mean confidence first, then by class:
        `label` (the true class), `images`, `confidence` (mean probability of the predicted
        class), `confidence_sd` (standard deviation over the images, n - 1 in its denominator;
        NaN for one image), `true_confidence` (mean probability of the true class), `correct`
        (images predicted correctly) and `accuracy`.

    Raises:
        ValueError: As `class_counts`.
    """
    _check_clean(clean, ["label", "predicted", "confidence", "true_confidence"])
    labels, group = np.unique(clean["label"].to_numpy(), return_inverse=True)
    images = np.bincount(group, minlength=len(labels))
    confidence = clean["confidence"].to_numpy(dtype=np.float64)
    true_confidence = clean["true_confidence"].to_numpy(dtype=np.float64)
    right = (clean["predicted"] == clean["label"]).to_numpy()
    table = pd.DataFrame({"label": labels, "images": images})
    table["confidence"], table["confidence_sd"] = grouped_mean(confidence, group, len(labels))
    table["true_confidence"], _ = grouped_mean(true_confidence, group, len(labels))
    table["correct"] = group_totals(right, group, len(labels)).astype(np.int64)
    table["accuracy"] = ratio(table["correct"].to_numpy(), images)
    order = np.lexsort((labels, -table["confidence"].to_numpy()))
    return table.iloc[order].reset_index(drop=True)


def confidence_profiles(
    clean: pd.DataFrame, levels: Sequence[float] = LEVELS, half_width: float = 0.025
) -> pd.DataFrame:
    """Average the five highest probabilities of images with about the same initial confidence.

    An image belongs to a level if its initial confidence is at least level - half_width and
    below level + half_width (up to 1 for the level 1.0), whether or not it is predicted
    correctly.

    Args:
        clean: Clean rows (eps_255 = 0) of one model with `top5_confidences`: a row per image.
        levels: Initial confidences in (0, 1], in the order of the result.
        half_width: Largest distance from a level, in (0, 1].

    Returns:
        Five rows per level: `level`, `rank` (1 is the predicted class), `images` of the level,
        `confidence` (mean probability at that rank), `confidence_low` and `confidence_high`
        (10 % and 90 % quantile over the images). They are NaN for a level without images, and
        for ranks beyond the number of classes.

    Raises:
        ValueError: As `class_counts`, or for a level or width that cannot be.
    """
    _check_clean(clean, ["confidence", "top5_confidences"])
    for level in levels:
        check_number("a level of initial confidence", level, 0, 1, open_low=True)
    check_number("half_width", half_width, 0, 1, open_low=True)
    top = top_values(clean["top5_confidences"])
    initial = rounded(clean["confidence"])
    parts = []
    for level in levels:
        low, high = np.round([level - half_width, level + half_width], _DIGITS)
        chosen = top[(initial >= low) & (initial < high)]
        part = pd.DataFrame({"level": float(level), "rank": np.arange(1, TOP_K + 1)})
        part["images"] = len(chosen)
        empty = np.full(TOP_K, np.nan)
        part["confidence"] = chosen.mean(axis=0) if len(chosen) else empty
        low_high = np.quantile(chosen, [0.1, 0.9], axis=0) if len(chosen) else [empty, empty]
        part["confidence_low"], part["confidence_high"] = low_high
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def top_k(clean: pd.DataFrame) -> pd.DataFrame:
    """Count how often the true class is the likeliest one, and among the five likeliest.

    Args:
        clean: Clean rows (eps_255 = 0) of one model with `top5_classes`: a row per image.

    Returns:
        Two rows, for `k` = 1 and 5 (with fewer than five classes, all there are): `n` images,
        `correct` (the true class is among the k likeliest), `accuracy` with its 95 % Wilson
        interval `accuracy_low` and `accuracy_high`, and `confidence`: for k = 1 the mean
        probability of the predicted class over all images, for k = 5 the mean probability of
        the true class over the images where it is among the five. So read, it gives a pair like
        that of the study of ImageNet images (accuracy 0.84 at confidence 0.69, and 0.97 at
        0.63): the sum of five probabilities could not be below the first. NaN without images.

    Raises:
        ValueError: As `class_counts`.
    """
    _check_clean(clean, ["label", "predicted", "confidence", "true_confidence", "top5_classes"])
    label = clean["label"].to_numpy(dtype=np.float64)
    first = (clean["predicted"] == clean["label"]).to_numpy()
    among = (top_values(clean["top5_classes"]) == label[:, None]).any(axis=1)
    confidence = clean["confidence"].to_numpy(dtype=np.float64)
    true_confidence = clean["true_confidence"].to_numpy(dtype=np.float64)[among]
    n = np.array([len(clean)] * 2)
    table = pd.DataFrame({"k": [1, TOP_K], "n": n, "correct": [first.sum(), among.sum()]})
    table["accuracy"] = ratio(table["correct"].to_numpy(), n)
    low, high = wilson_interval(table["correct"].to_numpy(), n)
    table["accuracy_low"], table["accuracy_high"] = low, high
    table["confidence"] = [
        float(values.mean()) if len(values) else np.nan for values in (confidence, true_confidence)
    ]
    return table


def top_values(column: pd.Series) -> NDArray[np.float64]:
    """Stack a column of arrays of at most five numbers; what an array lacks is NaN.

    Returns:
        Shape (rows, 5).
    """
    table = np.full((len(column), TOP_K), np.nan)
    arrays = column.to_numpy()
    lengths = np.fromiter((len(array) for array in arrays), dtype=np.int64, count=len(arrays))
    for length in np.unique(lengths):
        here = lengths == length
        kept = min(int(length), TOP_K)
        table[here, :kept] = np.stack([np.asarray(array) for array in arrays[here]])[:, :kept]
    return table


def rounded(confidence: pd.Series) -> NDArray[np.float64]:
    """Return confidences to the seven decimals that float32 has, to compare them with bounds.

    Raises:
        ValueError: If one is not in [0, 1].
    """
    values = confidence.to_numpy(dtype=np.float64).round(_DIGITS)
    outside = ~((values >= 0) & (values <= 1 + 1e-6))  # of NaN too
    if outside.any():
        raise ValueError(f"a confidence must be in [0, 1], not {values[outside][0]:g}.")
    return np.minimum(values, 1.0)


def grouped_mean(
    values: NDArray[np.float64], group: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each group's mean and standard deviation (n - 1); a NaN value shows in both.

    Args:
        values: Shape (N,).
        group: Number of each value's group, from 0, shape (N,).
        groups: How many groups there are.

    Returns:
        Two arrays of shape (groups,). The mean of no values and the deviation of fewer than two
        are NaN.
    """
    n = np.bincount(group, minlength=groups)
    mean = ratio(group_totals(values, group, groups), n)
    squares = group_totals((values - mean[group]) ** 2, group, groups)
    return mean, np.sqrt(ratio(squares, np.maximum(n - 1, 0)))


def need_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Refuse a table that lacks a column.

    Raises:
        ValueError: It does.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"the {name} table lacks the columns {', '.join(missing)}.")


def _check_clean(clean: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what is not one row per clean image of one model."""
    need_columns(clean, ["index", "target", "eps_255", *columns], "predictions")
    attacked = clean["eps_255"] != 0
    if attacked.any():
        raise ValueError(
            "the exploration takes clean rows alone (eps_255 = 0), "
            f"not eps_255 {clean.loc[attacked, 'eps_255'].iloc[0]:g}."
        )
    models = list(clean["target"].unique())
    if len(models) > 1:
        raise ValueError(f"the exploration takes one model, not {', '.join(map(str, models))}.")
    repeated = clean["index"].duplicated()
    if repeated.any():
        raise ValueError(f"image {clean.loc[repeated, 'index'].iloc[0]} has several clean rows.")
