"""Simultaneous comparison of all pairs of attacks, or of sources, on the same images."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from src.analysis.transfer_rates import ratio

LEVEL = 0.05
"""Family-wise error: the largest probability of calling any two equal attacks different."""
POWER = 0.8
FEWEST_TESTED = 30
"""A pair with fewer common images is not tested."""

_DRAWS = 1_999
_BLOCK = 2_000_000  # random numbers per block
_ROUNDING = 1e-5  # largest rounding error between equal statistics

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairTests:
    """Pairwise comparisons of A rows of scores, as matrices (A, A): row minus column.

    Attributes:
        images: Number of images counted for both rows.
        difference: Mean difference of the two scores on these images; NaN if there are none.
        discordance: Mean squared difference; for scores 0 and 1, the share of images that differ.
        margin: Half the length of the simultaneous 95 % interval of the difference. The interval
            contains 0 exactly where `p` is at least 0.05. NaN below `FEWEST_TESTED` images.
        p: p-values for equality, corrected for all pairs; NaN below `FEWEST_TESTED` images.
        cutoff: Value that the statistic of a pair must exceed; NaN if no pair is tested.
    """

    images: Values
    difference: Values
    discordance: Values
    margin: Values
    p: Values
    cutoff: float


def compare_pairs(
    scores: Values, sides: NDArray[np.intp] | None = None, draws: int = _DRAWS
) -> PairTests:
    """Test all pairs of rows for equal means with a paired permutation test (random signs).

    The statistic of a pair is |sum d| / sqrt(sum d^2), where d are the differences on the images
    counted for both, and the sum of squares is taken as at least 1. Each draw has one random sign
    per image, shared by all pairs. The p-value of a pair is the share of draws in which the largest
    statistic of all pairs reaches the pair's own, so the error level holds for all pairs together.

    Args:
        scores: Scores of images, shape (R, N), in [0, 1]; NaN where an image is not counted.
        sides: Row of `scores` that i uses when compared with j, shape (A, A); None: row i.
        draws: Number of draws of signs.

    Reference:
        P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing (1993), 2.3 (single-step
        maxT); P. Good, Permutation, Parametric and Bootstrap Tests of Hypotheses (2005), 3.2.
    """
    size = len(scores if sides is None else sides)
    places = np.arange(size)[:, None].repeat(size, axis=1) if sides is None else sides
    pair = np.triu_indices(size, 1)
    rows, first, second, images = _masked(scores, places[pair], places.T[pair])
    gram, sums = rows @ rows.T, rows.sum(axis=1)
    power = np.diag(gram)
    squares = np.maximum(power[first] + power[second] - 2 * gram[first, second], 0)
    difference = sums[first] - sums[second]
    tested = images >= FEWEST_TESTED
    scale = np.where(tested, np.sqrt(np.maximum(squares, 1.0)), inf)
    cutoff, p = np.nan, np.full(len(images), np.nan)
    if tested.any():
        largest = np.sort(list(_largest(rows, first, second, scale, draws))) + _ROUNDING
        cutoff = float(largest[draws + 1 - ceil(LEVEL * (draws + 1))])
        beyond = draws - np.searchsorted(largest, np.abs(difference) / scale)
        p[tested] = (1 + beyond[tested]) / (1 + draws)
    margin = np.where(tested, cutoff * scale / np.maximum(images, 1), np.nan)
    numbers = (images, ratio(difference, images), ratio(squares, images), margin, p)
    upper = np.zeros((len(numbers), size, size))
    upper[:, pair[0], pair[1]] = numbers
    lower = upper.transpose(0, 2, 1) * np.array([1, -1, 1, 1, 1])[:, None, None]
    images, difference, discordance, margin, p = upper + lower
    return PairTests(images, difference, discordance, margin, p, cutoff)


def detectable(cutoff: float, discordance: float, images: float) -> float:
    """Compute the smallest difference of two means that the test detects with a power of 80 %.

    Reference:
        R. J. Connor, Sample size for testing differences in proportions for the paired-sample
        design, Biometrics 43 (1987); here the variance omits the difference.
    """
    return (cutoff + float(ndtri(POWER))) * sqrt(discordance / images)


def _masked(
    scores: Values, first: NDArray[np.intp], second: NDArray[np.intp]
) -> tuple[Values, NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Return masked scores (0 where a pair does not count), and each pair's two rows and images."""
    counted = ~np.isnan(scores)
    masks, kind = np.unique(np.packbits(counted, axis=1), axis=0, return_inverse=True)
    # A row is needed once per mask of its partners; if all masks are equal, once in total.
    meets = np.stack([np.r_[first, second], kind.ravel()[np.r_[second, first]]])
    needed, place = np.unique(meets, axis=1, return_inverse=True)
    both = counted[needed[0]] & np.unpackbits(masks[needed[1]], axis=1, count=scores.shape[1]) > 0
    rows = np.where(both, scores[needed[0]], 0.0)
    first, second = place.reshape(2, -1)
    return rows, first, second, np.count_nonzero(both, axis=1)[first]


def _largest(
    rows: Values, first: NDArray[np.intp], second: NDArray[np.intp], scale: Values, draws: int
) -> Iterator[float]:
    """Yield the largest statistic of all pairs for each draw of signs."""
    # Drop images with equal scores in all rows. Single precision is accurate to `_ROUNDING`.
    rows = rows[:, (rows != rows[0]).any(axis=0)].astype(np.float32)
    if few := len(first) < len(rows):
        rows = rows[first] - rows[second]
    random, images = np.random.default_rng(1), rows.shape[1]
    block = max(1, _BLOCK // max(images, len(first)))
    for start in range(0, draws, block):
        shape = (min(block, draws - start), images)
        signs = 2 * random.integers(0, 2, shape, dtype=np.int8) - 1
        sums = signs.astype(np.float32) @ rows.T
        sums = sums if few else sums[:, first] - sums[:, second]
        yield from (np.abs(sums) / scale).max(axis=1)
