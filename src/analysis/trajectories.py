"""Single images over the budgets: flips, dips, bounces, gains in confidence."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.outcomes import Mask, Outcomes, initially_correct, outcomes, row_positions
from src.analysis.transfer_rates import ratio

KINDS: dict[str, str] = {
    "dip_and_recovery": "keeps its class, confidence dips and recovers",
    "bounce_back": "loses its class, correct at a larger budget",
    "ends_more_confident_wrong": "wrong, more confident than clean, at largest budget",
    "below_8_bits": "loses its class at a budget below 1/255",
}
"""Kinds of images, each a boolean column of `trajectories`, with their descriptions.

No 8-bit image holds a change below 1/255; of a budget that is true for L-infinity alone, so that
attacks in L2 have no `below_8_bits`.
"""

SMALLEST_8_BIT_STEP = 1.0
"""In units of 1/255: an 8-bit image that differs at all differs by this much somewhere."""
LEAST_DIP = 0.05
"""How far the confidence must fall to count as a dip."""
LEAST_RECOVERY = 0.5
"""The share of a dip that a recovery regains."""

Values = NDArray[np.float64]

_ROUNDING = 1e-6  # what float32 may take from a difference of confidences

# The clearest images of a kind: the order of a gallery, largest first.
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

    Args:
        predictions: Predictions of a job, clean rows of the targets included.
        source: Model that the adversarial images were crafted on.
        targets: Models that they were evaluated on.
        protocol: Which images are counted, as in `rates`; of them only those that the target
            classifies correctly when clean.
        flips: Minimum adversarial budgets found between the tried ones, one row per (index,
            target), with `eps_255`. They take the place of the tried ones, but where the
            predictions flip at a smaller budget (they may be those of rounded images).
        norm: Of the budgets, `linf` or `l2`.

    Returns:
        One row per target and image, in the order of `targets` and by index:

        - `target`, `index`, `label`, `initial_confidence`;
        - `first_flip_eps_255`: the minimum adversarial budget; NaN if it never flips;
        - `lowest_confidence` and `lowest_eps_255`: the lowest probability of the true class over
          the tried budgets above 0, and the smallest budget that has it;
        - `recovered_confidence`: the highest probability of the true class at a tried budget
          above `lowest_eps_255`; NaN if there is none;
        - `back_eps_255`: the smallest tried budget above the first tried flip where it is
          correct again; NaN if there is none;
        - `end_confidence`: that in a wrong prediction at the largest budget; NaN if it is correct;
        - `dip_and_recovery`: never flips, its lowest confidence is at least 0.05 below the
          initial one, and the recovered one regains at least half of that;
        - `bounce_back`: `back_eps_255` exists;
        - `ends_more_confident_wrong`: `end_confidence` exceeds the initial confidence;
        - `below_8_bits`, for `linf` alone: flips below 1/255.

    Raises:
        ValueError: As `rates`, or the clean rows of a target lack.
    """
    found = outcomes(predictions, source, targets, protocol)
    kept, eps = initially_correct(found), found.eps_255
    tried = found.present & (eps > 0)
    wrong = tried & ~found.correct
    initial = found.confidence[:, :, 0]
    first = _refined(found, _first_budget(wrong, eps), flips)
    columns = {"initial_confidence": initial, "first_flip_eps_255": first}
    true_confidence = np.where(tried, found.true_confidence, np.nan)
    lowest = np.fmin.reduce(true_confidence, axis=2)
    lowest_eps = _first_budget(true_confidence == lowest[:, :, None], eps)
    columns |= {"lowest_confidence": lowest, "lowest_eps_255": lowest_eps}
    after = eps > lowest_eps[:, :, None]
    recovered = np.fmax.reduce(np.where(after, true_confidence, np.nan), axis=2)
    columns["recovered_confidence"] = recovered
    has_flipped = np.logical_or.accumulate(wrong, axis=2)
    columns["back_eps_255"] = _first_budget(has_flipped & tried & ~wrong, eps)
    columns["end_confidence"] = np.where(wrong, found.confidence, np.nan)[:, :, -1]
    dip = initial - lowest
    kinds = {
        "dip_and_recovery": np.isnan(first)
        & (dip >= LEAST_DIP - _ROUNDING)
        & (recovered - lowest >= LEAST_RECOVERY * dip - _ROUNDING),
        "bounce_back": ~np.isnan(columns["back_eps_255"]),
        "ends_more_confident_wrong": columns["end_confidence"] > initial,
    }
    if norm == "linf":
        kinds["below_8_bits"] = first < SMALLEST_8_BIT_STEP
    values = {name: array[kept] for name, array in (columns | kinds).items()}
    return _images(found, kept).assign(**values)


def galleries(table: pd.DataFrame, count: int = 2) -> dict[str, pd.DataFrame]:
    """Choose the images that show each kind best, by a rule instead of by hand.

    First comes, of `dip_and_recovery`, the image that regains most after its dip; of
    `bounce_back`, the one with the highest initial confidence; of `ends_more_confident_wrong`,
    the one whose confidence gains most over the initial one; of `below_8_bits`, the one with the
    smallest minimum adversarial budget. Of equal ones the smaller index comes first.

    Args:
        table: Rows of `trajectories` of one target.
        count: How many images of a kind at most.

    Returns:
        Those rows of the table, by kind.
    """
    chosen = {}
    for kind in [kind for kind in KINDS if kind in table]:
        rows = table[table[kind]]
        order = np.lexsort((rows["index"].to_numpy(), -_CLEAREST[kind](rows).to_numpy()))
        chosen[kind] = rows.iloc[order[:count]].reset_index(drop=True)
    return chosen


def first_flips(
    table: pd.DataFrame, rounded: pd.DataFrame | None = None, norm: str = "linf"
) -> pd.DataFrame:
    """Find each image's minimum adversarial budget among the tried ones (see `trajectories`).

    Args:
        table: Predictions of the attack, clean rows included. Models that were evaluated on
            clean images alone are passed over.
        rounded: Predictions of the same adversarial images stored with 8 bits.
        norm: Of the budgets, `linf` or `l2`.

    Returns:
        One row per (target, index) of the images that the target classifies correctly when
        clean, in the table's order of targets and by index, with `label`, `first_flip_eps_255`
        (NaN if it never flips), `below_8_bits` (it is below 1/255, so that no 8-bit image can
        hold it; missing for `l2`, whose budgets allow single pixels more) and `flips_at_8_bits`
        (nullable: whether the 8-bit image of that same budget flips too; missing if the image
        never flips or `rounded` is None).

    Raises:
        ValueError: As `rates`.
    """
    targets = list(table.loc[table["eps_255"] != 0, "target"].unique())
    found = outcomes(table, "", targets, "target_correct")
    assert found.target_clean is not None  # the protocol needs it
    wrong = found.present & ~found.correct & (found.eps_255 > 0)
    images = _images(found, found.target_clean)
    first = _first_budget(wrong, found.eps_255)[found.target_clean]
    images["first_flip_eps_255"] = first
    unknown = pd.array([pd.NA] * len(images), dtype="boolean")
    images["below_8_bits"] = first < SMALLEST_8_BIT_STEP if norm == "linf" else unknown
    images["flips_at_8_bits"] = unknown
    flipped = ~np.isnan(first)
    if rounded is not None and flipped.any():
        stored = row_positions(rounded, targets, found.index, found.eps_255)
        place = wrong.argmax(axis=2)[:, :, None]
        row = np.take_along_axis(stored, place, axis=2)[found.target_clean, 0][flipped]
        still = rounded["predicted"].to_numpy()[row] == images.loc[flipped, "label"].to_numpy()
        images.loc[flipped, "flips_at_8_bits"] = ~still
    return images


def flip_summary(flips: pd.DataFrame) -> pd.DataFrame:
    """Summarise first flips by target.

    Args:
        flips: Result of `first_flips`.

    Returns:
        One row per target with the counts `initially_correct`, `flipped` (at some tried budget,
        whatever becomes of the image at larger ones), `below_8_bits` (missing where the flips
        are) and `flips_at_8_bits` (missing without 8-bit predictions); `flipped_share` of the
        initially correct; `below_8_bits_share` and `flips_at_8_bits_share` of the flipped; and
        `median_first_flip_eps_255`, the smallest tried budget by which at least half of the
        initially correct images have flipped, NaN if fewer ever do. (It is the Kaplan-Meier
        median: the median of the flipped images alone would look the smaller the fewer flip.)
    """
    groups = flips.groupby("target", sort=False)
    summary = groups.size().rename("initially_correct").to_frame()
    summary["flipped"] = groups["first_flip_eps_255"].count()
    never = flips["first_flip_eps_255"].fillna(np.inf).groupby(flips["target"], sort=False)
    median = never.quantile(0.5, interpolation="lower")
    summary["median_first_flip_eps_255"] = median.where(median < np.inf)
    summary["below_8_bits"] = groups["below_8_bits"].sum(min_count=1)
    known = groups["flips_at_8_bits"].count()
    unknown = not flips["flips_at_8_bits"].notna().any() and bool(summary["flipped"].any())
    survivors = groups["flips_at_8_bits"].sum().astype("Int64")
    summary["flips_at_8_bits"] = survivors.mask(unknown | known.lt(summary["flipped"]))
    flipped = summary["flipped"].to_numpy()
    summary["flipped_share"] = ratio(flipped, summary["initially_correct"].to_numpy())
    for name in ("below_8_bits", "flips_at_8_bits"):
        counts = summary[name].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        summary[f"{name}_share"] = ratio(counts, flipped)
    return summary.reset_index()


def _images(found: Outcomes, kept: Mask) -> pd.DataFrame:
    """Return `target`, `index` and `label` of the pairs that a mask (T, N) keeps."""
    target, image = np.nonzero(kept)
    names = pd.Index(found.targets).take(target)
    return pd.DataFrame({"target": names, "index": found.index[image], "label": found.label[image]})


def _refined(found: Outcomes, first: Values, flips: pd.DataFrame | None) -> Values:
    """Return minimum budgets (T, N), in the place of tried ones where they are not larger."""
    if flips is None or flips.empty:
        return first
    row = row_positions(flips.assign(eps_255=0.0), found.targets, found.index, [0.0])[:, :, 0]
    known = np.where(row >= 0, flips["eps_255"].to_numpy(np.float64)[row], np.nan)
    return np.fmin(first, known)


def _first_budget(mask: Mask, eps: Values) -> Values:
    """Return the smallest budget where the mask (T, N, K) holds, (T, N); NaN if it nowhere does."""
    return np.where(mask.any(axis=2), eps[mask.argmax(axis=2)], np.nan)
