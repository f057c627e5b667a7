"""Confidence by class, by rank, and over the budgets by initial confidence."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import FEWEST_IMAGES, bounded_mean_interval, wilson_interval
from src.analysis.outcomes import initially_correct, outcomes
from src.analysis.transfer_rates import ratio

LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Initial confidences of the profiles."""
BIN_WIDTH = 0.05
"""Of the bins of initial confidence."""

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
        class) and `accuracy`.
    """
    rows = clean.assign(correct=clean["predicted"] == clean["label"])
    groups = rows.astype({"confidence": np.float64}).groupby("label")
    table = groups.agg(
        images=("correct", "size"), confidence=("confidence", "mean"), accuracy=("correct", "mean")
    ).reset_index()
    return table.sort_values(["confidence", "label"], ascending=[False, True], ignore_index=True)


def confidence_profiles(clean: pd.DataFrame) -> pd.DataFrame:
    """Average the five highest probabilities of images with about the same initial confidence.

    An image belongs to a level of `LEVELS` if its initial confidence is at least 0.025 below it
    and less than 0.025 above (up to 1 for the level 1.0), whether or not it is predicted
    correctly.

    Args:
        clean: Clean rows (eps_255 = 0) of one model with `top5_confidences`: a row per image.

    Returns:
        Five rows per level: `level`, `rank` (1 is the predicted class), `images` of the level,
        `confidence` (mean probability at that rank), `confidence_low` and `confidence_high`
        (10 % and 90 % quantile over the images). They are NaN for a level without images, and
        for ranks beyond the number of classes.
    """
    top = top_values(clean["top5_confidences"])
    initial = clean["confidence"].to_numpy(np.float64).round(_DIGITS)
    parts = []
    for level in LEVELS:
        low, high = np.round([level - BIN_WIDTH / 2, level + BIN_WIDTH / 2], _DIGITS)
        chosen = top[(initial >= low) & (initial < high)]
        part = pd.DataFrame({"level": level, "rank": np.arange(1, TOP_K + 1)})
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
    predictions: pd.DataFrame, source: str, target: str, protocol: str = "joint"
) -> pd.DataFrame:
    """Follow initially correct images over the budgets, split by their initial confidence.

    Of the images that the protocol counts they are those that the target classifies correctly
    when clean. The arguments are those of `rates`, for one target.

    Returns:
        One row per bin that has images and budget (0 included), the highest confidence first and
        by rising budget: `bin_low` <= initial confidence < `bin_high` (the first bin holds 1),
        `eps_255`, `n` images, `still_correct`, `robust_accuracy` with its 95 % Wilson interval
        `robust_accuracy_low` and `robust_accuracy_high`, `confidence` (mean probability of the
        predicted class) and its 95 % interval over the images `confidence_low` and
        `confidence_high` (see `bounded_mean_interval`; at budget 0 no value leaves the bin; NaN
        for fewer than 10 images).

    Raises:
        ValueError: As `rates`.
    """
    found = outcomes(predictions, source, [target], protocol)
    initial, clean = found.confidence[0, :, 0], found.eps_255 == 0
    kept = initially_correct(found)[0] & ~np.isnan(initial)
    bins, budgets = round(1 / BIN_WIDTH), len(clean)
    place = np.floor((initial[kept].round(_DIGITS) * bins).round(_DIGITS)).astype(np.int64)
    place = np.maximum(bins - 1 - place, 0)  # the first bin is the highest and holds 1
    rank = pd.Series(place).groupby(place).cumcount().to_numpy(np.int64)

    def spread(values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Give every bin and budget a row of its images' values (1, N, K), and zeros after them."""
        table = np.zeros((bins, budgets, rank.max(initial=0) + 1))
        table[place, :, rank] = values[0, kept]
        return table.reshape(bins * budgets, -1)

    present, confidence = spread(found.present) > 0, spread(found.confidence)
    n, still = present.sum(axis=1), spread(found.correct).sum(axis=1).astype(np.int64)
    low = np.arange(bins - 1, -1, -1) / bins
    table = pd.DataFrame(
        {
            "bin_low": np.repeat(low, budgets),
            "bin_high": np.repeat(np.append(1.0, low[:-1]), budgets),
            "eps_255": np.tile(found.eps_255, bins),
            "n": n,
            "still_correct": still,
            "robust_accuracy": ratio(still, n),
            "confidence": ratio(np.where(present, confidence, 0.0).sum(axis=1), n),
        }
    )
    table["robust_accuracy_low"], table["robust_accuracy_high"] = wilson_interval(still, n)
    here = np.tile(clean, bins)
    bounds = np.where(here, table["bin_low"], 0.0), np.where(here, table["bin_high"], 1.0)
    ends = bounded_mean_interval(confidence, present, *bounds, fewest=FEWEST_IMAGES)
    table["confidence_low"], table["confidence_high"] = ends
    return table[table["n"] > 0].reset_index(drop=True)


def top_values(column: pd.Series) -> NDArray[np.float64]:
    """Stack a column of arrays of up to five numbers: shape (rows, 5), NaN where one lacks."""
    table = np.full((len(column), TOP_K), np.nan)
    lengths = column.map(len).to_numpy(np.int64)
    for length in np.unique(lengths):
        here = lengths == length
        table[here, :length] = np.stack(column[here].to_list())[:, :TOP_K]
    return table
