"""Transfer beside the similarity of the gradients of source and target."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from src.analysis.intervals import FEWEST_IMAGES, wilson_interval
from src.analysis.matrices import is_white_box
from src.analysis.outcomes import at_budget, outcomes, row_positions
from src.analysis.transfer_rates import ratio


def pair_similarity(
    predictions: pd.DataFrame,
    similarity: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    eps_255: float,
    protocol: str = "joint",
) -> pd.DataFrame:
    """Set the transfer of every pair of a job beside the similarity of its models' gradients.

    `similarity` has one row per (index, target) with `cosine` in [-1, 1] (of the source's and the
    target's gradient of the loss on the clean image); NaN for a gradient that is zero. Images
    without a row are not counted. The other arguments, and the errors, are those of `rates`, for
    one budget.

    Returns:
        One row per target: `n` images counted, `cosine` (mean over gradients that are not zero)
        with its 95 % t interval (NaN for fewer than 10), `success_rate` with its 95 % Wilson
        interval, and `white_box`. What has no images is NaN.
    """
    found = outcomes(at_budget(predictions, eps_255), source, targets, protocol)
    gradients = similarity.assign(eps_255=0.0)
    row = row_positions(gradients, targets, found.index, [0.0])[:, :, 0]
    kept = found.counted & found.present[:, :, -1] & (row >= 0)
    n = np.count_nonzero(kept, axis=1)
    successes = np.count_nonzero(kept & found.success[:, :, -1], axis=1)
    table = pd.DataFrame({"target": list(targets), "n": n})
    cosine = np.where(kept, similarity["cosine"].to_numpy(np.float64)[row], np.nan)
    table["cosine"], table["cosine_low"], table["cosine_high"] = _mean_interval(cosine)
    table["success_rate"] = ratio(successes, n)
    table["success_rate_low"], table["success_rate_high"] = wilson_interval(successes, n)
    table["white_box"] = [is_white_box(source, target) for target in targets]
    return table


def _mean_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the mean of each row's values that are not NaN, and its 95 % t interval in [-1, 1]."""
    n = np.count_nonzero(~np.isnan(values), axis=1)
    mean = ratio(np.nansum(values, axis=1), n)
    squares = np.nansum((values - mean[:, None]) ** 2, axis=1)
    enough = n >= FEWEST_IMAGES
    degrees = np.maximum(n - 1, 1)
    half = stdtrit(degrees, 0.975) * np.sqrt(squares / degrees / np.maximum(n, 1))
    half = np.where(enough, half, np.nan)
    return mean, np.maximum(mean - half, -1.0), np.minimum(mean + half, 1.0)
