"""Areas under robust accuracy over the budget: one number per pair, with its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from src.analysis.intervals import bounded_mean_interval
from src.analysis.outcomes import outcomes
from src.analysis.transfer_rates import ratio

FEWEST_IMAGES = 30
"""Below so many images an area has no interval."""

_AREA = "robust_accuracy_area"


def curve_areas(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str = "joint"
) -> pd.DataFrame:
    """Average each target's robust accuracy over the budgets from 0 to the largest one.

    The area under a curve (straight lines between the tried budgets) divided by the largest
    budget is the mean of the curve over that range. It equals the mean, over the images, of the
    areas of each image's own curve, which is what the interval is of. The arguments are those of
    `rates`.

    Returns:
        One row per target: `target`, `n` (images in the denominator), `robust_accuracy_area` in
        [0, 1] and its 95 % interval over the images `robust_accuracy_area_low` and `_high` (see
        `bounded_mean_interval`; as Wilson's, it has a width where all images have the same
        curve). Without an image the area is NaN, with fewer than 30 the interval is.

    Raises:
        ValueError: As `rates`.
    """
    found = outcomes(predictions, source, targets, protocol)
    n = np.count_nonzero(found.counted, axis=1)
    areas = trapezoid(found.correct.astype(np.float64), found.eps_255) / found.eps_255[-1]
    table = pd.DataFrame({"target": list(targets), "n": n})
    table[_AREA] = ratio(np.where(found.counted, areas, 0.0).sum(axis=1), n)
    ends = bounded_mean_interval(areas, found.counted, fewest=FEWEST_IMAGES)
    table[f"{_AREA}_low"], table[f"{_AREA}_high"] = ends
    return table
