"""Intervals for one proportion, and for two proportions on the same images."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST_IMAGES = 10
"""Fewest images for the interval of a mean; a rate over fewer images raises an alarm."""

Values = NDArray[np.float64]

Z = 1.9599639845400545  # the 97.5 % quantile of the normal distribution
_Z2 = Z**2
_HALVINGS = 60  # bisect an interval of length 2 at most down to double precision


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[Values, Values]:
    """Compute the 95 % Wilson score interval of a proportion, without continuity correction.

    Successes k and trials n are arrays of the same shape, 0 <= k <= n; the bounds are NaN where
    n = 0. If k is the sum of n values in [0, 1], the interval is a conservative one for their mean:
    among such values with a given mean, zeros and ones have the largest variance.

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference,
        J. Am. Stat. Assoc. 22 (1927).
    """
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), trials)
    full = np.maximum(n, 1)
    rate, scale = k / full, 1 + _Z2 / full
    middle = (rate + _Z2 / (2 * full)) / scale
    half = Z * np.sqrt(rate * (1 - rate) / full + _Z2 / (4 * full**2)) / scale
    # If all trials agree, the bound is exactly 0 or 1; rounding errors would leave about 1e-17.
    low, high = np.where(k == 0, 0.0, middle - half), np.where(k == n, 1.0, middle + half)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def is_at_chance(k: int, n: int, num_classes: int) -> bool:
    """Return True if `k` correct of `n` images may be guessing, unless `n` is too small to tell."""
    least, most = wilson_interval([k, n], n)[0]
    return bool(least <= 1 / num_classes < most)  # if `most` is lower, n is too small to tell


def paired_interval(
    first_only: ArrayLike, second_only: ArrayLike, trials: ArrayLike
) -> tuple[Values, Values]:
    """Compute Tango's 95 % score interval for the difference of two rates on the same images.

    The difference is (b - c) / n: of n images (`trials`), only the first attack succeeds on b
    (`first_only`), and only the second on c (`second_only`); all are arrays of the same shape. The
    bounds are NaN where n = 0. The interval contains 0 exactly where McNemar's test (without
    continuity correction) does not reject.

    Reference:
        T. Tango, Equivalence test and confidence interval for the difference in proportions for
        the paired-sample design, Stat. Med. 17 (1998); solved by bisection, not by secants.
    """
    counts = (np.asarray(array, np.float64) for array in (first_only, second_only, trials))
    b, c, n = np.broadcast_arrays(*counts)
    full = np.maximum(n, 1.0)
    low, high = -_upper_end(c, b, full), _upper_end(b, c, full)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def _upper_end(b: Values, c: Values, n: Values) -> Values:
    """Find the largest difference that the score test does not reject."""
    inside, outside = (b - c) / n, np.ones_like(n)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        variance = _least_variance(b, c, n, middle)
        accepted = (b - c - n * middle) ** 2 <= _Z2 * n * variance
        inside = np.where(accepted, middle, inside)
        outside = np.where(accepted, outside, middle)
    return inside


def _least_variance(b: Values, c: Values, n: Values, difference: Values) -> Values:
    """Compute n times the variance of the difference at its maximum-likelihood rates."""
    slope = (2 * n - b + c) * difference - (b + c)
    constant = -c * difference * (1 - difference)
    root = np.sqrt(np.maximum(slope**2 - 8 * n * constant, 0.0))
    # Use the form of the larger root that does not subtract nearly equal numbers.
    total = slope + root
    small, large = -2 * constant / np.where(total > 0, total, 1.0), (root - slope) / (4 * n)
    variance: Values = 2 * np.where(slope > 0, small, large) + difference * (1 - difference)
    return np.maximum(variance, 0.0)
