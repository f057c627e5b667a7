"""Single images over the budgets: typical ones, flips, dips, bounces and gains in confidence."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from ..utils.model_names import ModelRef
from .intervals import Values
from .outcomes import JobOutcomes, Mask, job_outcomes

KINDS: dict[str, str] = {
    "dip_and_recovery": "keeps its class, confidence dips and recovers",
    "bounce_back": "loses its class, correct at a larger budget",
    "ends_more_confident_wrong": "wrong, more confident than clean, at largest budget",
    "below_8_bits": "loses its class at a budget below 1/255",
}
"""Descriptions of the kinds of images, each a boolean column of `trajectories`.

Attacks in L2 have no `below_8_bits`, because an L2 budget does not bound the change of a pixel.
"""

NEVER = "never_flips"
"""Kind of the images that keep the true class at all budgets."""
SMALLEST_8_BIT_STEP = 1.0
"""Smallest change of a value that an 8-bit image can hold, in units of 1/255."""
LEAST_DIP = 0.05
"""Smallest drop in confidence that counts as a dip."""
LEAST_RECOVERY = 0.5
"""Smallest share of a dip that a recovery regains."""

_ROUNDING = 1e-6  # rounding error in a difference of float32 confidences

_CLEAREST = {
    NEVER: lambda rows: rows["lowest_confidence"],
    "dip_and_recovery": lambda rows: rows["recovered_confidence"] - rows["lowest_confidence"],
    "bounce_back": lambda rows: rows["initial_confidence"],
    "ends_more_confident_wrong": lambda rows: rows["end_confidence"] - rows["initial_confidence"],
    "below_8_bits": lambda rows: -rows["first_flip_eps_255"],
}


def trajectories(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
    norm: str = "linf",
) -> pd.DataFrame:
    """Describe how each counted, initially correct image changes over the budgets.

    An image flips when it gets any class but the true one, for targeted attacks too. The arguments
    and the errors are as for `rates`.

    Returns:
        One row per target and image, in the order of `targets` and by index:

        - `target`, `index`, `label`, `initial_confidence`;
        - `first_flip_eps_255`: the smallest tried budget that flips the image; NaN if it never
          flips;
        - `lowest_confidence` and `lowest_eps_255`: the lowest probability of the true class over
          the tried budgets above 0, and the smallest budget that has it;
        - `recovered_confidence`: the highest such probability above `lowest_eps_255`, or NaN;
        - `back_eps_255`: the smallest budget above the first flip at which the image is
          correct again, or NaN;
        - `end_confidence`: the confidence of a wrong prediction at the largest budget, or NaN;
        - `dip_and_recovery`: the image never flips, its lowest confidence is at least 0.05 below
          the initial one, and the recovered confidence regains at least half of that;
        - `bounce_back`: `back_eps_255` exists;
        - `ends_more_confident_wrong`: `end_confidence` exceeds the initial confidence;
        - `below_8_bits`, only for `norm` `linf`: the image flips below 1/255.
    """
    result = job_outcomes(predictions, source, list(map(ModelRef.parse, targets)), protocol)
    counted = result.counted & result.target_clean
    numbers = {name: values[counted] for name, values in _numbers(result).items()}
    target, image = np.nonzero(counted)
    names = {"target": pd.Index(targets).take(target), "index": result.index[image]}
    table = pd.DataFrame({**names, "label": result.label[image], **numbers})
    kinds = _kinds(table)
    if norm != "linf":
        del kinds["below_8_bits"]
    return table.assign(**kinds)


def by_kind(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of `trajectories` of `NEVER` and of each of `KINDS`, the clearest first.

    The clearest image keeps most confidence at its lowest, regains most after its dip, bounces back
    from the highest initial confidence, gains most confidence, or has the smallest minimum
    adversarial budget. The smaller index wins ties.
    """
    rows = {NEVER: table[table["first_flip_eps_255"].isna()]}
    rows |= {kind: table[table[kind]] for kind in KINDS if kind in table}
    return {
        kind: kind_rows.iloc[np.lexsort((kind_rows["index"], -_CLEAREST[kind](kind_rows)))]
        for kind, kind_rows in rows.items()
    }


def typical_images(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str
) -> dict[tuple[str, float], int]:
    """Return the counted image that is fooled with the median confidence, by target and budget.

    Confidences are compared in whole percent, as readers see them; the smaller index comes first.
    The arguments are as for `rates`.
    """
    result = job_outcomes(predictions, source, list(map(ModelRef.parse, targets)), protocol)
    fooled = result.denominator & result.success
    shares = np.rint(100 * result.confidence)
    typical = {}
    for (row, target), (place, eps) in product(enumerate(targets), enumerate(result.eps_255)):
        (images,) = fooled[row, :, place].nonzero()
        if eps > 0 and len(images):
            ordered = images[np.argsort(shares[row, images, place], kind="stable")]
            typical[target, float(eps)] = int(result.index[ordered[(len(ordered) - 1) // 2]])
    return typical


def flip_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the minimum adversarial budgets per target, from rows of `trajectories`.

    Returns:
        One row per target: the number of `initially_correct` images, `flipped` (how many flip at
        some budget), `flipped_share`, `median_first_flip_eps_255` (the budget by which half of the
        images have flipped, NaN if fewer ever do) and, only for `linf`, the number `below_8_bits`.
    """
    never_last = table["first_flip_eps_255"].fillna(np.inf)
    groups = table.assign(never_last=never_last).groupby("target", sort=False)
    summary = groups.size().rename("initially_correct").to_frame()
    summary["flipped"] = groups["first_flip_eps_255"].count()
    summary["flipped_share"] = summary["flipped"] / summary["initially_correct"]
    median = groups["never_last"].quantile(0.5, interpolation="lower")
    summary["median_first_flip_eps_255"] = median.where(median < np.inf)
    if "below_8_bits" in table:
        summary["below_8_bits"] = groups["below_8_bits"].sum()
    return summary.reset_index()


def _numbers(result: JobOutcomes) -> dict[str, Values]:
    """Compute the numeric columns of `trajectories`, each of shape (T, N)."""
    eps = result.eps_255
    tried = result.present & (eps > 0)
    wrong = tried & ~result.correct
    true_confidence = np.where(tried, result.true_confidence, np.nan)
    lowest = np.fmin.reduce(true_confidence, axis=2)
    lowest_eps = _first_budget(true_confidence == lowest[:, :, None], eps)
    after = eps > lowest_eps[:, :, None]
    has_flipped = np.logical_or.accumulate(wrong, axis=2)
    return {
        "initial_confidence": result.confidence[:, :, 0],
        "first_flip_eps_255": _first_budget(wrong, eps),
        "lowest_confidence": lowest,
        "lowest_eps_255": lowest_eps,
        "recovered_confidence": np.fmax.reduce(np.where(after, true_confidence, np.nan), axis=2),
        "back_eps_255": _first_budget(has_flipped & tried & ~wrong, eps),
        "end_confidence": np.where(wrong, result.confidence, np.nan)[:, :, -1],
    }


def _kinds(table: pd.DataFrame) -> dict[str, pd.Series]:
    first, initial = table["first_flip_eps_255"], table["initial_confidence"]
    dip = initial - table["lowest_confidence"]
    regained = table["recovered_confidence"] - table["lowest_confidence"]
    recovers = regained >= LEAST_RECOVERY * dip - _ROUNDING
    return {
        "dip_and_recovery": first.isna() & (dip >= LEAST_DIP - _ROUNDING) & recovers,
        "bounce_back": table["back_eps_255"].notna(),
        "ends_more_confident_wrong": table["end_confidence"] > initial,
        "below_8_bits": first < SMALLEST_8_BIT_STEP,
    }


def _first_budget(mask: Mask, eps: Values) -> Values:
    """Return the smallest budget where the mask (T, N, K) is True, shape (T, N), or NaN."""
    return np.where(mask.any(axis=2), eps[mask.argmax(axis=2)], np.nan)
