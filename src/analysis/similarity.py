"""Transfer in relation to the similarity of source and target: gradients and errors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..utils.model_names import ModelRef
from .intervals import FEWEST_IMAGES, wilson_interval
from .matrices import relation
from .outcomes import at_budget, outcomes, ratio, row_positions, with_defence


def pair_similarity(
    predictions: pd.DataFrame,
    similarity: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    eps_255: float,
    protocol: str = "joint",
) -> pd.DataFrame:
    """Compute the success on each target and the similarity of source and target.

    `similarity` has one row per (index, target) with the `cosine` between the source's and the
    target's loss gradients on the clean image, NaN for a zero gradient. Images without a row are
    not counted. The other arguments and the errors are as for `rates`, at one budget.

    Returns:
        One row per target: `n` counted images; mean `cosine` with its 95 % t interval (NaN for
        fewer than 10 images); `kappa`, the error consistency, with its 95 % interval (Fleiss et al.
        1969); `success_rate` with its 95 % Wilson interval; and `relation`. `kappa` is Cohen's
        kappa of source and target being correct, over all clean images, and NaN if both are always
        correct or both always wrong.

    Reference:
        R. Geirhos, K. Meding and F. A. Wichmann, Beyond accuracy: quantifying trial-by-trial
        behaviour of CNNs and humans by measuring error consistency, NeurIPS (2020).
    """
    pairs = list(map(ModelRef.parse, targets))
    result = outcomes(at_budget(predictions, eps_255), source, pairs, protocol)
    row = row_positions(similarity.assign(eps_255=0.0), pairs, result.index, [0.0])[:, :, 0]
    counted = result.counted & result.present[:, :, -1] & (row >= 0)
    n = np.count_nonzero(counted, axis=1)
    successes = np.count_nonzero(counted & result.success[:, :, -1], axis=1)
    table = pd.DataFrame({"target": list(targets), "n": n})
    cosine = np.where(counted, similarity["cosine"].to_numpy(np.float64)[row], np.nan)
    table["cosine"], table["cosine_low"], table["cosine_high"] = mean_interval(cosine)
    clean = with_defence(predictions[predictions["eps_255"] == 0])
    clean = clean.assign(correct=clean["predicted"] == clean["label"])
    correct = clean.pivot(index="index", columns=["target", "defence"], values="correct")
    kappas = [
        _error_consistency(correct[[result.source.columns, pair.columns]].dropna())
        for pair in pairs
    ]
    table[["kappa", "kappa_low", "kappa_high"]] = kappas
    table["success_rate"] = ratio(successes, n)
    table["success_rate_low"], table["success_rate_high"] = wilson_interval(successes, n)
    table["relation"] = [relation(result.source, target) for target in pairs]
    return table


def mean_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Compute each row's mean without NaN, and its 95 % t interval clipped to [-1, 1]."""
    n = np.count_nonzero(~np.isnan(values), axis=1)
    mean = ratio(np.nansum(values, axis=1), n)
    squares = np.nansum((values - mean[:, None]) ** 2, axis=1)
    degrees = np.maximum(n - 1, 1)
    half = stdtrit(degrees, 0.975) * np.sqrt(squares / degrees / np.maximum(n, 1))
    half = np.where(n >= FEWEST_IMAGES, half, np.nan)
    return mean, np.maximum(mean - half, -1.0), np.minimum(mean + half, 1.0)


def _error_consistency(correct: pd.DataFrame) -> tuple[float, float, float]:
    """Compute Cohen's kappa of two models being correct, and its 95 % interval."""
    from statsmodels.stats.inter_rater import cohens_kappa  # imported here: it takes a second

    first, second = correct.to_numpy(dtype=np.float64).T
    counts = np.histogram2d(first, second, bins=2, range=[[0, 1], [0, 1]])[0]
    # Kappa is undefined if both models are always correct, or both always wrong.
    if np.diag(counts).max() == len(correct):
        return np.nan, np.nan, np.nan
    with np.errstate(invalid="ignore"):  # the z statistic is invalid if the models always agree
        result = cohens_kappa(counts)
    return result.kappa, max(result.kappa_low, -1.0), min(result.kappa_upp, 1.0)
