"""Whether attacks transfer between models whose gradients, or whose errors, are alike."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.discrete.discrete_model import Logit
from statsmodels.regression.linear_model import OLS

from src.analysis.confidence_bins import mean_interval
from src.analysis.errors import error_agreement
from src.analysis.exploration import need_columns
from src.analysis.intervals import wilson_interval
from src.analysis.matrix import format_cell, is_white_box
from src.analysis.outcomes import outcomes

ALL_ATTACKS = "all attacks"
"""What takes the name of the attack where the pairs of several are pooled."""

PREDICTORS = {"cosine": "gradient cosine", "kappa": "error agreement (Cohen's kappa)"}
"""What transfer is regressed on, with what readers call it."""

FEWEST_PAIRS = 4
"""Below this no line is fitted over pairs."""
FEWEST_IMAGES = 10
"""Below this no curve is fitted over images."""

_STEP = 0.1  # of a predictor, that slopes and odds ratios are told for
_NO_VARIATION = 1e-3  # cosines of a model with itself are 1 up to rounding


class SimilarJob(NamedTuple):
    """A job that also compared gradients.

    Attributes:
        attack: Name of the attack.
        source: Model, or ensemble joined by `+`, that the images were made on.
        predictions: Its predictions, clean rows of the source and the targets included.
        similarity: One row per (index, target) with `cosine` in [-1, 1] (of the source's and the
            target's gradient of the loss on the clean image) and `sign_agreement` in [0, 1];
            NaN for a gradient that is zero.
    """

    attack: str
    source: str
    predictions: pd.DataFrame
    similarity: pd.DataFrame


class _Images(NamedTuple):
    """The counted images of one pair: their similarity and whether the attack succeeded."""

    cosine: NDArray[np.float64]
    sign_agreement: NDArray[np.float64]
    success: NDArray[np.bool_]


def pair_similarity(
    jobs: Sequence[SimilarJob], eps_255: float, protocol: str = "joint"
) -> pd.DataFrame:
    """Set the transfer of every pair beside the likeness of its two models.

    Args:
        jobs: Jobs that have the budget.
        eps_255: Budget in units of 1/255.
        protocol: Which images are counted, as in `rates`; the means are over the same images.

    Returns:
        One row per job and target: `attack`, `source`, `target`, `eps_255`, `n` images counted,
        `cosine` (mean over those whose gradients are not zero) with its 95 % t interval over the
        images `cosine_low` and `cosine_high`, `sign_agreement` (mean), `kappa` and `same_wrong`
        (Cohen's kappa of being right, and the share of the errors of both with the same class;
        over all clean images, see `error_agreement`), `success_rate` with its 95 % Wilson
        interval `success_rate_low` and `success_rate_high`, and `white_box`. What has no images
        is NaN.

    Raises:
        ValueError: As `rates`, or if a job lacks the budget or the similarity of an image.
    """
    records = []
    for job in jobs:
        shown = _at_budget(job, eps_255)
        for target in _targets(shown):
            images = _images(job, shown, target, protocol)
            errors = error_agreement(shown, job.source, target)
            n, successes = len(images.success), int(images.success.sum())
            low, high = wilson_interval(successes, n)
            likeness = (*_mean_cosine(images.cosine), _mean(images.sign_agreement))
            agreement = (errors.kappa, errors.same_wrong_class)
            rate = (successes / n if n else np.nan, float(low), float(high))
            pair = (job.attack, job.source, target, eps_255, n)
            white_box = is_white_box(job.source, target)
            records.append((*pair, *likeness, *agreement, *rate, white_box))
    return pd.DataFrame(records, columns=_PAIR_COLUMNS)


def transfer_regression(frame: pd.DataFrame) -> pd.DataFrame:
    """Fit success rate = a + slope * predictor over the pairs that are not white box.

    One predictor at a time, by ordinary least squares. The pairs share models and images, so
    they say less than as many independent ones would: intervals and p-values are too small.

    Args:
        frame: Result of `pair_similarity`.

    Returns:
        One row per attack and predictor (`cosine`, `kappa`), and, of several attacks, also for
        `all attacks` together: `attack`, `predictor`, `pairs` that have both numbers, `slope`
        (success rate per 1 of the predictor) with its 95 % t interval `slope_low` and
        `slope_high`, the correlation `r` and the p-value `p` of the slope. NaN for fewer than 4
        pairs, or if predictor or success rate do not vary.

    Raises:
        ValueError: If a column is missing.
    """
    need_columns(frame, ["attack", "white_box", "success_rate", *PREDICTORS], "similarity")
    pairs = frame[~frame["white_box"].astype(bool)]
    groups = {attack: pairs[pairs["attack"] == attack] for attack in frame["attack"].unique()}
    if len(groups) > 1:
        groups[ALL_ATTACKS] = pairs
    records = []
    for attack, group in groups.items():
        for predictor in PREDICTORS:
            known = group[[predictor, "success_rate"]].dropna()
            x, y = known.to_numpy(dtype=np.float64).T
            records.append((attack, predictor, len(known), *_line(x, y)))
    return pd.DataFrame(records, columns=_REGRESSION_COLUMNS)


def image_level(
    jobs: Sequence[SimilarJob], eps_255: float, protocol: str = "joint"
) -> pd.DataFrame:
    """Fit, within each pair, the odds of success on the cosine of the image's gradients.

    Args:
        jobs: Jobs that have the budget.
        eps_255: Budget in units of 1/255.
        protocol: Which images are counted, as in `rates`.

    Returns:
        One row per job and target: `attack`, `source`, `target`, `n` (images counted whose
        gradients are not zero), `success` (how many of them), `odds_ratio` (by which the odds of
        success are multiplied for each 0.1 more cosine, by logistic regression) with its 95 %
        Wald interval `odds_ratio_low` and `odds_ratio_high`, and its p-value `p`. NaN for fewer
        than 10 images, if cosine or success do not vary (the white box), or if the cosine tells
        successes from failures without an error, so that no finite ratio fits best.

    Raises:
        ValueError: As `pair_similarity`.
    """
    records = []
    for job in jobs:
        shown = _at_budget(job, eps_255)
        for target in _targets(shown):
            images = _images(job, shown, target, protocol)
            known = ~np.isnan(images.cosine)
            cosine, success = images.cosine[known], images.success[known]
            counts = int(known.sum()), int(success.sum())
            records.append((job.attack, job.source, target, *counts, *_odds(cosine, success)))
    return pd.DataFrame(records, columns=_IMAGE_COLUMNS)


def similarity_sentences(frame: pd.DataFrame, regression: pd.DataFrame) -> tuple[str, str]:
    """Say whether transfer goes with gradient cosine, and whether with error agreement.

    Args:
        frame: Result of `pair_similarity`.
        regression: Result of `transfer_regression` for it; of several attacks, the row of all
            of them is told.

    Raises:
        ValueError: If a column is missing.
    """
    need_columns(frame, _PAIR_COLUMNS, "similarity")
    need_columns(regression, _REGRESSION_COLUMNS, "regression")
    cosine, kappa = (_sentence(frame, regression, predictor) for predictor in PREDICTORS)
    return cosine, kappa


def _at_budget(job: SimilarJob, eps_255: float) -> pd.DataFrame:
    """Return the rows of one budget and the clean ones."""
    eps = job.predictions["eps_255"]
    attacked = np.isclose(eps, eps_255) & (eps != 0).to_numpy()
    if not attacked.any():
        budgets = ", ".join(f"{one:g}" for one in sorted(eps.unique()) if one)
        raise ValueError(
            f"{job.attack} on {job.source} has no eps_255 = {eps_255:g}; "
            f"its budgets are {budgets or 'none'}."
        )
    return job.predictions[attacked | (eps == 0).to_numpy()]


def _targets(shown: pd.DataFrame) -> list[str]:
    return [str(name) for name in shown.loc[shown["eps_255"] != 0, "target"].unique()]


def _images(job: SimilarJob, shown: pd.DataFrame, target: str, protocol: str) -> _Images:
    """Gather the counted images of one pair."""
    need_columns(job.similarity, ["index", "target", "cosine", "sign_agreement"], "similarity")
    found = outcomes(shown, job.source, [target], protocol)
    kept = found.counted & (found.rows["eps_255"] != 0).to_numpy()
    index = found.rows["index"].to_numpy()[kept]
    like = job.similarity[(job.similarity["target"] == target).to_numpy()]
    place = pd.Index(like["index"]).get_indexer(pd.Index(index))
    if (place < 0).any():
        raise ValueError(
            f"the similarity table of {job.attack} on {job.source} lacks image "
            f"{index[place < 0][0]} of '{target}'."
        )
    cosine = like["cosine"].to_numpy(dtype=np.float64)[place]
    signs = like["sign_agreement"].to_numpy(dtype=np.float64)[place]
    return _Images(cosine, signs, found.success[kept])


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _mean_cosine(cosine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean of the cosines that are not NaN, and its interval."""
    known = cosine[~np.isnan(cosine)]
    mean, sd = np.asarray(_mean(known)), known.std(ddof=1) if len(known) > 1 else np.nan
    low, high = mean_interval(mean, np.asarray(sd), np.asarray(len(known)), -1.0)
    return float(mean), float(low), float(high)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, ...]:
    """Return slope, its interval, correlation and p-value; NaN where no line can be fitted."""
    if len(x) < FEWEST_PAIRS or np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return (np.nan,) * 5
    with np.errstate(divide="ignore"):  # points on a line leave nothing to divide by
        fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit()
        low, high = fit.conf_int()[1]
        return (fit.params[1], low, high, np.corrcoef(x, y)[0, 1], fit.pvalues[1])


def _odds(cosine: NDArray[np.float64], success: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return the odds ratio, its interval and p-value; NaN where there is no best one."""
    nothing = (np.nan,) * 4
    if len(cosine) < FEWEST_IMAGES or success.all() or not success.any():
        return nothing
    with_success, without = cosine[success], cosine[~success]
    apart = with_success.min() >= without.max() or with_success.max() <= without.min()
    if apart or np.ptp(cosine) < _NO_VARIATION:
        return nothing
    # The fit is on a standardised cosine, for the sake of the numbers.
    spread = cosine.std()
    design = np.column_stack([np.ones_like(cosine), (cosine - cosine.mean()) / spread])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what they are about is looked at below
        fit = Logit(success.astype(np.float64), design).fit(disp=0, maxiter=100)
        steps = np.array([fit.params[1], *fit.conf_int()[1]]) * _STEP / spread
        ratio, low, high = np.exp(steps)
    if not fit.mle_retvals["converged"]:
        return nothing
    return (ratio, low, high, fit.pvalues[1])


def _sentence(frame: pd.DataFrame, regression: pd.DataFrame, predictor: str) -> str:
    """Tell the regression on one predictor, or why there is none."""
    rows = regression[regression["predictor"] == predictor]
    pooled = rows[rows["attack"] == ALL_ATTACKS]
    words = PREDICTORS[predictor]
    if rows.empty:
        return f"No pair of models tells whether success goes with {words}."
    row = (pooled if len(pooled) else rows).iloc[0]
    attacks = ", ".join(map(str, frame["attack"].unique()))
    where = f"{attacks} at {frame['eps_255'].iloc[0]:g}/255"
    if pd.isna(row["slope"]):
        return f"Whether success goes with {words} {_why_not(frame, predictor, where)}."
    slope, low, high = (100 * _STEP * row[name] for name in ("slope", "slope_low", "slope_high"))
    meaning = "which leaves open whether the two go together"
    if low > 0 or high < 0:
        better = "better" if low > 0 else "worse"
        meaning = f"so these attacks transfer {better} between models with more of it"
    return (
        f"Over the {row['pairs']} pairs that are not white box ({where}), {_STEP:g} more {words} "
        f"goes with {slope:+.1f} percentage points of success (95 % interval {low:+.1f} to "
        f"{high:+.1f}, too narrow as pairs share models; r = {row['r']:.2f}, {_p(row['p'])}), "
        f"{meaning}."
    )


def _why_not(frame: pd.DataFrame, predictor: str, where: str) -> str:
    """Say why no line was fitted, with the few pairs that there are."""
    pairs = frame[~frame["white_box"].astype(bool)].dropna(subset=[predictor, "success_rate"])
    if len(pairs) >= FEWEST_PAIRS:
        return f"cannot be told: it, or the success, is the same for all {len(pairs)} pairs"
    columns = ("source", "target", predictor, "success_rate", "n", "attack")
    told = [
        f"{source} -> {target} {value:.3f}, success {format_cell(round(rate * n), n)} ({attack})"
        for source, target, value, rate, n, attack in zip(
            *(pairs[column].tolist() for column in columns), strict=True
        )
    ]
    listed = f": {'; '.join(told)}" if told else ""
    return (
        f"cannot be told: that takes at least {FEWEST_PAIRS} pairs that are not white box, and "
        f"{where} has {len(pairs)}{listed}"
    )


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"


_PAIR_COLUMNS = [
    *("attack", "source", "target", "eps_255", "n", "cosine", "cosine_low", "cosine_high"),
    *("sign_agreement", "kappa", "same_wrong", "success_rate", "success_rate_low"),
    *("success_rate_high", "white_box"),
]
_REGRESSION_COLUMNS = [
    *("attack", "predictor", "pairs", "slope", "slope_low", "slope_high", "r", "p"),
]
_IMAGE_COLUMNS = [
    *("attack", "source", "target", "n", "success"),
    *("odds_ratio", "odds_ratio_low", "odds_ratio_high", "p"),
]
