"""Simultaneous comparison of all pairs of attacks, or of sources, on the same images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf, isfinite, log, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from .outcomes import Values

LEVEL = 0.05
"""Family-wise error: the largest probability of calling any two equal attacks different."""
POWER = 0.8
FEWEST_TESTED = 30
"""With fewer images nothing is tested."""
FEWEST_FOR_WINNER = 100
"""With fewer images no text names a winner."""

_DRAWS = 1_999
_BLOCK = 2_000_000  # random numbers per block
_ROUNDING = 1e-5  # largest rounding error between equal statistics
_NORMAL = float(ndtri(1 - LEVEL / 2))
"""Cutoff of one normal variable."""
_ONE_SIDED = float(ndtri(1 - LEVEL))
_NONE_SEEN = -log(LEVEL)
"""Images whose loss no image shows with a probability of `LEVEL`: the rule of three."""
_WHOLE = 1.0  # least sum of squared differences: one image fooled on all targets
_UNSEEN = 4.0  # images that may differ although none does: the square of the cutoff 1.96


@dataclass(frozen=True)
class PairTests:
    """Pairwise comparisons of A rows of scores, as matrices (A, A): row minus column.

    Attributes:
        difference: Difference of the two means.
        discordance: Mean squared difference; for scores 0 and 1, the share of images that differ.
        margin: Half the length of the simultaneous 95 % interval of the difference. The interval
            contains 0 exactly where `p` is at least 0.05. NaN below `FEWEST_TESTED` images.
        p: p-values for equality, corrected for all pairs; NaN below `FEWEST_TESTED` images.
        cutoff: Value that the statistic of a pair must exceed; NaN if no pair is tested.
    """

    difference: Values
    discordance: Values
    margin: Values
    p: Values
    cutoff: float


def compare_pairs(scores: Values, draws: int = _DRAWS, one: int | None = None) -> PairTests:
    """Test all pairs of rows for equal means with a paired permutation test (random signs).

    The statistic of a pair is |sum d| / sqrt(sum d^2), where d are the differences on the images,
    and the sum of squares is taken as at least `_WHOLE`. So a difference is decided only if it is
    worth `cutoff` whole images: a few that differ in one of many pairs of models decide nothing,
    although signs flipped at random could. `detectable` has the same floor. Each draw has one
    random sign per image, shared by all pairs. The p-value of a pair is the share of draws in which
    the largest statistic of all pairs reaches the pair's own, so the error level holds for all
    pairs together, if differences of equal attacks have a symmetric distribution. Where p is at
    least 0.05, the interval has `_UNSEEN` whole images more that differ, and the cutoff is at least
    that of one normal variable: with few images that differ, it would be too short. This floor is
    the same in every set of rows. Where p is below 0.05, the drawn cutoffs of two sets of rows may
    differ by a few percent, so a corrected interval can be that much narrower than a plain one.

    Args:
        scores: Scores of images, shape (A, N), whose means over images are compared.
        draws: Number of draws of signs.
        one: Row that the others are compared with. Fewer pairs are tested, so smaller differences
            are seen; the numbers of other pairs are NaN. None: all pairs are tested.

    Reference:
        P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing (1993), 2.3 (single-step
        maxT); P. Good, Permutation, Parametric and Bootstrap Tests of Hypotheses (2005), 3.2;
        A. Agresti and Y. Min, Simple improved confidence intervals for comparing matched
        proportions, Stat. Med. 24 (2005), adds pseudo-images for the same reason.
    """
    size = len(scores)
    first, second = np.triu_indices(size, 1)
    if one is not None:
        chosen = (first == one) | (second == one)
        first, second = first[chosen], second[chosen]
    tests = _compare_rows(scores, first, second, draws, lambda squares: np.maximum(squares, _WHOLE))
    images = scores.shape[1]
    cautious = np.sqrt(tests.discordance * images + _UNSEEN) / images
    margin = np.where(tests.p < LEVEL, tests.margin, max(tests.cutoff, _NORMAL) * cautious)
    numbers = (tests.difference, tests.discordance, margin, tests.p)
    matrices = np.full((len(numbers), size, size), np.nan)
    matrices[:, range(size), range(size)] = 0
    matrices[:, first, second] = numbers
    matrices[:, second, first] = np.array([-1, 1, 1, 1])[:, None] * numbers
    difference, discordance, margin, p = matrices
    return PairTests(difference, discordance, margin, p, tests.cutoff)


def compare_versions(
    old: Values, new: Values, draws: int = _DRAWS, most: Any = 1.0, alone: Any = 0.0
) -> dict[str, Values]:
    """Compute the change of each row's mean from `old` to `new`, and which changes are excluded.

    The test is that of `compare_pairs`, for the R pairs of equal rows alone. Its sum of squares
    has `_UNSEEN` images more, and its cutoff is at least that of one normal variable: where hardly
    an image changes, the interval keeps the length that the number of images permits. It reaches at
    least ln(R / 0.025) / N: the chance to see no change of this share is 0.025 / R.

    The bound of a row's fall is that of a score test, whose variance is that under the fall: the
    sum of squared changes, and of the further losses that a fall of this size would have brought.
    With S the sum of changes and Q that of their squares, it is
    (z^2 / 2 + z sqrt(Q + z^2 / 4) - S) / N, and at least (3 - S) / N, the rule of three. For one
    outcome per image this is a little above the bound of T. Tango, Equivalence test and confidence
    interval for the difference in proportions for the paired-sample design, Stat. Med. 17 (1998).

    Args:
        old: Scores of images, shape (R, N), at least `FEWEST_TESTED` images.
        new: Scores of the same images, of the same shape.
        draws: Number of draws of signs.
        most: Largest possible score of an image, for all rows or shape (R,).
        alone: p-values of the rows alone, which corrected ones must reach, likewise.

    Returns:
        Vectors by name, shape (R,): `change`, new minus old, with its simultaneous 95 % interval
        `low` and `high`; `p_adjusted`, corrected for all rows, at least 0.05 exactly where the
        interval contains 0; and `largest_fall`, the fall that is just not excluded at one-sided
        95 % in this row alone, rounded up to 0.001.
    """
    rows, images = np.arange(len(old)), old.shape[1]
    pairs = len(old) + rows, rows
    tests = _compare_rows(
        np.concatenate([old, new]), *pairs, draws, lambda squares: squares + _UNSEEN * most**2
    )
    change, error, unit = tests.difference, tests.margin / tests.cutoff, most / images
    size, squares = np.abs(change), tests.discordance * images
    unseen, none_seen = log(2 * len(old) / LEVEL) * unit, 2 * len(old) * np.exp(-size / unit)
    p = np.maximum(np.maximum(tests.p, 2 * ndtr(-size / error)), np.minimum(none_seen, 1))
    p = np.maximum(p, alone)
    margin = np.maximum(np.maximum(tests.margin, _NORMAL * error), unseen)
    margin = np.where(p < LEVEL, margin, np.maximum(margin, size))
    half = _ONE_SIDED * most / 2
    lost = np.maximum(_ONE_SIDED * (half + np.sqrt(squares + half**2)), _NONE_SEEN * most)
    fall = np.ceil(1000 * np.maximum(lost / images - change, 0) - _ROUNDING) / 1000 + 0.0
    low, high, fall = np.clip([change - margin, change + margin, fall], -1, 1)
    return {"change": change, "low": low, "high": high, "p_adjusted": p, "largest_fall": fall}


def _compare_rows(
    scores: Values,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    draws: int,
    moderated: Callable[[Values], Values],
) -> PairTests:
    """Compare some pairs of rows, as vectors; `moderated` changes the sums of squares."""
    images = scores.shape[1]
    gram, sums = scores @ scores.T, scores.sum(axis=1)
    power = np.diag(gram)
    squares = np.maximum(power[first] + power[second] - 2 * gram[first, second], 0)
    difference, scale = sums[first] - sums[second], np.sqrt(moderated(squares))
    cutoff, margin, p = np.nan, np.full(len(first), np.nan), np.full(len(first), np.nan)
    if images >= FEWEST_TESTED and len(first):
        largest = np.sort(list(_largest(scores, first, second, scale, draws))) + _ROUNDING
        cutoff = float(largest[draws + 1 - ceil(LEVEL * (draws + 1))])
        beyond = draws - np.searchsorted(largest, np.abs(difference) / scale)
        margin, p = cutoff * scale / images, (1 + beyond) / (1 + draws)
    return PairTests(difference / images, squares / images, margin, p, cutoff)


def detectable(cutoff: float, discordance: float, images: float) -> float:
    """Compute the smallest difference of two means that `images` decide: see `images_for`.

    The cutoff is at least that of one normal variable.
    """
    from scipy.optimize import brentq  # slow to import

    if not isfinite(cutoff * discordance):  # too few images, or one attack
        return nan
    return brentq(lambda size: _needed(max(cutoff, _NORMAL), discordance, size) - images, 1e-9, 1e9)


def images_for(difference: float, discordance: float, attacks: int) -> int:
    """Compute how many images decide a difference of two of `attacks` with a power of 80 %."""
    from scipy.stats import studentized_range  # slow to import

    cutoff = studentized_range.ppf(1 - LEVEL, attacks, inf) / sqrt(2)
    return max(FEWEST_TESTED, ceil(_needed(cutoff, discordance, difference)))


def _needed(cutoff: float, discordance: float, difference: float) -> float:
    """Compute the number of images at which a difference exceeds a cutoff with a power of 80 %.

    Two images per unit of difference are added, because the statistic takes few values: without
    them two attacks reach only 75 to 79 %. With them the power is about 80 % or more.

    Reference:
        R. J. Connor, Sample size for testing differences in proportions for the paired-sample
        design, Biometrics 43 (1987); here the variance omits the difference.
    """
    power = float(ndtri(POWER)) * sqrt(discordance)
    alone = (cutoff * sqrt(discordance) + power) / difference
    with_floor = power + sqrt(power**2 + 4 * difference * cutoff * sqrt(_WHOLE))
    return max(alone, with_floor / (2 * difference)) ** 2 + 2 / difference


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
