"""Hypothesis 1: images with a high initial confidence are harder to manipulate."""

import numpy as np
import pandas as pd

from .intervals import FEWEST_IMAGES

_COLUMNS = ["target", "n", "flipped", "rho", "rho_low", "rho_high", "verdict"]


def initial_confidence_effect(table: pd.DataFrame) -> pd.DataFrame:
    """Correlate initial confidence with the minimum adversarial budget (Spearman) per target.

    The images are the rows of `trajectories`. An image that never flips ranks above every budget.
    Ties share their mean rank, so coarse budgets and many such images move rho towards 0.

    Returns:
        One row per target: `target`, `n` images, `flipped` (how many flip at some budget), `rho`
        with its 95 % interval `rho_low` and `rho_high`, and `verdict`. The verdict is `supported`
        if the interval is above 0, `contradicted` if it is below, else `undecided`. For fewer than
        10 images, or if all budgets or all confidences are equal, it is `not computable`, and rho
        is NaN.

    Reference:
        D. G. Bonett and T. A. Wright, Sample size requirements for estimating Pearson, Kendall and
        Spearman correlations, Psychometrika 65 (2000).
    """
    records = [
        (target, *_effect(rows["initial_confidence"], rows["first_flip_eps_255"]))
        for target, rows in table.groupby("target", sort=False, observed=True)
    ]
    return pd.DataFrame(records, columns=_COLUMNS)


def _effect(confidence: pd.Series, first: pd.Series) -> tuple[object, ...]:
    """Compute the columns after `target` for one target."""
    n, flipped, rho = len(first), int(first.notna().sum()), np.nan
    budgets = first.fillna(np.inf)  # NaN: the image never flips
    if n >= FEWEST_IMAGES and budgets.nunique() > 1 and confidence.nunique() > 1:
        rho = float(np.corrcoef(confidence.rank(na_option="keep"), budgets.rank())[0, 1])
    if np.isnan(rho):  # includes the case that a confidence is NaN
        return (n, flipped, np.nan, np.nan, np.nan, "not computable")
    half = 1.959964 * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    low, high = np.tanh([centre - half, centre + half]).tolist()
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "undecided"
    return (n, flipped, rho, low, high, verdict)
