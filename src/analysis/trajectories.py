"""Single images over the budgets: flips, dips, bounces, gains in confidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from src.analysis.intervals import Values
from src.analysis.outcomes import Mask, Outcomes, outcomes, row_positions
from src.utils.defended_names import Evaluated

KINDS: dict[str, str] = {
    "dip_and_recovery": "keeps its class, confidence dips and recovers",
    "bounce_back": "loses its class, correct at a larger budget",
    "ends_more_confident_wrong": "wrong, more confident than clean, at largest budget",
    "below_8_bits": "loses its class at a budget below 1/255",
}
"""Kinds of images, each a boolean column of `trajectories`, with their descriptions.

No 8-bit image holds a change below 1/255. An L2 budget does not bound the largest
change: attacks in L2 have no `below_8_bits`.
"""

SMALLEST_8_BIT_STEP = 1.0
"""Smallest change of a value that an 8-bit image can hold, in units of 1/255."""
LEAST_DIP = 0.05
"""Smallest fall of the confidence that counts as a dip."""
LEAST_RECOVERY = 0.5
"""Smallest share of a dip that a recovery regains."""
IN_GALLERY = 2
"""Largest number of images of a kind and target in a gallery."""

_ROUNDING = 1e-6  # error of a difference of float32 confidences

_CLEAREST = {
    "dip_and_recovery": lambda table: table["recovered_confidence"] - table["lowest_confidence"],
    "bounce_back": lambda table: table["initial_confidence"],
    "ends_more_confident_wrong": lambda table: (
        table["end_confidence"] - table["initial_confidence"]
    ),
    "below_8_bits": lambda table: -table["first_flip_eps_255"],
}


def trajectories(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
    flips: pd.DataFrame | None = None,
    norm: str = "linf",
) -> pd.DataFrame:
    """Describe every initially correct image over the budgets.

    A flip is any class but the true one, for targeted attacks too. The minimum adversarial budget
    is the smallest at which one was found: one crossing of the boundary, beyond which some images
    are correct again (`bounce_back`), while smaller ones between the tried may flip too.

    The arguments and the errors are those of `rates`; of the images counted only those are
    described that the target classifies correctly when clean. `flips` holds minimum budgets found
    by bisection, which take the place of larger tried ones; images without one are left out.

    Returns:
        One row per target and image, in the order of `targets` and by index:

        - `target`, `index`, `label`, `initial_confidence`;
        - `first_flip_eps_255`: the minimum adversarial budget; NaN if it never flips;
        - `lowest_confidence` and `lowest_eps_255`: the lowest probability of the true class over
          the tried budgets above 0, and the smallest budget that has it;
        - `recovered_confidence`: its highest value above `lowest_eps_255`, or NaN;
        - `back_eps_255`: the smallest budget above the first tried flip where the image is
          correct again, or NaN;
        - `end_confidence`: that in a wrong prediction at the largest budget, or NaN;
        - `dip_and_recovery`: never flips, its lowest confidence is at least 0.05 below the
          initial one, and the recovered one regains at least half of that;
        - `bounce_back`: `back_eps_255` exists;
        - `ends_more_confident_wrong`: `end_confidence` exceeds the initial confidence;
        - `below_8_bits`, for `norm` `linf` alone: flips below 1/255.
    """
    found = outcomes(predictions, source, list(map(Evaluated, targets)), protocol)
    kept = found.counted & found.target_clean
    columns = _numbers(found)
    if flips is not None and len(flips):
        first = columns["first_flip_eps_255"]
        kept, columns["first_flip_eps_255"] = _refined(found, kept, first, flips)
    numbers = {name: values[kept] for name, values in columns.items()}
    target, image = np.nonzero(kept)
    names = {"target": pd.Index(targets).take(target), "index": found.index[image]}
    table = pd.DataFrame({**names, "label": found.label[image], **numbers})
    kinds = _kinds(table)
    if norm != "linf":
        del kinds["below_8_bits"]
    return table.assign(**kinds)


def galleries(table: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows of `trajectories` that show each kind best, two a target.

    First comes the image that regains most after its dip, that bounces back from the highest
    initial confidence, that gains most confidence, or that has the smallest minimum adversarial
    budget; of equal ones the smaller index.

    Returns:
        Rows with a column `kind`, in the order of `KINDS`.
    """
    chosen = []
    for kind in (kind for kind in KINDS if kind in table):
        rows = table[table[kind]]
        order = np.lexsort((rows["index"], -_CLEAREST[kind](rows)))
        best = rows.iloc[order].groupby("target", sort=False, observed=True).head(IN_GALLERY)
        chosen.append(best.assign(kind=kind))
    return pd.concat(chosen)


def moments(kind: str, row: Mapping[Any, Any], largest: float) -> list[tuple[float, str]]:
    """Return the budgets that show an image of a kind, with what they are in words.

    The row is one of `galleries`, `largest` the largest budget that was tried.
    """
    flip = (row["first_flip_eps_255"], "minimum adversarial budget")
    return {
        "dip_and_recovery": [(row["lowest_eps_255"], "lowest confidence")],
        "bounce_back": [flip, (row["back_eps_255"], "correct again")],
        "ends_more_confident_wrong": [(largest, "largest budget")],
        "below_8_bits": [flip],
    }[kind]


def flip_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the minimum adversarial budgets of each target, from rows of `trajectories`.

    Returns:
        One row per target with `initially_correct` images, `flipped` (how many flip at some
        budget) and its share `flipped_share`, `median_first_flip_eps_255`, the smallest budget by
        which at least half of them have flipped, NaN if fewer ever do (the Kaplan-Meier median),
        and, for `linf` alone, the number `below_8_bits`.
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


def _numbers(found: Outcomes) -> dict[str, Values]:
    """Return the numeric columns of `trajectories`, each of shape (T, N)."""
    eps = found.eps_255
    tried = found.present & (eps > 0)
    wrong = tried & ~found.correct
    true_confidence = np.where(tried, found.true_confidence, np.nan)
    lowest = np.fmin.reduce(true_confidence, axis=2)
    lowest_eps = _first_budget(true_confidence == lowest[:, :, None], eps)
    after = eps > lowest_eps[:, :, None]
    has_flipped = np.logical_or.accumulate(wrong, axis=2)
    return {
        "initial_confidence": found.confidence[:, :, 0],
        "first_flip_eps_255": _first_budget(wrong, eps),
        "lowest_confidence": lowest,
        "lowest_eps_255": lowest_eps,
        "recovered_confidence": np.fmax.reduce(np.where(after, true_confidence, np.nan), axis=2),
        "back_eps_255": _first_budget(has_flipped & tried & ~wrong, eps),
        "end_confidence": np.where(wrong, found.confidence, np.nan)[:, :, -1],
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


def _refined(
    found: Outcomes, kept: Mask, first: Values, flips: pd.DataFrame
) -> tuple[Mask, Values]:
    """Return the counted images, and minimum budgets in the place of larger tried ones, (T, N)."""
    row = row_positions(flips.assign(eps_255=0.0), found.targets, found.index, [0.0])[:, :, 0]
    if (kept & ~np.isnan(first) & (row < 0)).any():  # bisection covered a part of the images
        kept = kept & (row >= 0)
    known = np.where(row >= 0, flips["eps_255"].to_numpy(np.float64)[row], np.nan)
    return kept, np.fmin(first, known)


def _first_budget(mask: Mask, eps: Values) -> Values:
    """Return the smallest budget where the mask (T, N, K) holds, (T, N); NaN if it nowhere does."""
    return np.where(mask.any(axis=2), eps[mask.argmax(axis=2)], np.nan)
