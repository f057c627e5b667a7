"""Robust accuracy, success rate and confidence per target and budget, with their denominators."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import wilson_interval
from src.analysis.outcomes import outcomes, usable_protocols


def rates(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str = "joint"
) -> pd.DataFrame:
    """Count, per target and budget, the images that are still classified correctly.

    A success of an untargeted attack is an image that is no longer classified correctly; of a
    targeted one, an image that is taken for its `target_label`. An image whose `target_label`
    is its label could be both correct and a success: no protocol counts it, and
    `aimed_at_label` says how many there are.

    Args:
        predictions: One row per (index, target, eps_255); clean images have eps_255 = 0. A
            table whose attacked rows have a `target_label` is that of a targeted attack.
        source: Model that the adversarial images were made on. Its clean rows are needed by
            the protocols `source_correct` and `joint`, those of the targets by
            `target_correct` and `joint`.
        targets: Models that the images were shown to, in the order of the result.
        protocol: Which images form the denominator: `all` of them, those that the source
            classifies correctly when clean (`source_correct`), those that the target does
            (`target_correct`), or those that both do (`joint`).

    Returns:
        One row per (target, eps_255) in the order of `targets` and of rising budget, with

        - `targeted`: whether the attack aims for a class;
        - `n`: images in the table; `source_clean_correct` and `target_clean_correct`: how many
          of them each model gets right clean; `target_clean_success`: how many of them are a
          success before any attack (nullable: missing if the model's clean rows are);
        - `aimed_at_label`: how many of them no protocol counts;
        - `denominator` (by protocol), `still_correct`, `robust_accuracy` in [0, 1],
          `success`, `success_rate`;
        - `robust_accuracy_low` and `_high`, `success_rate_low` and `_high`: 95 % Wilson score
          intervals;
        - `confidence` and `true_confidence`: mean probability of the predicted and of the
          true class over the images of the denominator.

        With an empty denominator the rates, intervals and confidences are NaN.

    Raises:
        ValueError: For an unknown protocol, a missing column, a target or needed clean rows that
            are not in the table, two rows for one image, target and budget, or a `target_label`
            that only some attacked rows have or that differs between rows of an image.
    """
    found = outcomes(predictions, source, targets, protocol)
    rows = found.rows
    result, group = group_rows(rows, targets)

    def total(values: NDArray[np.generic]) -> NDArray[np.float64]:
        return group_totals(values, group, len(result))

    def count(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return total(mask).astype(np.int64)

    denominator = count(found.counted)
    result["targeted"] = found.targeted
    result["n"] = np.bincount(group, minlength=len(result))
    for name, known in (
        ("source_clean_correct", found.source_clean),
        ("target_clean_correct", found.target_clean),
        ("target_clean_success", found.clean_success),
    ):
        values = [pd.NA] * len(result) if known is None else count(known)
        result[name] = pd.array(values, dtype="Int64")
    result["aimed_at_label"] = count(found.aimed_at_label)
    result["denominator"] = denominator
    for name, rate, mask in (
        ("still_correct", "robust_accuracy", found.correct),
        ("success", "success_rate", found.success),
    ):
        result[name] = count(found.counted & mask)
        result[rate] = ratio(result[name].to_numpy(), denominator)
        low, high = wilson_interval(result[name].to_numpy(), denominator)
        result[f"{rate}_low"], result[f"{rate}_high"] = low, high
    for column in ("confidence", "true_confidence"):
        # Zero, not a product with the mask: a NaN outside the denominator must not leak in,
        # while a NaN inside it must show.
        summed = total(np.where(found.counted, rows[column].to_numpy(dtype=np.float64), 0.0))
        result[column] = ratio(summed, denominator)
    return result


def rates_by_protocol(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], attack: str, norm: str
) -> pd.DataFrame:
    """Return the rates under every protocol whose clean rows are there, below each other.

    Args:
        predictions: As for `rates`.
        source: As for `rates`.
        targets: As for `rates`.
        attack: What to call the attack.
        norm: Of the budgets.

    Returns:
        The columns `attack`, `source`, `norm` and `protocol`, so that tables of several jobs may
        be joined, then those of `rates`.
    """
    origin = {"attack": attack, "source": source, "norm": norm}
    parts = []
    for protocol in usable_protocols(predictions, source):
        rows = rates(predictions, source, targets, protocol)
        for place, (name, value) in enumerate({**origin, "protocol": protocol}.items()):
            rows.insert(place, name, value)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def group_rows(
    rows: pd.DataFrame, targets: Sequence[str]
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Number the groups (target, eps_255), in the order of the targets and of rising budget.

    Returns:
        A frame with a row per group (columns `target` and `eps_255`), and each row's group.
    """
    order = pd.Categorical(rows["target"], categories=list(targets), ordered=True)
    groups = rows.groupby([order, rows["eps_255"]], observed=True, sort=True)
    table = pd.DataFrame(list(groups.size().index), columns=["target", "eps_255"])
    return table, np.asarray(groups.ngroup(), dtype=np.int64)


def group_totals(
    values: NDArray[np.generic], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """Sum values over the rows of each group."""
    weights = values.astype(np.float64)
    return np.bincount(group, weights=weights, minlength=groups).astype(np.float64)


def ratio(numerator: NDArray[np.generic], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide, with NaN (and no warning) where the denominator is zero."""
    top = numerator.astype(np.float64)
    return np.divide(top, denominator, out=np.full_like(top, np.nan), where=denominator > 0)
