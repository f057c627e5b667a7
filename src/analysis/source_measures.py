"""Similarity of two models: their features, and how an attack changes their logits."""

import numpy as np
from numpy.typing import NDArray

from src.analysis.outcomes import ratio

Values = NDArray[np.float64]


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


def change_ratio(change: Values, white_box: Values) -> float:
    """Compute alpha: the change of a target's logits relative to that by an attack on itself.

    Both arguments are changes of the target's logits, shape (N, K): `change` under the source's
    perturbations, `white_box` under those of the same attack on the target. Alpha is the mean over
    images of the ratio of their norms, without images whose `white_box` is 0.

    Reference:
        Liang et al. (2021), arXiv 2006.14512, and the authors' code.
    """
    norms = ratio(np.linalg.norm(change, axis=1), np.linalg.norm(white_box, axis=1))
    return float(np.nanmean(norms)) if np.isfinite(norms).any() else np.nan


def change_alignment(source: Values, target: Values) -> float:
    """Compute gamma: how similarly the logits of two models change under the same perturbations.

    Gamma is the squared Frobenius norm of the mean over images of the outer product of both
    changes, shapes (N, K) and (N, L), each scaled to length 1. It is in [0, 1]. Zero changes stay
    zero and count.

    Reference:
        Liang et al. (2021), arXiv 2006.14512, and the authors' code.
    """
    units = []
    for change in (source, target):
        norm = np.linalg.norm(change, axis=1, keepdims=True)
        units.append(np.nan_to_num(ratio(change, np.broadcast_to(norm, change.shape))))
    return float(np.square(units[0].T @ units[1] / len(source)).sum())
