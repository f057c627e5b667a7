"""Confidence by class, by rank, and over the budgets by initial confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import Values, wilson_interval
from src.analysis.outcomes import Mask, outcomes
from src.analysis.transfer_rates import ratio
from src.utils.defended_names import Evaluated

LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Levels of initial confidence, highest first."""
BIN_WIDTH = 0.05
"""Width of the levels of initial confidence."""

TOP_K = 5

_DIGITS = 7
"""Decimals to which confidences are compared with bounds: a float32 0.95 counts as 0.95."""


def by_class(clean: pd.DataFrame) -> pd.DataFrame:
    """Return the images, mean confidence and accuracy of one model's clean rows by true class.

    The rows are by falling confidence: `label`, `images`, `confidence` and `accuracy`.
    """
    rows = clean.assign(correct=clean["predicted"] == clean["label"])
    groups = rows.astype({"confidence": np.float64}).groupby("label")
    table = groups.agg(
        images=("correct", "size"), confidence=("confidence", "mean"), accuracy=("correct", "mean")
    ).reset_index()
    return table.sort_values(["confidence", "label"], ascending=[False, True], ignore_index=True)


def confidence_profiles(clean: pd.DataFrame) -> pd.DataFrame:
    """Average the five highest probabilities of one model's clean rows by initial confidence.

    An image belongs to a level of `LEVELS` if level - 0.025 <= initial confidence < level + 0.025.

    Returns:
        Five rows per level that has images: `level`, `rank` (1 is the predicted class), `images`
        and mean `confidence` at that rank; empty without a column `top5_confidences`.
    """
    if "top5_confidences" not in clean:
        return pd.DataFrame()
    top = top_values(clean["top5_confidences"])
    initial = clean["confidence"].to_numpy(np.float64).round(_DIGITS)
    parts = []
    for level in LEVELS:
        low, high = np.round([level - BIN_WIDTH / 2, level + BIN_WIDTH / 2], _DIGITS)
        chosen = top[(initial >= low) & (initial < high)]
        if len(chosen):
            part = pd.DataFrame({"level": level, "rank": np.arange(1, TOP_K + 1)})
            parts.append(part.assign(images=len(chosen), confidence=chosen.mean(axis=0)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def top_k(clean: pd.DataFrame) -> pd.DataFrame:
    """Return the top-1 and, with a column `top5_classes`, top-5 accuracy of one model's clean rows.

    Returns:
        A row per `k`: `n` images, `correct`, `accuracy` with its 95 % Wilson interval, and mean
        `confidence`: of the predicted class over all images (k = 1), of the true class over the
        images where it is among the five (k = 5).
    """
    among = {1: (clean["predicted"] == clean["label"]).to_numpy()}
    values = [clean["confidence"]]
    if "top5_classes" in clean:
        label = clean["label"].to_numpy(dtype=np.float64)
        among[TOP_K] = (top_values(clean["top5_classes"]) == label[:, None]).any(axis=1)
        values.append(clean.loc[among[TOP_K], "true_confidence"])
    correct = np.array([hits.sum() for hits in among.values()])
    n = np.full(len(among), len(clean))
    table = pd.DataFrame({"k": list(among), "n": n, "correct": correct})
    table["accuracy"] = ratio(correct, n)
    table["accuracy_low"], table["accuracy_high"] = wilson_interval(correct, n)
    table["confidence"] = [its.astype(np.float64).mean() for its in values]
    return table


def by_initial_confidence(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
    groups: int = 3,
) -> pd.DataFrame:
    """Follow initially correct images over the budgets, in groups by their initial confidence.

    Counted are the protocol's images that the target classifies correctly when clean. Each group
    has as many of a target's images as the others; equal confidences are in one group, so that
    some may be larger, or missing. Arguments and errors are those of `rates`.

    Returns:
        One row per target, group and budget (0 included), the highest confidence first: `target`,
        `group` (1 has the highest), `lowest` and `highest` initial confidence, `eps_255`, `n`
        images, `still_correct`, `robust_accuracy` and `confidence` with their 95 % intervals (see
        `wilson_interval`; at budget 0 no confidence leaves the group).
    """
    result = outcomes(predictions, source, list(map(Evaluated, targets)), protocol)
    arrays = (result.present, result.correct, result.confidence)
    initial = result.confidence[:, :, 0].round(_DIGITS)
    counted = result.counted & result.target_clean & ~np.isnan(initial)
    parts = list[dict[str, Any]]()
    for place, target in enumerate(targets):
        values = np.sort(initial[place, counted[place]])
        ends = values[len(values) * np.arange(1, groups) // groups] if len(values) else values
        group_of = groups - np.searchsorted(ends, initial[place], side="right")
        for group in sorted(set(group_of[counted[place]])):
            images = counted[place] & (group_of == group)
            of_images = [array[place, images].T for array in arrays]
            range_of = (initial[place, images].min(), initial[place, images].max())
            numbers = _over_budgets(*of_images, eps=result.eps_255, ends=range_of)
            parts.append({"target": target, "group": group, **numbers})
    columns = parts[0] if parts else ()
    shape = result.eps_255.shape
    return pd.DataFrame(  # one: hundreds of small ones take long
        {
            name: np.concatenate([np.broadcast_to(part[name], shape) for part in parts])
            for name in columns
        }
    )


def _over_budgets(
    present: Mask, correct: Mask, confidence: Values, *, eps: Values, ends: tuple[float, float]
) -> dict[str, Any]:
    """Return the numbers of a group's images at each budget; arrays have shape (K, images)."""
    n, still = np.count_nonzero(present, axis=1), np.count_nonzero(correct, axis=1)
    lowest, highest = wilson_interval(still, n)
    mean = ratio(np.where(present, confidence, 0.0).sum(axis=1), n)
    low, high = (
        np.where(eps == 0, end, bound) for end, bound in zip(ends, (0.0, 1.0), strict=True)
    )
    share = np.clip(ratio(mean - low, high - low), 0, 1)  # of the range that there can be
    share = np.nan_to_num(share)
    least, most = (low + (high - low) * end for end in wilson_interval(share * n, n))
    return {
        "lowest": ends[0],
        "highest": ends[1],
        "eps_255": eps,
        "n": n,
        "still_correct": still,
        "robust_accuracy": ratio(still, n),
        "robust_accuracy_low": lowest,
        "robust_accuracy_high": highest,
        "confidence": mean,
        "confidence_low": least,
        "confidence_high": most,
    }


def top_values(column: pd.Series) -> NDArray[np.float64]:
    """Stack a column of arrays of up to five numbers, shape (rows, 5), filled up with NaN."""
    table = np.full((len(column), TOP_K), np.nan)
    lengths = column.map(len).to_numpy(np.int64)
    for length in np.unique(lengths):
        here = lengths == length
        table[here, :length] = np.stack(column[here].to_list())[:, :TOP_K]
    return table
