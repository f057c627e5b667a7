"""Accuracy and confidence over the budget, by the confidence that the target began with."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.exploration import grouped_mean, rounded
from src.analysis.intervals import bounded_mean_interval, wilson_interval
from src.analysis.outcomes import Outcomes, outcomes
from src.analysis.rates import group_totals, ratio
from src.checks import check_number

FEWEST_IMAGES = 10
"""Below so many images a bin's mean confidence has no interval."""


@dataclass(frozen=True)
class Budgets:
    """What one target says of M initially correct images at B budgets above 0.

    Attributes:
        image: Their indexes, rising, shape (M,).
        label: Their true classes, shape (M,).
        initial: Confidence on the clean image, shape (M,).
        eps: Budgets in units of 1/255, rising, shape (B,).
        row: Position of the row among the target's rows of the table, shape (M, B); -1 where
            the table has none.
        tried: Whether the table has the row.
        wrong: Whether another class than the true one is predicted there.
        confidence: Probability of the predicted class; NaN without a row.
        true_confidence: Probability of the true class; NaN without a row.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    initial: NDArray[np.float64]
    eps: NDArray[np.float64]
    row: NDArray[np.int64]
    tried: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    true_confidence: NDArray[np.float64]


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
        ValueError: As `rates`, for a width that cannot be, or a confidence outside [0, 1].
    """
    found, initial = initially_correct(predictions, source, target, protocol)
    kept = ~np.isnan(initial)
    rows, low = found.rows[kept], bin_lows(pd.Series(initial[kept]), width)
    eps = rows["eps_255"].to_numpy()
    keys, group = np.unique(np.stack([-low, eps]), axis=1, return_inverse=True)
    group, groups = group.reshape(-1), keys.shape[1]
    low = -keys[0]
    table = pd.DataFrame({"bin_low": low, "bin_high": bin_highs(low, width), "eps_255": keys[1]})
    n = np.bincount(group, minlength=groups)
    still = group_totals(found.correct[kept], group, groups).astype(np.int64)
    table["n"], table["still_correct"] = n, still
    table["robust_accuracy"] = ratio(still, n)
    table["robust_accuracy_low"], table["robust_accuracy_high"] = wilson_interval(still, n)
    confidence = rows["confidence"].to_numpy(dtype=np.float64)
    table["confidence"], _ = grouped_mean(confidence, group, groups)
    bounds = np.where(table["eps_255"] == 0, (table["bin_low"], table["bin_high"]), [[0.0], [1.0]])
    table["confidence_low"], table["confidence_high"] = _intervals(confidence, group, n, bounds)
    true_confidence = rows["true_confidence"].to_numpy(dtype=np.float64)
    table["true_confidence"], _ = grouped_mean(true_confidence, group, groups)
    return table


def initially_correct(
    predictions: pd.DataFrame, source: str, target: str, protocol: str
) -> tuple[Outcomes, NDArray[np.float64]]:
    """Find the counted images that the target gets right when clean, and how sure it was.

    Returns:
        The outcomes of the target's rows, and for each row the confidence in the true class on
        the clean image, NaN where the image is not counted or was not right.

    Raises:
        ValueError: As `rates`, or if clean rows of the target are missing.
    """
    found = outcomes(predictions, source, [target], protocol)
    if found.target_clean is None:
        # Clean rows lack, which this protocol did not mind; the other one says which.
        outcomes(predictions, source, [target], "target_correct")
    assert found.target_clean is not None
    clean = found.rows[found.rows["eps_255"] == 0]
    place = pd.Index(clean["index"]).get_indexer(pd.Index(found.rows["index"]))
    initial = clean["confidence"].to_numpy(dtype=np.float64)[place]
    kept = found.counted & found.target_clean
    unsure = kept & np.isnan(initial)
    if unsure.any():
        index = found.rows["index"].to_numpy()[unsure][0]
        raise ValueError(f"image {index} has no confidence on its clean row of '{target}'.")
    return found, np.where(kept, initial, np.nan)


def by_budget(predictions: pd.DataFrame, source: str, target: str, protocol: str) -> Budgets:
    """Lay out the attacked rows of the initially correct images by image and budget.

    Raises:
        ValueError: As `initially_correct`.
    """
    found, initial = initially_correct(predictions, source, target, protocol)
    kept = np.flatnonzero(~np.isnan(initial))
    rows = found.rows.iloc[kept]
    image, first, place = np.unique(rows["index"], return_index=True, return_inverse=True)
    eps = rows["eps_255"].to_numpy(dtype=np.float64)
    attacked = eps != 0
    budgets = np.unique(eps[attacked])
    row = np.full((len(image), len(budgets)), -1)
    row[place[attacked], np.searchsorted(budgets, eps[attacked])] = kept[attacked]
    tried = row >= 0

    def spread(column: str) -> NDArray[np.float64]:
        return np.where(tried, found.rows[column].to_numpy(dtype=np.float64)[row], np.nan)

    return Budgets(
        image=image,
        label=rows["label"].to_numpy()[first],
        initial=initial[kept][first],
        eps=budgets,
        row=row,
        tried=tried,
        wrong=tried & ~found.correct[row],
        confidence=spread("confidence"),
        true_confidence=spread("true_confidence"),
    )


def bin_lows(confidence: pd.Series, width: float) -> NDArray[np.float64]:
    """Return the lower bound of each confidence's bin, counted down from 1.

    Args:
        confidence: Values in [0, 1], shape (N,).
        width: Width of the bins, in (0, 1].

    Raises:
        ValueError: If the width or a confidence is outside its range.
    """
    edges = _edges(width)
    place = np.searchsorted(edges, rounded(confidence), side="right") - 1
    lows: NDArray[np.float64] = edges[np.minimum(place, len(edges) - 2)]
    return lows


def bin_highs(lows: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return the upper bounds of the bins with the lower bounds of `bin_lows`."""
    edges = _edges(width)
    highs: NDArray[np.float64] = edges[np.searchsorted(edges, lows) + 1]
    return highs


def _intervals(
    values: NDArray[np.float64],
    group: NDArray[np.int64],
    n: NDArray[np.int64],
    bounds: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the interval of each group's mean, shape (2, groups); NaN below the fewest images.

    Args:
        values: Shape (M,).
        group: Number of each value's group, from 0, shape (M,).
        n: How many values each group has.
        bounds: Smallest and largest value that each group can have, shape (2, groups).
    """
    found = np.full(bounds.shape, np.nan)
    members = np.split(values[np.argsort(group, kind="stable")], np.cumsum(n)[:-1])
    for size in np.unique(n[n >= FEWEST_IMAGES]):  # groups of one size share their weights
        same = np.flatnonzero(n == size)
        stacked = np.stack([members[one] for one in same])
        found[:, same] = bounded_mean_interval(stacked, *bounds[:, same])
    return found


def _edges(width: float) -> NDArray[np.float64]:
    """Return the rising bounds of the bins, from 0 to 1."""
    check_number("width", width, 0, 1, open_low=True)
    count = int(np.ceil(round(1 / width, 9)))
    edges: NDArray[np.float64] = np.maximum(np.round(1 - width * np.arange(count, -1, -1), 9), 0.0)
    return edges
