"""Intervals and tests: one proportion, two on the same images, and means of bounded values."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

_HALVINGS = 60  # of an interval no longer than 2, down to a double's last digit
_DRAWS, _AT_ONCE = 4000, 250  # sets of weights; how many are held at once


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Wilson score interval of a binomial proportion, without continuity correction.

    Args:
        successes: Counts k, any shape.
        trials: Counts n, same shape, 0 <= k <= n.
        level: Two-sided confidence level in (0, 1).

    Returns:
        Lower and upper bounds in [0, 1]; NaN where n = 0.

    Raises:
        ValueError: If the level is not in (0, 1), or a count is not in 0 <= k <= n.

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference,
        J. Am. Stat. Assoc. 22 (1927).
    """
    z2 = _critical(level) ** 2
    k = np.asarray(successes, dtype=np.float64)
    n = np.asarray(trials, dtype=np.float64)
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("counts must satisfy 0 <= successes <= trials.")
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (k + z2 / 2.0) / (n + z2)
        half = np.sqrt(z2 * (k * (n - k) / n + z2 / 4.0)) / (n + z2)
    # Both ends are exact where every trial agrees; rounding would leave 1e-17 there.
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == n, 1.0, centre + half)
    empty = n == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def paired_interval(
    first_only: ArrayLike, second_only: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Tango's score interval of the difference of two proportions on the same images.

    The difference is (first_only - second_only) / trials. The interval holds 0 exactly where
    McNemar's test (without continuity correction) does not reject; it is sensible where no pair
    disagrees, and is Wilson's where all that disagree do so in one direction and far from 0.

    Args:
        first_only: Images b on which only the first succeeds, any shape.
        second_only: Images c on which only the second does, same shape.
        trials: Images n that both were tried on, same shape, b + c <= n.
        level: Two-sided confidence level in (0, 1).

    Returns:
        Lower and upper bounds in [-1, 1]; NaN where n = 0.

    Raises:
        ValueError: If the level is not in (0, 1), or the counts do not fit.

    Reference:
        T. Tango, Equivalence test and confidence interval for the difference in proportions for
        the paired-sample design, Stat. Med. 17 (1998), equations 6, 13 and 15. The roots are
        found by bisection instead of the secant method.
    """
    z2 = _critical(level) ** 2
    shape = np.broadcast_shapes(np.shape(first_only), np.shape(second_only), np.shape(trials))
    b, c, n = (
        np.broadcast_to(np.asarray(counts, dtype=np.float64), shape)
        for counts in (first_only, second_only, trials)
    )
    if np.any(b < 0) or np.any(c < 0) or np.any(b + c > n):
        raise ValueError("counts must satisfy 0 <= first_only + second_only <= trials.")
    full = np.where(n == 0, 1.0, n)
    low = -_upper_end(c, b, full, z2)
    high = _upper_end(b, c, full, z2)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def bounded_mean_interval(
    values: NDArray[np.float64], low: ArrayLike = 0.0, high: ArrayLike = 1.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Gaffke's 95 % interval of the mean of values whose range is known.

    The lower end is the 2.5 % quantile of the mean of the values and one more, the lowest there
    can be, under random weights (exponential, with sum 1); the upper end likewise with the
    highest one. So what was not seen counts, as it does in Clopper and Pearson's interval, which
    this is for values of 0 and 1: the bootstrap and Student's t know nothing of rare values that
    the sample lacks, and cover the mean of skewed values too seldom. That this interval covers it
    in at least 95 % of all cases is conjectured, and no distribution is known where it does not;
    `tests/analysis/test_coverage.py` simulates both.

    Args:
        values: Samples of N values each, shape (V, N).
        low: Smallest value that there can be, a number or shape (V,).
        high: Largest one, likewise.
        seed: Of the weights, from 0; every sample gets the same ones.

    Returns:
        Lower and upper bounds, shape (V,); NaN where a value is.

    Reference:
        N. Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a
        nonnegative variable, Math. Methods Stat. 14 (2005); E. Learned-Miller and P. S. Thomas, A
        new confidence interval for the mean of a bounded random variable (2019),
        arXiv:1905.06208.
    """
    generator = np.random.default_rng(seed)
    least, most = (np.broadcast_to(np.asarray(end, float), len(values)) for end in (low, high))
    means = []
    for _ in range(_DRAWS // _AT_ONCE):
        weights = generator.standard_exponential((_AT_ONCE, values.shape[1] + 1))
        weights /= weights.sum(axis=1, keepdims=True)
        seen, unseen = weights[:, 1:] @ values.T, weights[:, :1]
        means.append((seen + unseen * least, seen + unseen * most))
    lows, highs = (np.concatenate(found) for found in zip(*means, strict=True))
    # Rounding may leave the range by a last digit.
    return (
        np.maximum(np.quantile(lows, 0.025, axis=0), least),
        np.minimum(np.quantile(highs, 0.975, axis=0), most),
    )


def exact_mcnemar(first_only: int, second_only: int) -> float:
    """Return the one-sided exact p-value that the first of two paired counts is no larger.

    Args:
        first_only: Images that only the first counts.
        second_only: Images that only the second counts.

    Returns:
        P(X >= first_only) for X ~ Binomial(first_only + second_only, 1/2).

    >>> exact_mcnemar(2, 0)
    0.25
    """
    trials = first_only + second_only
    term, tail = 1, 0  # whole numbers, so that no count is too large for the sum
    for k in range(trials, first_only - 1, -1):
        tail += term
        term = term * k // (trials - k + 1)
    return float(tail / (1 << trials))


def _upper_end(
    b: NDArray[np.float64], c: NDArray[np.float64], n: NDArray[np.float64], z2: float
) -> NDArray[np.float64]:
    """Find the largest difference that the score test does not reject."""
    inside, outside = (b - c) / n, np.ones_like(n)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        variance = _least_variance(b, c, n, middle)
        kept = (b - c - n * middle) ** 2 <= z2 * n * variance
        inside = np.where(kept, middle, inside)
        outside = np.where(kept, outside, middle)
    return inside


def _least_variance(
    b: NDArray[np.float64],
    c: NDArray[np.float64],
    n: NDArray[np.float64],
    difference: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return n times the variance of the difference, at the likeliest rates that have it."""
    slope = (2 * n - b + c) * difference - (b + c)
    constant = -c * difference * (1 - difference)
    root = np.sqrt(np.maximum(slope**2 - 8 * n * constant, 0.0))
    # Of the two forms of the larger root, the one that subtracts no equal numbers.
    total = slope + root
    second = np.where(
        slope > 0,
        -2 * constant / np.where(total > 0, total, 1.0),
        (root - slope) / (4 * n),
    )
    variance: NDArray[np.float64] = 2 * second + difference * (1 - difference)
    return np.maximum(variance, 0.0)


def _critical(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    return NormalDist().inv_cdf(0.5 + level / 2.0)
