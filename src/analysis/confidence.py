"""How sure a model is: by class, by rank, and over the budgets by how sure it was at first."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import FEWEST_IMAGES, bounded_mean_interval, wilson_interval
from src.analysis.outcomes import initially_correct, outcomes
from src.analysis.rates import ratio
from src.checks import check_number

LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Initial confidences of the profiles."""

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
    """
    images = clean.groupby("label").size().rename("images").reset_index()
    images["share"] = images["images"] / max(len(clean), 1)
    return images.sort_values(["images", "label"], ascending=[False, True], ignore_index=True)


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
    """
    rows = clean.astype({"confidence": np.float64, "true_confidence": np.float64})
    groups = rows.assign(right=rows["predicted"] == rows["label"]).groupby("label")
    table = groups.agg(
        images=("right", "size"),
        confidence=("confidence", "mean"),
        confidence_sd=("confidence", "std"),
        true_confidence=("true_confidence", "mean"),
        correct=("right", "sum"),
        accuracy=("right", "mean"),
    ).reset_index()
    return table.sort_values(["confidence", "label"], ascending=[False, True], ignore_index=True)


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
    """
    top = top_values(clean["top5_confidences"])
    initial = clean["confidence"].to_numpy(np.float64).round(_DIGITS)
    parts = []
    for level in levels:
        low, high = np.round([level - half_width, level + half_width], _DIGITS)
        chosen = top[(initial >= low) & (initial < high)]
        part = pd.DataFrame({"level": float(level), "rank": np.arange(1, TOP_K + 1)})
        part["images"] = len(chosen)
        known = chosen if len(chosen) else np.full((1, TOP_K), np.nan)
        part["confidence"] = known.mean(axis=0)
        part["confidence_low"], part["confidence_high"] = np.quantile(known, [0.1, 0.9], axis=0)
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
        the true class over the images where it is among the five; the sum of five probabilities
        could not be below the first. NaN without images.
    """
    first = (clean["predicted"] == clean["label"]).to_numpy()
    label = clean["label"].to_numpy(dtype=np.float64)
    among = (top_values(clean["top5_classes"]) == label[:, None]).any(axis=1)
    correct, n = np.array([first.sum(), among.sum()]), np.full(2, len(clean))
    table = pd.DataFrame({"k": [1, TOP_K], "n": n, "correct": correct})
    table["accuracy"] = ratio(correct, n)
    table["accuracy_low"], table["accuracy_high"] = wilson_interval(correct, n)
    values = clean["confidence"], clean.loc[among, "true_confidence"]
    table["confidence"] = [its.astype(np.float64).mean() for its in values]
    return table


def by_initial_confidence(
    predictions: pd.DataFrame,
    source: str,
    target: str,
    protocol: str = "joint",
    width: float = 0.05,
) -> pd.DataFrame:
    """Follow initially correct images over the budgets, split by their initial confidence.

    Args:
        predictions: Predictions of a job, clean rows of the target included.
        source: Model that the adversarial images were made on.
        target: Model that they were shown to.
        protocol: Which images are counted, as in `rates`; of them only those that the target
            classifies correctly when clean.
        width: Width of the bins in (0, 1]; they are counted down from 1, so that the last one
            is narrower where the width does not divide 1.

    Returns:
        One row per bin that has images and budget (0 included), the highest confidence first and
        by rising budget: `bin_low` <= initial confidence < `bin_high` (the first bin holds 1),
        `eps_255`, `n` images, `still_correct`, `robust_accuracy` with its 95 % Wilson interval
        `robust_accuracy_low` and `robust_accuracy_high`, `confidence` (mean probability of the
        predicted class), its 95 % interval over the images `confidence_low` and
        `confidence_high` (see `bounded_mean_interval`; at budget 0 no value leaves the bin; NaN
        for fewer than 10 images), and `true_confidence` (mean probability of the true class).

    Raises:
        ValueError: As `rates`, or for a width that cannot be.
    """
    found = outcomes(predictions, source, [target], protocol)
    kept = initially_correct(found)[0]
    lows, highs, bins = _bins(found.confidence[0, kept, 0], width)
    budgets = len(found.eps_255)
    # One sample per bin and budget: of all images those that are of the bin and have the row.
    mine = (bins[None, None, :] == np.arange(len(lows))[:, None, None]) & found.present[0, kept].T
    mine = mine.reshape(len(lows) * budgets, len(bins))

    def spread(values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Repeat values (images, budgets) for every bin: shape (bins * budgets, images)."""
        return np.where(mine, np.tile(values.T, (len(lows), 1)), 0.0)

    table = pd.DataFrame(
        {
            "bin_low": np.repeat(lows, budgets),
            "bin_high": np.repeat(highs, budgets),
            "eps_255": np.tile(found.eps_255, len(lows)),
            "n": mine.sum(axis=1),
            "still_correct": spread(found.correct[0, kept]).sum(axis=1).astype(np.int64),
        }
    )
    still, n = table["still_correct"].to_numpy(), table["n"].to_numpy()
    table["robust_accuracy"] = ratio(still, n)
    table["robust_accuracy_low"], table["robust_accuracy_high"] = wilson_interval(still, n)
    confidence = spread(found.confidence[0, kept])
    table["confidence"] = ratio(confidence.sum(axis=1), n)
    clean = table["eps_255"] == 0
    bounds = np.where(clean, table["bin_low"], 0.0), np.where(clean, table["bin_high"], 1.0)
    ends = bounded_mean_interval(confidence, mine, *bounds, fewest=FEWEST_IMAGES)
    table["confidence_low"], table["confidence_high"] = ends
    table["true_confidence"] = ratio(spread(found.true_confidence[0, kept]).sum(axis=1), n)
    return table[table["n"] > 0].reset_index(drop=True)


def top_values(column: pd.Series) -> NDArray[np.float64]:
    """Stack a column of arrays of at most five numbers; what an array lacks is NaN.

    Returns:
        Shape (rows, 5).
    """
    table = np.full((len(column), TOP_K), np.nan)
    lengths = column.map(len).to_numpy(np.int64)
    for length in np.unique(lengths):
        here = lengths == length
        table[here, :length] = np.stack(column[here].to_list())[:, :TOP_K]
    return table


def _bins(
    confidence: NDArray[np.float64], width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Return the bounds of the bins, the highest first, and each confidence's bin."""
    check_number("width", width, 0, 1, open_low=True)
    count = int(np.ceil(round(1 / width, 9)))
    edges = np.maximum(np.round(1 - width * np.arange(count + 1), 9), 0.0)  # falling from 1
    place = np.searchsorted(-edges, -confidence.round(_DIGITS), side="left") - 1
    return edges[1:], edges[:-1], np.clip(place, 0, count - 1)
