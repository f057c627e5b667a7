"""Bootstrap samples of images, and what is worked out for all of them at once."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Bootstrap samples behind every interval."""
_BATCH = 300_000  # counts that are held at once: more would leave the processor's cache


def resample_counts(
    images: int, seed: int, resamples: int = RESAMPLES
) -> Iterator[NDArray[np.float64]]:
    """Yield bootstrap samples of images as the number of times that each one was drawn.

    Args:
        images: Number N of images, at least 1; each sample draws as many, with replacement.
        seed: From 0; the same seed gives the same samples.
        resamples: Number of samples.

    Yields:
        Whole numbers as floats, shape (B, N), each row with sum N; `resamples` rows in all.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, _BATCH // images)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(0, images, size=(rows, images), dtype=np.int32)
        # One count for all samples: each has a range of numbers of its own.
        drawn = drawn + np.arange(rows, dtype=np.int64)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)


def resampled_rho(
    first: NDArray[np.float64], second: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Spearman's rho of many bootstrap samples at once, without sorting each of them.

    Args:
        first: Values, shape (N,).
        second: Values of the same images, shape (N,).
        counts: How often each sample holds each image, shape (B, N), equal sums.

    Returns:
        rho by sample, shape (B,), ties at their mean rank; 0 where one of the two is constant.
    """
    middle = (counts.sum(axis=1, keepdims=True) + 1) / 2  # the mean of all ranks
    ranks = [_mean_ranks(values, counts) - middle for values in (first, second)]
    shared = np.einsum("bn,bn,bn->b", counts, *ranks)
    squares = [np.einsum("bn,bn,bn->b", counts, rank, rank) for rank in ranks]
    scale = np.sqrt(squares[0] * squares[1])
    rho: NDArray[np.float64] = np.divide(shared, scale, out=np.zeros_like(scale), where=scale > 0)
    return rho


def _mean_ranks(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank each image in each sample, shape (B, N); ties get the mean of their ranks."""
    order = np.argsort(values)
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    tied = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(tied, axis=1) - (tied - 1) / 2
    _, group = np.unique(values, return_inverse=True)
    return ranks[:, group]
