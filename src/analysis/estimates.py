"""Values of pairs and of means over pairs, with intervals and counts."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import FEWEST_IMAGES, wilson_interval
from .outcomes import Mask, Values, ratio

MEAN = "mean"
"""Name of a source, target or seed that stands for the mean over them."""


def nested_weights(*levels: Sequence[Any] | NDArray[Any]) -> Values:
    """Compute the weights of entries in a mean of means.

    Args:
        levels: Names of the entries, shape (P,), the outermost level first: with targets, then
            sources, each target weighs the same, and so does each source within a target.

    Returns:
        The weights, shape (P,), with sum 1.
    """
    weights = np.ones(len(levels[0]))
    outer = np.zeros(len(weights), np.intp)
    for level in levels:
        codes = np.unique(np.asarray(level), return_inverse=True)[1]
        inner = np.unique(outer * (codes.max(initial=0) + 1) + codes, return_inverse=True)[1]
        first = np.unique(inner, return_index=True)[1]
        weights /= np.bincount(outer[first])[outer]
        outer = inner
    return weights / np.bincount(outer)[outer]


def share_columns(name: str, k: NDArray[Any], n: NDArray[Any]) -> dict[str, Values]:
    """Return the shares k / n, NaN where n is 0, and the ends of their 95 % Wilson intervals."""
    low, high = wilson_interval(k, n)
    return {name: ratio(k, n), f"{name}_low": low, f"{name}_high": high}


def contributions(scores: Values | Mask, counted: Mask, weights: Values) -> tuple[Values, Values]:
    """Compute what each image contributes to means over pairs.

    Args:
        scores: Scores in [0, 1] of P pairs on N images, shape (..., P, N).
        counted: The images that count for a pair, shape (P, N).
        weights: Weights of the pairs in M means, shape (M, P); 0 for pairs that count no image.

    Returns:
        Contributions, shape (..., M, N), whose sums over images are the means, and their largest
        possible values, shape (M, N), whose sums are 1.
    """
    shares = weights / np.maximum(counted.sum(axis=1), 1)
    return shares @ np.where(counted, scores, 0.0), shares @ counted


def intervals(values: Values, largest: Values, single: Mask | bool = False) -> dict[str, Values]:
    """Compute means with Wilson intervals at the effective sample size.

    The effective size is the number of zeros and ones whose mean would vary as much. Two extra
    images with the variance of zeros and ones keep the interval from vanishing where nearly all
    images agree. The mean of one pair has that of its k of n images.

    Args:
        values: Contributions of N images to M means, shape (..., M, N), see `contributions`.
        largest: Their largest possible values, shape (M, N).
        single: Means of one pair, shape (M,). Others have no interval below `FEWEST_IMAGES` images.

    Returns:
        `mean` with `low` and `high`, shape (..., M), and the number of `images`, shape (M,).

    Reference:
        C. Franco et al., Comparative study of confidence intervals for proportions in complex
        sample surveys, J. Surv. Stat. Methodol. 7 (2019).
    """
    images, mean = np.count_nonzero(largest, axis=-1), values.sum(axis=-1).round(12)
    squares = images * ((values - mean[..., None] * largest) ** 2).sum(axis=-1)
    variance, few = mean * (1 - mean), images * np.minimum(mean, 1 - mean)
    usual = (few * squares + 2 * variance) / (few + 2)
    alike = np.divide(variance, usual, out=np.ones_like(mean), where=usual > 0)
    trials = np.where(single | (images >= FEWEST_IMAGES), images * alike, 0)
    low, high = wilson_interval(mean * trials, trials)
    return {"images": images, "mean": mean, "low": low, "high": high}


def mean_weights(
    sources: NDArray[Any],
    targets: NDArray[Any],
    seeds: NDArray[Any],
    shared: Mask,
    over_seeds: bool,
) -> tuple[list[tuple[Any, Any, Any]], Values]:
    """Compute the weights of pairs in their means over sources, targets, both, and seeds.

    Args:
        sources: Sources of P pairs, shape (P,).
        targets: Their targets.
        seeds: Their seeds.
        shared: Whether a pair is in means over sources, shape (P,).
        over_seeds: Whether there are means over seeds.

    Returns:
        Source, target and seed of M means, of which at least one is `MEAN`, and the weights of the
        pairs, shape (M, P). A mean over both is over targets of each target's mean over sources. A
        seed has no mean if it lacks a pair that another seed has in it.
    """
    names, rows = list[tuple[Any, Any, Any]](), list[Values]()
    axes = [[*dict.fromkeys(axis.tolist())] for axis in (sources, targets, seeds)]
    for source, target in product((*axes[0], MEAN), (*axes[1], MEAN)):
        over = shared if source == MEAN else sources == source
        over = over if target == MEAN else over & (targets == target)
        pairs = len({*zip(sources[over], targets[over], strict=True)})
        for seed in (*axes[2], *[MEAN] * over_seeds):
            at = over if seed == MEAN else over & (seeds == seed)
            whole = seed == MEAN or np.count_nonzero(at) == pairs
            if pairs and whole and MEAN in (source, target, seed):
                weights = np.zeros(len(seeds))
                weights[at] = nested_weights(targets[at], sources[at], seeds[at])
                names.append((source, target, seed))
                rows.append(weights)
    return names, np.array(rows).reshape(len(rows), len(seeds))


def weighted_means(
    weights: Values,
    values: Values,
    sources: NDArray[Any],
    targets: NDArray[Any],
    seeds: NDArray[Any],
) -> Values:
    """Compute means of values over pairs; pairs without a value (NaN) are in no mean.

    Args:
        weights: Weights of P pairs in M means, shape (M, P), see `mean_weights`.
        values: Values of the pairs, shape (P,).
        sources: Sources of the pairs, shape (P,).
        targets: Their targets.
        seeds: Their seeds.
    """
    finite = np.isfinite(values)
    if finite.all():
        return weights @ values
    means = np.full(len(weights), np.nan)
    for number, at in enumerate((weights > 0) & finite):
        if at.any():
            means[number] = nested_weights(targets[at], sources[at], seeds[at]) @ values[at]
    return means
