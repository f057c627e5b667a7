"""Intervals and tests: one proportion, two on the same images, and means of bounded values."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

FEWEST_IMAGES = 10
"""Fewest images of which a mean has an interval; a rate of fewer raises an alarm."""

Values = NDArray[np.float64]

_Z2 = 3.8414588206941254  # the squared 97.5 % quantile of the normal distribution
_HALVINGS = 60  # of an interval no longer than 2, down to a double's last digit
_DRAWS = 4000  # sets of weights
_AT_ONCE = 1024  # values whose weights are drawn together
_KEPT = 4  # blocks of weights that stay in memory, 32 MB each


def wilson_interval(successes: ArrayLike, trials: ArrayLike) -> tuple[Values, Values]:
    """Return the 95 % Wilson score interval of a proportion, without continuity correction.

    Successes k and trials n are arrays of one shape, 0 <= k <= n; the lower and upper bounds lie
    in [0, 1], and are NaN where n = 0.

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference,
        J. Am. Stat. Assoc. 22 (1927).
    """
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    total = np.where(n == 0, 1.0, n)
    centre = (k + _Z2 / 2) / (total + _Z2)
    half = np.sqrt(_Z2 * (k * (1 - k / total) + _Z2 / 4)) / (total + _Z2)
    # Both ends are exact where every trial agrees; rounding would leave 1e-17 there.
    low, high = centre - half, centre + half
    low, high = np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def paired_interval(
    first_only: ArrayLike, second_only: ArrayLike, trials: ArrayLike
) -> tuple[Values, Values]:
    """Return Tango's 95 % score interval of the difference of two rates on the same images.

    The difference is (b - c) / n: of n images (`trials`) only the first succeeds on b, and only the
    second on c; arrays of one shape, b + c <= n. The lower and upper bounds lie in [-1, 1], and are
    NaN where n = 0. The interval holds 0 exactly where McNemar's test (without continuity
    correction) does not reject.

    Reference:
        T. Tango, Equivalence test and confidence interval for the difference in proportions for
        the paired-sample design, Stat. Med. 17 (1998). The roots are found by bisection
        instead of the secant method.
    """
    counts = (first_only, second_only, trials)
    b, c, n = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in counts))
    full = np.maximum(n, 1.0)
    low, high = -_upper_end(c, b, full), _upper_end(b, c, full)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def bounded_mean_interval(
    values: Values, kept: NDArray[np.bool_], low: ArrayLike = 0.0, high: ArrayLike = 1.0
) -> tuple[Values, Values]:
    """Return Gaffke's 95 % interval of the mean of values whose range is known.

    The lower end is the 2.5 % quantile of the mean of the values and one more, the lowest there
    can be, under random weights (exponential, with sum 1); the upper end likewise with the
    highest one. So what was not seen counts, as it does in Clopper and Pearson's interval, which
    this is for values of 0 and 1. That it covers the mean in at least 95 % of all cases is
    conjectured; `tests/analysis/test_coverage.py` simulates it.

    Args:
        values: Samples of at most N values each, shape (V, N).
        kept: Mask of the values that belong to their sample, shape (V, N).
        low: Smallest value that there can be, a number or shape (V,).
        high: Largest value that there can be, a number or shape (V,).

    Returns:
        Lower and upper bounds, shape (V,); NaN for fewer than 10 values, or where a kept one is.

    Reference:
        N. Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a
        nonnegative variable, Math. Methods Stat. 14 (2005); E. Learned-Miller and P. S. Thomas, A
        new confidence interval for the mean of a bounded random variable (2019),
        arXiv:1905.06208.
    """
    samples, images = values.shape
    least, most = (np.broadcast_to(np.asarray(end, np.float64), samples) for end in (low, high))
    # Below the samples their masks; the first column, and weight, is of what was not seen.
    rows = np.zeros((2 * samples, 1 + images))
    rows[:samples, 1:], rows[samples:, 1:], rows[samples:, 0] = np.where(kept, values, 0), kept, 1
    sums = np.zeros((2 * samples, _DRAWS))
    for start in range(0, 1 + images, _AT_ONCE):
        some = rows[:, start : start + _AT_ONCE]
        weights = _weights(start // _AT_ONCE)[: some.shape[1]]
        sums += (weights.T @ some.T).T  # this way round threads share the work better
    total = sums[samples:]
    mean, unseen = sums[:samples] / total, _weights(0)[0] / total
    lows = np.quantile(mean + unseen * least[:, None], 0.025, axis=1)
    highs = np.quantile(mean + unseen * most[:, None], 0.975, axis=1)
    enough = np.count_nonzero(kept, axis=1) >= FEWEST_IMAGES
    # Rounding may leave the range by a last digit.
    lows, highs = np.maximum(lows, least), np.minimum(highs, most)
    return np.where(enough, lows, np.nan), np.where(enough, highs, np.nan)


def _weights(block: int) -> Values:
    """Return the weights of the block's values in all draws.

    Drawing takes longest, so the first blocks are kept. A cache of the latest ones would never
    hit: each call begins with block 0.
    """
    return _first_weights(block) if block < _KEPT else _drawn_weights(block)


def _drawn_weights(block: int) -> Values:
    return np.random.default_rng([0, block]).standard_exponential((_AT_ONCE, _DRAWS))


_first_weights = lru_cache(maxsize=_KEPT)(_drawn_weights)


def mcnemar_p(first_only: ArrayLike, second_only: ArrayLike) -> Values:
    """Return the two-sided exact p-values of McNemar's test that two paired rates are equal.

    They are twice the smaller tail of Binomial(b + c, 1/2), at most 1, of b images on which only
    the first succeeds and c on which only the second does, arrays of one shape.

    Reference:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions
        or percentages, Psychometrika 12 (1947), with the binomial distribution in place of its
        approximation.
    """
    b, c = np.asarray(first_only), np.asarray(second_only)
    return np.minimum(2 * bdtr(np.minimum(b, c).astype(float), b + c, 0.5), 1.0)


def _upper_end(b: Values, c: Values, n: Values) -> Values:
    """Find the largest difference that the score test does not reject."""
    inside, outside = (b - c) / n, np.ones_like(n)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        variance = _least_variance(b, c, n, middle)
        kept = (b - c - n * middle) ** 2 <= _Z2 * n * variance
        inside = np.where(kept, middle, inside)
        outside = np.where(kept, outside, middle)
    return inside


def _least_variance(b: Values, c: Values, n: Values, difference: Values) -> Values:
    """Return n times the variance of the difference, at the likeliest rates that have it."""
    slope = (2 * n - b + c) * difference - (b + c)
    constant = -c * difference * (1 - difference)
    root = np.sqrt(np.maximum(slope**2 - 8 * n * constant, 0.0))
    # Of the two forms of the larger root, the one that subtracts no equal numbers.
    total = slope + root
    small, large = -2 * constant / np.where(total > 0, total, 1.0), (root - slope) / (4 * n)
    variance: Values = 2 * np.where(slope > 0, small, large) + difference * (1 - difference)
    return np.maximum(variance, 0.0)
