"""Measures of two models, and whether they predict the transfer between them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from .source_choice import Related, Transfer, Values

FEWEST_SOURCES = 6
"""Fewest sources for testing correlations by permutation of models."""
_DRAWS = 999


def linear_cka(first: Values, second: Values) -> float:
    """Compute the linear centred kernel alignment of features (N, P) and (N, Q) of N images.

    The estimate is debiased: it is at most 1, and near 0 or slightly negative for unrelated
    features, even with more features than images. NaN for fewer than four images, or if features do
    not vary.

    Reference:
        Kornblith et al. (2019), arXiv 1905.00414, section 3; the unbiased estimates of Song et al.
        (2012), Feature Selection via Dependence Maximization, equation 4.
    """
    if len(first) < 4:
        return np.nan
    product, *squares = (
        _dependence(left, right)
        for left, right in ((first, second), (first, first), (second, second))
    )
    if min(squares) <= 0:
        return np.nan
    return float(product / np.sqrt(squares[0] * squares[1]))


def _dependence(first: Values, second: Values) -> float:
    """Compute N (N - 3) times the unbiased HSIC of linear kernels, without an (N, N) matrix."""
    count, (x, y) = len(first), (first - first.mean(axis=0), second - second.mean(axis=0))
    own_x, own_y = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    both = np.square(x.T @ y).sum() - own_x @ own_y
    # The kernels have a zero diagonal and the features are centred: kernel rows sum to `-own`.
    sums = own_x.sum() * own_y.sum() / ((count - 1) * (count - 2))
    return float(both + sums - 2 * (own_x @ own_y) / (count - 2))


def clean_measures(correct: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compute measures of model pairs from clean predictions, as frames (models, models).

    - `kappa`: Cohen's kappa of being correct (Geirhos et al., NeurIPS 2020);
    - `source accuracy` and `target accuracy`, the trivial measures: accuracy of row and column.

    Args:
        correct: Whether each model (column) is correct on each image (row).
    """
    right = correct.to_numpy(np.float64)
    p = right.mean(axis=0)
    agree = (right.T @ right + (1 - right).T @ (1 - right)) / len(right)
    chance = np.outer(p, p) + np.outer(1 - p, 1 - p)
    kappa = np.divide(agree - chance, 1 - chance, out=np.full_like(agree, np.nan), where=chance < 1)
    accuracy = np.tile(p[:, None], (1, len(p)))
    measures = {"kappa": kappa, "source accuracy": accuracy, "target accuracy": accuracy.T}
    names = correct.columns
    return {name: pd.DataFrame(value, names, names) for name, value in measures.items()}


def predictors(
    transfer: Transfer,
    measure: Callable[[list[int]], Mapping[str, pd.DataFrame]],
    related: Related,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate measures of model pairs with the transfer between them, on different images.

    The measure is computed on the images at odd positions and the transfer on the images at even
    positions, then the other way round. Related pairs are left out.

    Args:
        transfer: The transfer to predict.
        measure: Function from image positions to measures by name, each a frame (models, models).
        related: Whether two models are related.
        seed: Seed for the permutations.

    Returns:
        One row per measure: the number of `pairs`; `rho`, Spearman's rank correlation, averaged
        over both halves; `added`, the correlation of the ranks after removing the trivial measures;
        and `p`, the share of 999 permutations of the models whose `rho` is at least as far from 0
        (NaN below `FEWEST_SOURCES` sources).
    """
    random, sources, targets = np.random.default_rng(seed), [*transfer.sources], [*transfer.targets]
    used = np.array([[not related(a, b) for b in transfer.targets] for a in transfer.sources])
    positions = np.arange(transfer.scores.shape[-1])
    halves = []
    for odd in (1, 0):
        rates = transfer.of_images(positions[1 - odd :: 2]).rates
        frames = measure(positions[odd::2].tolist())
        measures = {
            name: frame.reindex(sources, columns=targets).to_numpy(np.float64)
            for name, frame in frames.items()
        }
        halves.append((np.where(used, rates, np.nan), measures))
    orders = [_permuted(transfer, random) for _ in range(_DRAWS)]
    rows = []
    for name in halves[0][1]:
        rho = np.mean([_rank_correlations(measures[name], rates)[0] for rates, measures in halves])
        added = np.mean([_beyond_trivial(measures, name, rates) for rates, measures in halves])
        p = np.nan
        if len(transfer.sources) >= FEWEST_SOURCES and np.isfinite(rho):
            drawn = np.mean(
                [
                    _rank_correlations(np.stack([measures[name][o] for o in orders]), rates)
                    for rates, measures in halves
                ],
                axis=0,
            )
            drawn = drawn[np.isfinite(drawn)]  # others have a constant measure
            p = (1 + np.sum(np.abs(drawn) >= abs(rho) - 1e-12)) / (1 + len(drawn))
        pairs = int(np.isfinite(halves[0][0]).sum())
        rows.append({"measure": name, "pairs": pairs, "rho": rho, "added": added, "p": p})
    return pd.DataFrame(rows)


def _permuted(transfer: Transfer, random: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Return an index that permutes the models of the cells.

    Models that are both source and target are permuted only among themselves.
    """
    both = [name for name in transfer.sources if name in transfer.targets]
    renamed = dict(zip(both, random.permutation(both).tolist(), strict=True))
    places = []
    for names in (transfer.sources, transfer.targets):
        alone = [name for name in names if name not in renamed]
        mine = renamed | dict(zip(alone, random.permutation(alone).tolist(), strict=True))
        places.append([list(names).index(mine[name]) for name in names])
    return np.ix_(*places)


def _rank_correlations(measures: Values, rates: Values) -> NDArray[np.float64]:
    """Compute Spearman's correlation of each measure with the rates, over the cells that both have.

    Args:
        measures: Measures of shape (..., sources, targets).
        rates: Success rates of shape (sources, targets).

    Returns:
        Correlations of shape (measures,); NaN with fewer than three cells or a constant.
    """
    flat = measures.reshape(-1, rates.size)
    there = np.isfinite(flat) & np.isfinite(rates.ravel())
    ranks = [
        rankdata(np.where(there, values, np.nan), axis=1, nan_policy="omit")
        for values in (flat, rates.ravel())
    ]
    count = there.sum(axis=1, keepdims=True)
    left = [
        np.where(there, rank - np.nansum(rank, axis=1, keepdims=True) / np.maximum(count, 1), 0)
        for rank in ranks
    ]
    size = np.sqrt(np.square(left[0]).sum(axis=1) * np.square(left[1]).sum(axis=1))
    defined = (count[:, 0] >= 3) & (size > 0)
    sums = (left[0] * left[1]).sum(axis=1)
    return np.divide(sums, size, out=np.full(len(flat), np.nan), where=defined)


def _beyond_trivial(measures: Mapping[str, Values], name: str, rates: Values) -> float:
    """Compute the rank correlation after removing the accuracies of source and target."""
    trivial = [key for key in ("source accuracy", "target accuracy") if key != name]
    there = np.isfinite(rates) & np.all([np.isfinite(measures[key]) for key in [*trivial, name]], 0)
    ranks = [rankdata(measures[key][there]) for key in trivial]
    design = np.column_stack([np.ones(int(there.sum())), *ranks])
    left = []
    for values in (measures[name], rates):
        rank = rankdata(values[there])
        left.append(rank - design @ np.linalg.lstsq(design, rank, rcond=None)[0])
    return _correlation(*left)


def _correlation(first: Values, second: Values) -> float:
    if len(first) < 3 or np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return np.nan
    return float(np.corrcoef(first, second)[0, 1])
