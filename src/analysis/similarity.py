"""Whether attacks transfer between models whose gradients, or whose errors, are alike."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t
from statsmodels.regression.linear_model import OLS

from src.analysis.errors import error_agreement
from src.analysis.exploration import need_columns
from src.analysis.intervals import wilson_interval
from src.analysis.logistic import NO_VARIATION, odds_ratio
from src.analysis.matrix import is_white_box
from src.analysis.outcomes import outcomes, target_labels

PREDICTORS = {"cosine": "gradient cosine", "kappa": "error agreement (Cohen's kappa)"}
"""What transfer is regressed on, with what readers call it."""

FEWEST_PAIRS = 4
"""Below so many different pairs of models, either way round, no line is fitted."""
FEWEST_IMAGES = 10
"""Below so many images a mean cosine has no interval."""
STEP = 0.1
"""Rise of a predictor that odds ratios and sentences are about."""


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
        images `cosine_low` and `cosine_high` (NaN for fewer than 10), `sign_agreement` (mean),
        `kappa` and `same_wrong` (Cohen's kappa of being right, and the share of the errors of both
        with the same class; over all clean images, see `error_agreement`), `success_rate` with
        its 95 % Wilson interval `success_rate_low` and `success_rate_high`, `white_box`, and
        `targeted`. What has no images is NaN.

    Raises:
        ValueError: As `rates`, or if a job lacks the budget or the similarity of an image.
    """
    records = []
    for job in jobs:
        shown = _at_budget(job, eps_255)
        targeted = target_labels(shown) is not None
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
            records.append((*pair, *likeness, *agreement, *rate, white_box, targeted))
    return pd.DataFrame(records, columns=PAIR_COLUMNS)


def transfer_regression(frame: pd.DataFrame) -> pd.DataFrame:
    """Fit success rate = intercept + slope * predictor over the pairs that are not white box.

    One attack and predictor at a time, by ordinary least squares. Either direction of a pair of
    models is a point, but cosine and kappa are the same for both, so that what counts is how many
    different pairs of models there are. Pairs share models and images too, and say less than as
    many independent ones would: intervals and p-values are too small.

    Args:
        frame: Result of `pair_similarity`. Of an attack with untargeted and targeted jobs, the
            untargeted ones are taken.

    Returns:
        One row per attack and predictor (`cosine`, `kappa`): `attack`, `predictor`, `pairs`
        (points that have both numbers), `model_pairs` (different pairs of models among them),
        `slope` (success rate per 1 of the predictor) with its 95 % t interval `slope_low` and
        `slope_high`, the correlation `r`, the p-value `p` of the slope, and `intercept`. NaN for
        fewer than 4 model pairs, or if predictor or success rate do not vary.

    Raises:
        ValueError: If a column is missing.
    """
    needed = ["attack", "source", "target", "white_box", "success_rate", *PREDICTORS]
    need_columns(frame, needed, "similarity")
    records = []
    for attack in frame["attack"].unique():
        group = regressed_pairs(frame, attack)
        for predictor in PREDICTORS:
            known = group.dropna(subset=[predictor, "success_rate"])
            x, y = known[[predictor, "success_rate"]].to_numpy(dtype=np.float64).T
            models = len(
                {frozenset(pair) for pair in zip(known["source"], known["target"], strict=True)}
            )
            line = _line(x, y) if models >= FEWEST_PAIRS else (np.nan,) * 6
            records.append((attack, predictor, len(known), models, *line))
    return pd.DataFrame(records, columns=REGRESSION_COLUMNS)


def regressed_pairs(frame: pd.DataFrame, attack: str) -> pd.DataFrame:
    """Return the pairs of an attack that a line is fitted over: none that is white box.

    Targeted and untargeted success are different things; of an attack with both, the untargeted
    ones are returned.
    """
    group = frame[(frame["attack"] == attack) & ~frame["white_box"].astype(bool)]
    if "targeted" in group:
        targeted = group["targeted"].astype(bool)
        group = group if targeted.all() else group[~targeted]
    return group


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
        than 10 images, if cosine or success do not vary (the white box), if the cosine tells
        successes from failures without an error, or if the fit does not converge (see
        `src.analysis.logistic.odds_ratio`).

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
            odds = odds_ratio(cosine, success, STEP)
            numbers = odds.ratio, odds.low, odds.high, odds.p
            records.append((job.attack, job.source, target, *counts, *numbers))
    return pd.DataFrame(records, columns=_IMAGE_COLUMNS)


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
    mean, n = _mean(known), len(known)
    if n < FEWEST_IMAGES:
        return mean, np.nan, np.nan
    half = float(student_t.ppf(0.975, n - 1) * known.std(ddof=1) / np.sqrt(n))
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, ...]:
    """Return slope, its interval, correlation, p-value and intercept; NaN without variation."""
    if np.ptp(x) < NO_VARIATION or np.ptp(y) < NO_VARIATION:
        return (np.nan,) * 6
    with np.errstate(divide="ignore"):  # points on a line leave nothing to divide by
        fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit()
        low, high = fit.conf_int()[1]
        r = np.corrcoef(x, y)[0, 1]
        return (fit.params[1], low, high, r, fit.pvalues[1], fit.params[0])


PAIR_COLUMNS = [
    *("attack", "source", "target", "eps_255", "n", "cosine", "cosine_low", "cosine_high"),
    *("sign_agreement", "kappa", "same_wrong", "success_rate", "success_rate_low"),
    *("success_rate_high", "white_box", "targeted"),
]
REGRESSION_COLUMNS = [
    *("attack", "predictor", "pairs", "model_pairs", "slope", "slope_low", "slope_high"),
    *("r", "p", "intercept"),
]
_IMAGE_COLUMNS = [
    *("attack", "source", "target", "n", "success"),
    *("odds_ratio", "odds_ratio_low", "odds_ratio_high", "p"),
]
