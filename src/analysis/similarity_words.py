"""Sentences on whether transfer goes with the likeness of gradients and of errors."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from src.analysis.exploration import need_columns
from src.analysis.matrix import format_cell
from src.analysis.similarity import (
    FEWEST_PAIRS,
    PAIR_COLUMNS,
    PREDICTORS,
    REGRESSION_COLUMNS,
    STEP,
    regressed_pairs,
)

MOST_LISTED = 6
"""So many pairs are told one by one where there are too few for a line."""


def similarity_sentences(frame: pd.DataFrame, regression: pd.DataFrame) -> tuple[str, str]:
    """Say how transfer goes with gradient cosine, and how with error agreement.

    Each attack has its own line. Where too few pairs of models allow for one, the pairs are told
    one by one instead, at most 6.

    Args:
        frame: Result of `pair_similarity`.
        regression: Result of `transfer_regression` for it.

    Raises:
        ValueError: If a column is missing.
    """
    need_columns(frame, [name for name in PAIR_COLUMNS if name != "targeted"], "similarity")
    need_columns(regression, REGRESSION_COLUMNS, "regression")
    cosine = _sentence(frame, regression, "cosine", listed=True)
    # The pairs are told with both numbers, so that once is enough.
    again = bool(regression.loc[regression["predictor"] == "cosine", "slope"].notna().any())
    return cosine, _sentence(frame, regression, "kappa", listed=again)


def _sentence(
    frame: pd.DataFrame, regression: pd.DataFrame, predictor: str, *, listed: bool
) -> str:
    """Tell the lines of one predictor, or why there is none."""
    rows = regression[regression["predictor"] == predictor]
    words = PREDICTORS[predictor]
    if rows.empty or frame.empty:
        return f"No pair of models tells whether success goes with {words}."
    at = f"at {frame['eps_255'].iloc[0]:g}/255"
    fitted = rows[rows["slope"].notna()]
    lacking = [
        f"{_attack(frame, row['attack'])} ({_why_not(row)})"
        for row in rows[rows["slope"].isna()].to_dict("records")
    ]
    if fitted.empty:
        told = _pairs(frame, list(rows["attack"])) if listed else ""
        return (
            f"Whether success {at} goes with {words} cannot be told: no line is fitted for "
            f"{', '.join(lacking)}{told}."
        )
    lines = "; ".join(
        f"{_attack(frame, row['attack'])} {_line_words(row)}" for row in fitted.to_dict("records")
    )
    without = f"; no line is fitted for {', '.join(lacking)}" if lacking else ""
    return (
        f"Over the pairs that are not white box, {STEP:g} more {words} goes with so many "
        f"percentage points of success {at}: {lines}{without}. The pairs share models and images, "
        "so these 95 % intervals are too narrow."
    )


def _line_words(row: Mapping[Hashable, Any]) -> str:
    slope, low, high = (100 * STEP * row[name] for name in ("slope", "slope_low", "slope_high"))
    p = f"p = {row['p']:.2g}" if row["p"] >= 0.001 else "p < 0.001"
    return (
        f"{slope:+.1f} [{low:+.1f}, {high:+.1f}] (r = {row['r']:.2f}, {p}, n = {row['pairs']} "
        f"source-target pairs of {row['model_pairs']} pairs of models)"
    )


def _why_not(row: Mapping[Hashable, Any]) -> str:
    count = row["model_pairs"]
    if count >= FEWEST_PAIRS:
        return f"it, or the success, is the same for all {row['pairs']} pairs"
    pairs = "pair" if count == 1 else "pairs"
    return f"{count} {pairs} of models, of at least {FEWEST_PAIRS}"


def _attack(frame: pd.DataFrame, attack: str) -> str:
    """Name an attack, with a word where its pairs are those of targeted jobs."""
    pairs = regressed_pairs(frame, attack)
    targeted = "targeted" in pairs and len(pairs) and pairs["targeted"].astype(bool).all()
    return f"targeted {attack}" if targeted else attack


def _pairs(frame: pd.DataFrame, attacks: list[str]) -> str:
    """Tell the first pairs with all their numbers."""
    pairs = pd.concat([regressed_pairs(frame, attack) for attack in attacks])
    pairs = pairs[pairs["success_rate"].notna()]
    if pairs.empty:
        return ""
    start = f"; the first {MOST_LISTED} of {len(pairs)} pairs" if len(pairs) > MOST_LISTED else ""
    told = []
    for row in pairs.head(MOST_LISTED).to_dict("records"):
        cosine, kappa = _number(row["cosine"]), _number(row["kappa"])
        if pd.notna(row["cosine_low"]):
            cosine += f" [{_number(row['cosine_low'])}, {_number(row['cosine_high'])}]"
        n = row["n"]
        told.append(
            f"{row['source']} -> {row['target']} ({_attack(frame, row['attack'])}) cosine "
            f"{cosine}, kappa {kappa}, success {format_cell(round(row['success_rate'] * n), n)}"
        )
    return f"{start}: {'; '.join(told)}"


def _number(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.3f}"
