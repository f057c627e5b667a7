"""Areas under the curves over the budget: one number per pair, with its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from src.analysis.intervals import bounded_mean_interval
from src.analysis.outcomes import outcomes

FEWEST_IMAGES = 30
"""Below so many images an area has no interval."""

_CURVES = ("robust_accuracy", "success_rate", "true_confidence")


def curve_areas(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
    seed: int = 0,
) -> pd.DataFrame:
    """Average the curves of each target over the budgets from 0 to the largest one.

    The area under a curve (straight lines between the tried budgets) divided by the largest
    budget is the mean of the curve over that range. It equals the mean, over the images, of the
    areas of each image's own curve, which is what the interval is of.

    Args:
        predictions: One row per (index, target, eps_255), clean rows (eps_255 = 0) included.
        source: Model that the adversarial images were made on.
        targets: Models that the images were shown to, in the order of the result.
        protocol: Which images form the denominator, as in `rates`.
        seed: Of the interval, from 0; a target's interval does not depend on the others.

    Returns:
        One row per target with `target`, `n` (images in the denominator) and, for
        `robust_accuracy`, `success_rate` and `true_confidence` (the probability of the true
        class), `NAME_area` in [0, 1] and its 95 % interval over the images `NAME_area_low` and
        `NAME_area_high`, see `bounded_mean_interval`; as Wilson's, it has a width where all
        images have the same curve. Without an image all are NaN; with fewer than 30, or with
        unknown confidences, the interval is.

    Raises:
        ValueError: As `rates`, or if a target was shown no attacked images, or a counted image
            lacks a budget that others have, or the clean one.
    """
    found = outcomes(predictions, source, targets, protocol)
    records = []
    for target in targets:
        chosen = (found.rows["target"] == target).to_numpy() & found.counted
        rows = found.rows.loc[chosen, ["index", "eps_255", "true_confidence"]]
        rows = rows.assign(
            robust_accuracy=found.correct[chosen], success_rate=found.success[chosen]
        )
        budgets, curves = curves_by_image(rows, _CURVES, target)
        if len(budgets) == 1:
            raise ValueError(f"'{target}' was shown no attacked images, so it has no curve.")
        record: dict[str, object] = {"target": target, "n": curves.shape[1]}
        for name, (mean, low, high) in zip(
            _CURVES, _area_intervals(budgets, curves, seed), strict=True
        ):
            record |= {f"{name}_area": mean, f"{name}_area_low": low, f"{name}_area_high": high}
        records.append(record)
    return pd.DataFrame(records)


def curves_by_image(
    rows: pd.DataFrame, columns: Sequence[str], target: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lay the rows of one target out by image and budget.

    Args:
        rows: Rows of one target with `index`, `eps_255` and the columns, no pair twice.
        columns: Numbers or booleans, V of them.
        target: What errors call the target.

    Returns:
        The K budgets in rising order, the first of them 0, and the values of the columns, shape
        (V, N, K), images in rising order of their index. Both are empty without rows.

    Raises:
        ValueError: An image lacks the clean row, or a budget that another one has.
    """
    rows = rows.sort_values(["index", "eps_255"])
    budgets, images = np.unique(rows["eps_255"]), rows["index"].unique()
    if len(rows) and budgets[0] != 0:
        raise ValueError(f"the table lacks the clean predictions (eps_255 = 0) of '{target}'.")
    if len(rows) != len(budgets) * len(images):
        tried = rows.groupby("index").size()
        index = tried.index[tried < len(budgets)][0]
        raise ValueError(
            f"image {index} was shown to '{target}' at {tried[index]} of {len(budgets)} budgets; "
            "every image needs all of them."
        )
    values = rows[list(columns)].to_numpy(dtype=np.float64)
    return budgets, values.T.reshape(len(columns), len(images), len(budgets))


def _area_intervals(
    budgets: NDArray[np.float64], curves: NDArray[np.float64], seed: int
) -> list[tuple[float, float, float]]:
    """Return mean, low and high of each curve's area; `curves` has shape (V, N, K)."""
    images = curves.shape[1]
    if images == 0:
        return [(np.nan, np.nan, np.nan)] * len(curves)
    areas = trapezoid(curves, budgets, axis=2) / budgets[-1]
    means = areas.mean(axis=1).tolist()
    if images < FEWEST_IMAGES:
        return [(mean, np.nan, np.nan) for mean in means]
    low, high = bounded_mean_interval(areas, seed=seed)
    return list(zip(means, low.tolist(), high.tolist(), strict=True))
