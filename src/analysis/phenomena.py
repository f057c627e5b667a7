"""What becomes of single images over the budgets: flips, dips, bounces, gains in confidence."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.confidence_bins import Budgets, bin_highs, bin_lows, by_budget
from src.analysis.exploration import need_columns, top_values
from src.analysis.flips import SMALLEST_8_BIT_STEP
from src.analysis.intervals import wilson_interval
from src.analysis.rates import ratio
from src.checks import check_choice, check_whole_number

KINDS: dict[str, str] = {
    "never_flips": "keeps its class at every budget",
    "dip_and_recovery": "keeps its class, confidence dips and recovers",
    "bounce_back": "loses its class, right at a larger budget",
    "more_confident_wrong": "wrong, surer than clean, at some budget",
    "ends_more_confident_wrong": "wrong, surer than clean, at largest budget",
    "below_8_bits": "loses its class at a budget below 1/255",
}
"""Kinds of images, each a boolean column of `phenomena`, with what readers call them.

No 8-bit image holds a change below 1/255; of a budget that is true for L-infinity alone, so that
attacks in L2 have no `below_8_bits`.
"""

LEAST_DIP = 0.05
"""How far the confidence must fall to count as a dip."""
LEAST_RECOVERY = 0.5
"""The share of a dip that a recovery regains."""

_ROUNDING = 1e-6  # what float32 may take from a difference of confidences

# Which images tell most of a kind: the order of a gallery, largest first.
_TELLING = {
    "never_flips": lambda table: table["lowest_confidence"],
    "dip_and_recovery": lambda table: table["recovered_confidence"] - table["lowest_confidence"],
    "bounce_back": lambda table: table["initial_confidence"],
    "more_confident_wrong": lambda table: table["wrong_confidence"] - table["initial_confidence"],
    "ends_more_confident_wrong": lambda table: (
        table["end_confidence"] - table["initial_confidence"]
    ),
    "below_8_bits": lambda table: -table["first_flip_eps_255"],
}


def phenomena(
    predictions: pd.DataFrame,
    source: str,
    target: str,
    protocol: str = "joint",
    flips: pd.DataFrame | None = None,
    norm: str = "linf",
) -> pd.DataFrame:
    """Describe the way of every initially correct image over the budgets.

    A flip is any class but the true one, for targeted attacks too; the smallest flipping budget is
    where the first one was found, and some images are right again beyond it (`bounce_back`).

    Args:
        predictions: Predictions of a job, clean rows of the target included; with
            `top5_confidences`, the gaps are filled in.
        source: Model that the adversarial images were made on.
        target: Model that they were shown to.
        protocol: Which images are counted, as in `rates`; of them only those that the target
            classifies correctly when clean.
        flips: Flipping budgets refined between the tried ones, with `index`, `target`,
            `eps_255`, `confidence` and `top5_confidences`. They take the place of the first
            flips and of what was seen there. A row is passed over where the predictions flip at
            a smaller budget (they may be those of rounded images).
        norm: Of the budgets, `linf` or `l2`.

    Returns:
        One row per image, by index:

        - `index`, `label`, `initial_confidence`;
        - `first_flip_eps_255` (the smallest flipping budget; NaN if it never flips),
          `flip_confidence` (probability of the wrong class there), `gap_1_2` and `gap_2_3`
          (between the first and second, and the second and third of the top five there);
        - `lowest_confidence` and `lowest_eps_255`: the lowest probability of the true class over
          the tried budgets above 0, and the smallest budget that has it;
        - `recovered_confidence`: the highest probability of the true class at a tried budget
          above `lowest_eps_255`; NaN if there is none;
        - `back_eps_255`: the smallest tried budget above the first tried flip where it is right
          again; NaN if there is none;
        - `wrong_confidence` and `wrong_eps_255`: the highest confidence in a wrong prediction
          over the tried budgets, and the smallest budget that has it; `end_confidence`: that at
          the largest budget; NaN where it is not wrong;
        - `never_flips`;
        - `dip_and_recovery`: never flips, its lowest confidence is at least 0.05 below the
          initial one, and the recovered one regains at least half of that;
        - `bounce_back`: `back_eps_255` exists;
        - `more_confident_wrong`: `wrong_confidence` exceeds the initial confidence;
        - `ends_more_confident_wrong`: `end_confidence` does;
        - `below_8_bits`, for `linf` alone: flips below 1/255.

    Raises:
        ValueError: As `rates`, or if `flips` has two rows of an image.
    """
    grid = by_budget(predictions, source, target, protocol)
    table = pd.DataFrame(
        {"index": grid.image, "label": grid.label, "initial_confidence": grid.initial}
    )
    _add_flips(table, grid, predictions, target, flips)
    _add_lowest(table, grid)
    has_flipped = np.logical_or.accumulate(grid.wrong, axis=1)
    table["back_eps_255"] = _first_eps(grid, has_flipped & grid.tried & ~grid.wrong)
    _add_wrong(table, grid)
    initial = table["initial_confidence"]
    dip = initial - table["lowest_confidence"]
    regained = table["recovered_confidence"] - table["lowest_confidence"]
    table["never_flips"] = table["first_flip_eps_255"].isna()
    table["dip_and_recovery"] = (
        table["never_flips"]
        & (dip >= LEAST_DIP - _ROUNDING)
        & (regained >= LEAST_RECOVERY * dip - _ROUNDING)
    )
    table["bounce_back"] = table["back_eps_255"].notna()
    table["more_confident_wrong"] = table["wrong_confidence"] > initial
    table["ends_more_confident_wrong"] = table["end_confidence"] > initial
    if norm == "linf":
        table["below_8_bits"] = table["first_flip_eps_255"] < SMALLEST_8_BIT_STEP
    return table


def kind_shares(table: pd.DataFrame, width: float = 0.1) -> pd.DataFrame:
    """Count the images of each kind by initial confidence.

    Args:
        table: Result of `phenomena`, or several of them below each other.
        width: Width of the bins of initial confidence, as in `by_initial_confidence`.

    Returns:
        One row per bin that has images (highest first) and kind: `bin_low`, `bin_high`, `n`
        (images of the bin), `kind`, `images` (of that kind), `share` of the n and its 95 %
        Wilson interval `share_low` and `share_high`.

    Raises:
        ValueError: If a column is missing, or for a width that cannot be.
    """
    kinds = _kinds(table)
    need_columns(table, ["initial_confidence", *kinds], "phenomena")
    lows, group = np.unique(bin_lows(table["initial_confidence"], width), return_inverse=True)
    n = np.bincount(group, minlength=len(lows))
    images = np.stack(
        [np.bincount(group, weights=table[kind], minlength=len(lows)) for kind in kinds], axis=1
    )[::-1].astype(np.int64)
    shares = pd.DataFrame({"bin_low": np.repeat(lows[::-1], len(kinds))})
    shares["bin_high"] = bin_highs(shares["bin_low"].to_numpy(), width)
    shares["n"] = np.repeat(n[::-1], len(kinds))
    shares["kind"] = kinds * len(lows)
    shares["images"] = images.ravel()
    return _with_share(shares)


def kind_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise each kind of image.

    The gaps are those at the smallest flipping budget. Bisection moves that to just beyond the
    boundary of two classes, so that the first gap shrinks by construction.

    Args:
        table: Result of `phenomena`, or several of them below each other.

    Returns:
        One row per kind of the table, in the order of `KINDS`: `kind`, `images`, `n` (all
        images), `share` and its 95 % Wilson interval `share_low` and `share_high`, and the medians
        over the images of the kind `median_initial_confidence`, `median_gap_1_2`, `median_gap_2_3`
        (NaN without images, or where no image has the gap).

    Raises:
        ValueError: If a column is missing.
    """
    kinds = _kinds(table)
    need_columns(table, ["initial_confidence", "gap_1_2", "gap_2_3", *kinds], "phenomena")
    summary = pd.DataFrame({"kind": kinds})
    summary["images"] = [int(table[kind].sum()) for kind in kinds]
    summary["n"] = len(table)
    summary = _with_share(summary)
    for column in ("initial_confidence", "gap_1_2", "gap_2_3"):
        summary[f"median_{column}"] = [
            _median(table.loc[table[kind].astype(bool), column]) for kind in kinds
        ]
    return summary


def gallery(table: pd.DataFrame, kind: str, count: int = 3) -> pd.DataFrame:
    """Choose the images that show a kind best, by a rule instead of by hand.

    First comes, of `never_flips`, the image with the highest lowest confidence; of
    `dip_and_recovery`, the one that regains most after its dip; of `bounce_back`, the one with
    the highest initial confidence; of `more_confident_wrong` and `ends_more_confident_wrong`,
    the one whose confidence gains most over the initial one (over the budgets, and at the
    largest one); of `below_8_bits`, the one with the smallest flipping budget. Of equal ones the
    smaller index comes first.

    Args:
        table: Result of `phenomena`.
        kind: One of `KINDS` that the table has.
        count: How many images at most, at least 1.

    Returns:
        Those rows of the table.

    Raises:
        ValueError: For an unknown kind or a count below 1, or if a column is missing.
    """
    check_choice("kind", kind, KINDS)
    check_whole_number("count", count, 1)
    need_columns(table, ["index", "initial_confidence", kind, *_kinds(table)], "phenomena")
    chosen = table[table[kind].astype(bool)]
    order = np.lexsort((chosen["index"].to_numpy(), -_TELLING[kind](chosen).to_numpy()))
    return chosen.iloc[order[:count]].reset_index(drop=True)


def _kinds(table: pd.DataFrame) -> list[str]:
    """Return the kinds that a table has to tell of."""
    return [kind for kind in KINDS if kind != "below_8_bits" or kind in table.columns]


def _add_flips(
    table: pd.DataFrame,
    grid: Budgets,
    predictions: pd.DataFrame,
    target: str,
    flips: pd.DataFrame | None,
) -> None:
    """Add the smallest flipping budget and what was seen there."""
    first = _first_eps(grid, grid.wrong)
    flipped = np.flatnonzero(~np.isnan(first))
    column = grid.wrong[flipped].argmax(axis=1) if len(flipped) else np.zeros(0, dtype=np.intp)
    confidence = np.full(len(first), np.nan)
    confidence[flipped] = grid.confidence[flipped, column]
    gaps = np.full((len(first), 2), np.nan)
    if "top5_confidences" in predictions.columns:
        mine = np.flatnonzero((predictions["target"] == target).to_numpy())
        seen = predictions["top5_confidences"].iloc[mine[grid.row[flipped, column]]]
        gaps[flipped] = _gaps(seen)
    if flips is not None:
        place, seen_there = _refined(flips, grid, target, first)
        first[place] = seen_there["eps_255"].to_numpy(dtype=np.float64)
        confidence[place] = seen_there["confidence"].to_numpy(dtype=np.float64)
        if "top5_confidences" in seen_there.columns:
            gaps[place] = _gaps(seen_there["top5_confidences"])
    table["first_flip_eps_255"], table["flip_confidence"] = first, confidence
    table["gap_1_2"], table["gap_2_3"] = gaps.T


def _refined(
    flips: pd.DataFrame, grid: Budgets, target: str, first: NDArray[np.float64]
) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Return the refined flips that do not exceed the tried ones, and where those are."""
    need_columns(flips, ["index", "target", "eps_255", "confidence"], "flips")
    rows = flips[(flips["target"] == target).to_numpy()]
    repeated = rows["index"].duplicated()
    if repeated.any():
        index = rows.loc[repeated, "index"].iloc[0]
        raise ValueError(f"the flips table has several rows of image {index} on '{target}'.")
    place = pd.Index(grid.image).get_indexer(pd.Index(rows["index"]))
    rows, place = rows[place >= 0], place[place >= 0]
    earlier = ~(rows["eps_255"].to_numpy() > first[place])  # also where none tried flips
    return place[earlier], rows[earlier]


def _add_lowest(table: pd.DataFrame, grid: Budgets) -> None:
    """Add where the true class is least likely, and how far it comes back afterwards."""
    lowest, table["lowest_eps_255"] = _extreme(grid, -grid.true_confidence)
    table["lowest_confidence"] = -lowest
    later = grid.eps > table["lowest_eps_255"].to_numpy()[:, None]
    table["recovered_confidence"], _ = _extreme(grid, np.where(later, grid.true_confidence, np.nan))


def _add_wrong(table: pd.DataFrame, grid: Budgets) -> None:
    """Add where a wrong class has the highest confidence, and what it has at the end."""
    wrong = np.where(grid.wrong, grid.confidence, np.nan)
    table["wrong_confidence"], table["wrong_eps_255"] = _extreme(grid, wrong)
    table["end_confidence"] = wrong[:, -1] if len(grid.eps) else np.nan


def _extreme(
    grid: Budgets, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each image's largest value and the smallest budget that has it; NaN are left out."""
    known = ~np.isnan(values)
    some = known.any(axis=1)
    if not some.any():
        nothing = np.full(len(values), np.nan)
        return nothing, nothing.copy()
    column = np.where(known, values, -np.inf).argmax(axis=1)
    largest = values[np.arange(len(values)), column]
    return np.where(some, largest, np.nan), np.where(some, grid.eps[column], np.nan)


def _first_eps(grid: Budgets, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each image's smallest budget where the mask holds; NaN if it nowhere does."""
    if not mask.any():
        return np.full(len(mask), np.nan)
    return np.where(mask.any(axis=1), grid.eps[mask.argmax(axis=1)], np.nan)


def _gaps(top5_confidences: pd.Series) -> NDArray[np.float64]:
    """Return how far the first stands above the second, and the second above the third."""
    top = top_values(top5_confidences)
    return -np.diff(top[:, :3], axis=1)


def _with_share(counts: pd.DataFrame) -> pd.DataFrame:
    images, n = counts["images"].to_numpy(), counts["n"].to_numpy()
    low, high = wilson_interval(images, n)
    return counts.assign(share=ratio(images, n), share_low=low, share_high=high)


def _median(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.median()) if len(known) else float("nan")
