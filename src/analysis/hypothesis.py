"""Hypothesis 1: whether images with a high initial confidence are harder to manipulate."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from src.analysis.areas import curves_by_image
from src.analysis.logistic import FEWEST_IMAGES, odds_ratio
from src.analysis.matrix import is_white_box
from src.analysis.outcomes import outcomes
from src.analysis.resampling import resample_counts, resampled_rho

STEP = 0.1
"""Rise of the initial confidence that the odds ratio is about."""
HYPOTHESIS = "images with a high initial confidence are harder to manipulate"

_VERDICTS = {
    "supported": "is supported",
    "contradicted": "is contradicted",
    "undecided": "is left undecided",
}


def initial_confidence_effect(
    predictions: pd.DataFrame,
    source: str,
    target: str,
    attack: str,
    protocol: str = "joint",
    flips: pd.DataFrame | None = None,
    seed: int = 0,
) -> "Effect":
    """Relate each image's initial confidence to the budget that makes it flip.

    Looked at are the images that the protocol counts and that the target classifies correctly
    when clean; a flip is any class but the true one, for targeted attacks too. Two answers are
    given:

    - Spearman's rank correlation between the initial confidence and the smallest flipping
      budget. An image that never flips stands above every budget, and ties share their mean
      rank, so that a coarse grid of budgets or many images that never flip bring rho nearer to
      0. Its 95 % interval is that of the percentiles of 2,000 bootstrap samples of the images;
      a sample in which one of the two does not vary counts as rho = 0.
    - A logistic regression of flipping or not, at the one tried budget where the flipped share
      is nearest to one half (of two, the smaller), on the initial confidence, with Wald's
      interval.

    Args:
        predictions: One row per (index, target, eps_255), clean rows (eps_255 = 0) included.
        source: Model that the adversarial images were made on.
        target: Model that they were shown to.
        attack: What the sentence calls the attack.
        protocol: Which images are counted, as in `rates`.
        flips: Smallest flipping budgets found between the tried ones: rows with `index`,
            `target` and `eps_255`. They replace the tried ones in the correlation where they
            are smaller.
        seed: Of the bootstrap, from 0.

    Returns:
        See `Effect`. What cannot be estimated is NaN, and the sentence says why: fewer than 10
        images, flips or confidences that do not vary, or confidences that separate the images
        that flip from the others completely.

    Raises:
        ValueError: As `rates`, if the target was shown no attacked images, an image lacks a
            budget that others have, or `flips` lacks a column or has two rows of one image.

    Reference:
        C. Spearman, The proof and measurement of association between two things, Am. J.
        Psychol. 15 (1904); A. Albert and J. A. Anderson, On the existence of maximum likelihood
        estimates in logistic regression models, Biometrika 71 (1984), for separation.
    """
    images = _images(predictions, source, target, protocol, flips)
    rank, odds = _rank(images, seed), _odds(images)
    verdict = _verdict(rank, odds)
    n, flipped = len(images.confidence), int(np.isfinite(images.first_flip).sum())
    return Effect(
        attack=attack,
        source=source,
        target=target,
        n=n,
        flipped=flipped,
        rho=rank.rho,
        rho_low=rank.low,
        rho_high=rank.high,
        rho_p=rank.p,
        eps_255=odds.eps_255,
        flipped_at_eps=odds.flipped,
        odds_ratio=odds.ratio,
        odds_ratio_low=odds.low,
        odds_ratio_high=odds.high,
        odds_p=odds.p,
        verdict=verdict,
        sentence=(
            f"{attack} made on {source}, shown to {target}"
            f"{' (white box)' if is_white_box(source, target) else ''}: "
            f"{_rank_words(rank, n, flipped)}; {_odds_words(odds, n)}so Hypothesis 1, "
            f'"{HYPOTHESIS}", {_VERDICTS[verdict]}.'
        ),
    )


def _images(
    predictions: pd.DataFrame,
    source: str,
    target: str,
    protocol: str,
    flips: pd.DataFrame | None,
) -> "_Images":
    """Gather confidence and flips of the images that are counted and initially correct."""
    needed = (predictions["target"] == target) | (
        (predictions["target"] == source) & (predictions["eps_255"] == 0)
    )
    found = outcomes(predictions.loc[needed], source, [target], protocol)
    if found.target_clean is None:
        raise ValueError(f"the table lacks the clean predictions (eps_255 = 0) of '{target}'.")
    if not (found.rows["eps_255"] > 0).any():
        raise ValueError(f"'{target}' was shown no attacked images.")
    rows = found.rows.assign(flip=~found.correct)[found.counted & found.target_clean]
    budgets, (flip, confidence) = curves_by_image(rows, ["flip", "confidence"], target)
    if not len(rows):
        empty = np.empty(0)
        return _Images(empty, empty, empty, np.empty((0, 0), dtype=bool))
    flipped = flip[:, 1:] > 0
    tried = np.where(flipped.any(axis=1), budgets[1:][flipped.argmax(axis=1)], np.inf)
    if flips is not None:
        index = np.unique(rows["index"])
        tried = np.fmin(tried, _refined(flips, target, index))
    return _Images(confidence[:, 0], tried, budgets[1:], flipped)


def _refined(flips: pd.DataFrame, target: str, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Look the smallest flipping budget of images up in another table; NaN if not there."""
    missing = [name for name in ("index", "target", "eps_255") if name not in flips.columns]
    if missing:
        raise ValueError(f"the table of flips lacks the columns {', '.join(missing)}.")
    mine = flips.loc[(flips["target"] == target).to_numpy(), ["index", "eps_255"]]
    repeated = mine["index"].duplicated()
    if repeated.any():
        image = mine.loc[repeated, "index"].iloc[0]
        raise ValueError(f"the table of flips has two rows of image {image} and '{target}'.")
    refined: NDArray[np.float64] = (
        mine.set_index("index")["eps_255"].reindex(index).to_numpy(dtype=np.float64)
    )
    return refined


def _rank(images: "_Images", seed: int) -> "_Rank":
    """Correlate initial confidence and smallest flipping budget."""
    confidence, first = images.confidence, images.first_flip
    why = _too_little(confidence)
    flips = np.isfinite(first)
    if not why and not flips.any():
        why = "no image flips at any budget"
    if why:
        return _Rank(why=why)
    first = np.where(flips, first, first[flips].max() + 1)  # never: above every budget
    if np.ptp(first) == 0:
        return _Rank(why=f"every image first flips at {first[0]:g}/255")
    result = spearmanr(confidence, first)
    samples = resample_counts(len(first), seed)
    draws = np.concatenate([resampled_rho(confidence, first, counts) for counts in samples])
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return _Rank(float(result.statistic), low, high, float(result.pvalue))


def _odds(images: "_Images") -> "_Odds":
    """Fit the logistic regression at the budget where half of the images flip."""
    confidence = images.confidence
    n = len(confidence)
    if not n:
        return _Odds(why=_too_little(confidence))
    totals = images.flipped.sum(axis=0)
    place = int(np.argmin(np.abs(2 * totals - n)))
    found = odds_ratio(confidence, images.flipped[:, place], STEP, "the initial confidence", "flip")
    return _Odds(float(images.budgets[place]), int(totals[place]), *found)


def _too_little(confidence: NDArray[np.float64]) -> str:
    """Say why nothing can be estimated from such images; empty if something can."""
    if len(confidence) < FEWEST_IMAGES:
        return f"fewer than {FEWEST_IMAGES} images"
    unknown = int((~np.isfinite(confidence)).sum())
    if unknown:
        return f"the initial confidence of {unknown} images is not a number"
    if np.ptp(confidence) == 0:
        return "all images have the same initial confidence"
    return ""


def _verdict(rank: "_Rank", odds: "_Odds") -> str:
    """Judge by the rank correlation, unless the odds ratio says the opposite."""
    if rank.low > 0 and not odds.low > 1:
        return "supported"
    if rank.high < 0 and not odds.high < 1:
        return "contradicted"
    return "undecided"


def _rank_words(rank: "_Rank", n: int, flipped: int) -> str:
    start = f"of {n} initially correct images {flipped} flip at some budget, and "
    if rank.why:
        return f"{start}no rank correlation can be given ({rank.why})"
    interval = f"[{_decimal(rank.low)}, {_decimal(rank.high)}]"
    return (
        f"{start}the rank correlation of initial confidence and smallest flipping budget is "
        f"rho = {_decimal(rank.rho)} {interval} (95 % interval)"
    )


def _odds_words(odds: "_Odds", n: int) -> str:
    if math.isnan(odds.eps_255):
        return ""
    start = f"at {odds.eps_255:g}/255, where {odds.flipped} of {n} flip, "
    if odds.why:
        return f"{start}no odds ratio can be given ({odds.why}); "
    return (
        f"{start}{STEP:.2f} more of initial confidence multiplies the odds of a flip by "
        f"{_factor(odds.ratio)} [{_factor(odds.low)}, {_factor(odds.high)}]; "
    )


def _decimal(value: float) -> str:
    """Write two decimals, or one digit of what they would make 0.00 or -0.00."""
    text = f"{value:z.2f}"
    return text if float(text) or value == 0 else f"{value:.1g}"


def _factor(value: float) -> str:
    """Write two decimals, or some digits of what they would make 0.00, 1.00 or very long."""
    if value < 0.01:
        return f"{value:.2g}"
    plain = value < 1000 and round(value, 2) != 1
    return f"{value:.2f}" if plain else f"{value:.3g}"


class _Images(NamedTuple):
    """Initial confidence (N,), smallest flipping budget (N,; inf: never), budgets (K,), flips."""

    confidence: NDArray[np.float64]
    first_flip: NDArray[np.float64]
    budgets: NDArray[np.float64]
    flipped: NDArray[np.bool_]


class _Rank(NamedTuple):
    rho: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    why: str = ""


class _Odds(NamedTuple):
    eps_255: float = np.nan
    flipped: int = 0
    ratio: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    why: str = ""


@dataclass(frozen=True)
class Effect:
    """How the initial confidence bears on flipping, for one attack, source and target.

    Attributes:
        attack: Name of the attack.
        source: Model that the adversarial images were made on.
        target: Model that they were shown to.
        n: Images that are counted and initially correct.
        flipped: How many of them flip at some budget.
        rho: Spearman's correlation of initial confidence and smallest flipping budget; above 0
            supports the hypothesis.
        rho_low: Lower end of its 95 % interval.
        rho_high: Upper end.
        rho_p: Its two-sided p-value.
        eps_255: Tried budget whose flipped share is nearest to one half, in units of 1/255.
        flipped_at_eps: How many images are flipped there.
        odds_ratio: By what the odds of that are multiplied when the initial confidence is 0.10
            higher; below 1 supports the hypothesis.
        odds_ratio_low: Lower end of its 95 % interval.
        odds_ratio_high: Upper end.
        odds_p: Its two-sided p-value (Wald).
        verdict: `supported`: the interval of rho lies above 0, and that of the odds ratio, where
            there is one, not above 1; `contradicted`: the opposite; else `undecided`.
        sentence: All of this in words.
    """

    attack: str
    source: str
    target: str
    n: int
    flipped: int
    rho: float
    rho_low: float
    rho_high: float
    rho_p: float
    eps_255: float
    flipped_at_eps: int
    odds_ratio: float
    odds_ratio_low: float
    odds_ratio_high: float
    odds_p: float
    verdict: str
    sentence: str
