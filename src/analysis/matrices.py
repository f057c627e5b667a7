"""Transfer matrices in long form: what the cells count, and which of them are white box."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from src.analysis.intervals import wilson_interval
from src.analysis.transfer_rates import ratio

CLEAN = "clean"
"""Name of the matrix row of clean images."""

MEASURES = {"robust_accuracy": "still_correct", "success_rate": "success"}
"""What a matrix can hold, and the count behind it."""

_CLEAN_COUNTS = {"still_correct": "target_clean_correct", "success": "target_clean_success"}


class Words(NamedTuple):
    """How to name what a matrix counts.

    Attributes:
        counted: The images, as in `still correct`.
        rate: Their share of the denominator, as in `robust accuracy`.
        clean: What the row of clean images holds.
    """

    counted: str
    rate: str
    clean: str


def matrix(
    rates_by_source: Mapping[str, pd.DataFrame], eps_255: float, measure: str | None = None
) -> pd.DataFrame:
    """Gather one budget of several sources into a transfer matrix in long form.

    Args:
        rates_by_source: Result of `rates` for each source, in the order of the rows.
        eps_255: Budget, one of those in every table.
        measure: `robust_accuracy` or `success_rate`; None takes the success rate of targeted
            attacks and the robust accuracy of others.

    Returns:
        One row per cell: `source` (first `clean`), `target`, `eps_255`,
        `targeted`, the count (`still_correct` or `success`), `denominator`, the measure with
        its `_low` and `_high`, and `cell` (see `format_cell`). The columns' names state what is
        counted. The clean row is over all clean images, whatever the protocol: how many the
        target classifies correctly, or, of the success rate, how many are a success without an
        attack (images whose target label is their label left out). A target's clean counts are
        those of the first source evaluated on it; where they are not known, the cell is missing.

    Raises:
        ValueError: If a source is called `clean`, a table lacks the budget, the tables count
            different numbers of images, or targeted and untargeted attacks meet.
    """
    if CLEAN in rates_by_source:
        raise ValueError(f"a source cannot be called '{CLEAN}': that is the row of clean images.")
    attacked = gather(rates_by_source, eps_255)
    targeted = bool(attacked["targeted"].iloc[0])
    if measure is None:
        measure = "success_rate" if targeted else "robust_accuracy"
    count = MEASURES[measure]
    sizes = sorted({int(n) for n in attacked["n"]})
    if len(sizes) > 1:
        raise ValueError(f"the sources' tables count different numbers of images: {sizes}.")
    clean = attacked.drop_duplicates("target").assign(source=CLEAN, eps_255=0.0)
    clean = clean[clean[_CLEAN_COUNTS[count]].notna()]
    clean[count] = clean[_CLEAN_COUNTS[count]].astype("int64")
    left_out = clean["aimed_at_label"] if count == "success" else 0
    clean["denominator"] = clean["n"] - left_out
    k, n = clean[count].to_numpy(), clean["denominator"].to_numpy()
    clean[measure] = ratio(k, n)
    clean[f"{measure}_low"], clean[f"{measure}_high"] = wilson_interval(k, n)
    cells = pd.concat([clean, attacked], ignore_index=True)
    cells["cell"] = [
        format_cell(k, n) for k, n in zip(cells[count], cells["denominator"], strict=True)
    ]
    rate_columns = [measure, f"{measure}_low", f"{measure}_high", "cell"]
    return cells[["source", "target", "eps_255", "targeted", count, "denominator", *rate_columns]]


def measure_of(matrix: pd.DataFrame) -> str:
    """Return which of `MEASURES` a matrix holds."""
    return next(measure for measure in MEASURES if measure in matrix.columns)


def words_of(measure: str, targeted: bool) -> Words:
    """Return how to name what is counted."""
    if measure == "robust_accuracy":
        return Words("still correct", "robust accuracy", "accuracy on all clean images")
    if targeted:
        clean = "clean images already classified as their target label"
        return Words("target class reached", "targeted success rate", clean)
    return Words("misclassified", "success rate", "error rate on all clean images")


def is_targeted(frame: pd.DataFrame) -> bool:
    """Tell whether rates or a matrix are those of a targeted attack."""
    return "targeted" in frame.columns and bool(frame["targeted"].any())


def is_white_box(source: str, target: str) -> bool:
    """Tell whether the images were crafted on the target's own gradients.

    An ensemble's members are joined by `+`; each of them is a white-box target.

    >>> is_white_box("vgg16+resnet50", "resnet50"), is_white_box("vgg16", "vgg1")
    (True, False)
    """
    return target == source or target in source.split("+")


def gather(tables: Mapping[str, pd.DataFrame], eps_255: float) -> pd.DataFrame:
    """Put the rows of one budget of several sources below each other, named by `source`.

    Raises:
        ValueError: If a table lacks the budget, or targeted and untargeted attacks meet.
    """
    rows = [_at_budget(table, source, eps_255) for source, table in tables.items()]
    together = pd.concat(rows, ignore_index=True)
    if together["targeted"].nunique() > 1:
        targeted = [source for source, table in tables.items() if is_targeted(table)]
        raise ValueError(
            f"the attacks on {', '.join(targeted)} are targeted and the others are not; "
            "they do not fit into one matrix."
        )
    return together


def format_cell(count: int, denominator: int) -> str:
    """Write a rate with its counts.

    >>> format_cell(1374, 8139)
    '1374 / 8139 = 16.88%'
    >>> format_cell(0, 0)
    '0 / 0 = n/a'
    """
    rate = f"{count / denominator:.2%}" if denominator else "n/a"
    return f"{count} / {denominator} = {rate}"


def _at_budget(table: pd.DataFrame, source: str, eps_255: float) -> pd.DataFrame:
    chosen = table.loc[np.isclose(table["eps_255"], eps_255)]
    lacking = [target for target in table["target"].unique() if target not in set(chosen["target"])]
    if lacking or chosen.empty:
        budgets = ", ".join(f"{eps:g}" for eps in sorted(table["eps_255"].unique()))
        raise ValueError(
            f"source '{source}' has no rates at eps_255 = {eps_255:g}; its budgets are {budgets}."
        )
    return chosen.assign(source=source)
