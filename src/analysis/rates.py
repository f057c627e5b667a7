"""Robust accuracy, success rate and confidence per target and budget, with their denominators."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

PROTOCOLS = ("all", "source_correct", "target_correct", "joint")
CLEAN = "clean"
"""Name of the matrix row that holds the accuracy on clean images."""

MATRIX_COLUMNS = (
    "source",
    "target",
    "eps_255",
    "still_correct",
    "denominator",
    "robust_accuracy",
    "robust_accuracy_low",
    "robust_accuracy_high",
    "cell",
)

_KEY = ["index", "target", "eps_255"]
_COLUMNS = (*_KEY, "label", "predicted", "confidence", "true_confidence")


def rates(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str = "joint"
) -> pd.DataFrame:
    """Count, per target and budget, the images that are still classified correctly.

    Args:
        predictions: One row per (index, target, eps_255); clean images have eps_255 = 0.
        source: Model that the adversarial images were made on. Its clean rows are needed by
            the protocols `source_correct` and `joint`.
        targets: Models that the images were shown to, in the order of the result.
        protocol: Which images form the denominator: `all` of them, those that the source
            classifies correctly when clean (`source_correct`), those that the target does
            (`target_correct`), or those that both do (`joint`).

    Returns:
        One row per (target, eps_255) in the order of `targets` and of rising budget, with

        - `n`: images in the table; `source_clean_correct` (missing if the source's clean
          rows are) and `target_clean_correct`: how many of them each model gets right clean;
        - `denominator` (by protocol), `still_correct`, `robust_accuracy` in [0, 1],
          `success_rate` = 1 - robust accuracy;
        - `robust_accuracy_low` and `_high`: 95 % Wilson score interval;
        - `confidence` and `true_confidence`: mean probability of the predicted and of the
          true class over the images of the denominator.

        With an empty denominator the rates, intervals and confidences are NaN.

    Raises:
        ValueError: For an unknown protocol, a missing column, a target or clean rows that are
            not in the table, or two rows for one image, target and budget.
    """
    _check(predictions, targets, protocol)
    rows = predictions.loc[predictions["target"].isin(list(targets)), list(_COLUMNS)]
    target_clean = _clean_correct_of_targets(predictions, rows)
    source_clean = _clean_correct_of_source(predictions, source, rows)
    counted = np.ones(len(rows), dtype=bool)
    if protocol in ("target_correct", "joint"):
        counted &= target_clean
    if protocol in ("source_correct", "joint"):
        if source_clean is None:
            raise ValueError(
                f"protocol '{protocol}' needs clean predictions (eps_255 = 0) of the source "
                f"'{source}' for every image, and the table lacks them."
            )
        counted &= source_clean
    return _summarise(rows, targets, source_clean, target_clean, counted)


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Wilson score interval of a binomial proportion, without continuity correction.

    Args:
        successes: Counts k, any shape.
        trials: Counts n, same shape, 0 <= k <= n.
        level: Two-sided confidence level in (0, 1).

    Returns:
        Lower and upper bounds in [0, 1]; NaN where n = 0.

    Raises:
        ValueError: If the level is not in (0, 1), or a count is not in 0 <= k <= n.

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference,
        J. Am. Stat. Assoc. 22 (1927).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    k = np.asarray(successes, dtype=np.float64)
    n = np.asarray(trials, dtype=np.float64)
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("counts must satisfy 0 <= successes <= trials.")
    z2 = NormalDist().inv_cdf(0.5 + level / 2.0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (k + z2 / 2.0) / (n + z2)
        half = np.sqrt(z2 * (k * (n - k) / n + z2 / 4.0)) / (n + z2)
    # Both ends are exact where every trial agrees; rounding would leave 1e-17 there.
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == n, 1.0, centre + half)
    empty = n == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def matrix(rates_by_source: Mapping[str, pd.DataFrame], eps_255: float) -> pd.DataFrame:
    """Gather one budget of several sources into a transfer matrix in long form.

    Args:
        rates_by_source: Result of `rates` for each source, in the order of the rows.
        eps_255: Budget, one of those in every table.

    Returns:
        One row per cell: `source` (made on; first `clean`, the accuracy on all clean
        images), `target` (shown to), `eps_255`, `still_correct`, `denominator`,
        `robust_accuracy`, `robust_accuracy_low`, `robust_accuracy_high` and `cell`
        (see `format_cell`). A target's clean counts are those of the first source that
        was shown to it.

    Raises:
        ValueError: If there is no source, a source is called `clean`, a table lacks the
            budget, or the tables count different numbers of images.
    """
    if not rates_by_source:
        raise ValueError("a matrix needs the rates of at least one source, got none.")
    if CLEAN in rates_by_source:
        raise ValueError(f"a source cannot be called '{CLEAN}': that is the row of clean images.")
    attacked = pd.concat(
        [_at_budget(table, source, eps_255) for source, table in rates_by_source.items()],
        ignore_index=True,
    )
    sizes = sorted({int(n) for n in attacked["n"]})
    if len(sizes) > 1:
        raise ValueError(f"the sources' tables count different numbers of images: {sizes}.")
    clean = attacked.drop_duplicates("target").assign(source=CLEAN, eps_255=0.0)
    clean["still_correct"] = clean["target_clean_correct"]
    clean["denominator"] = clean["n"]
    k, n = clean["still_correct"].to_numpy(), clean["denominator"].to_numpy()
    clean["robust_accuracy"] = _ratio(k, n)
    clean["robust_accuracy_low"], clean["robust_accuracy_high"] = wilson_interval(k, n)
    cells = pd.concat([clean, attacked], ignore_index=True)
    cells["cell"] = [
        format_cell(k, n) for k, n in zip(cells["still_correct"], cells["denominator"], strict=True)
    ]
    return cells[list(MATRIX_COLUMNS)]


def format_cell(still_correct: int, denominator: int) -> str:
    """Write a rate with its counts.

    >>> format_cell(1374, 8139)
    '1374 / 8139 = 16.88%'
    >>> format_cell(0, 0)
    '0 / 0 = n/a'
    """
    rate = f"{still_correct / denominator:.2%}" if denominator else "n/a"
    return f"{still_correct} / {denominator} = {rate}"


def _check(predictions: pd.DataFrame, targets: Sequence[str], protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol '{protocol}' is unknown; choose one of {', '.join(PROTOCOLS)}.")
    missing = [column for column in _COLUMNS if column not in predictions.columns]
    if missing:
        raise ValueError(f"the predictions table lacks the columns {', '.join(missing)}.")
    if not targets:
        raise ValueError("targets is empty; name at least one model.")
    if len(set(targets)) < len(targets):
        raise ValueError(f"targets names a model twice: {', '.join(targets)}.")
    present = list(predictions["target"].unique())
    absent = [target for target in targets if target not in present]
    if absent:
        raise ValueError(
            f"no predictions of the targets {', '.join(absent)}; "
            f"the table holds {', '.join(map(str, present)) or 'none'}."
        )
    repeated = predictions.duplicated(_KEY)
    if repeated.any():
        index, target, eps = predictions.loc[repeated, _KEY].iloc[0]
        raise ValueError(
            f"{int(repeated.sum())} rows repeat an image, target and budget, "
            f"first index {index}, target '{target}', eps_255 {eps:g}."
        )


def _summarise(
    rows: pd.DataFrame,
    targets: Sequence[str],
    source_clean: NDArray[np.bool_] | None,
    target_clean: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> pd.DataFrame:
    """Sum the rows of each target and budget; `counted` marks those of the denominator."""
    names = rows["target"].to_numpy(dtype=object)  # plain, in case the column is categorical
    order = pd.Categorical(names, categories=list(targets), ordered=True)
    groups = rows.groupby([order, rows["eps_255"]], observed=True, sort=True)
    group = groups.ngroup().to_numpy()
    result = pd.DataFrame(list(groups.size().index), columns=["target", "eps_255"])

    def total(values: NDArray[np.generic]) -> NDArray[np.float64]:
        weights = values.astype(np.float64)
        return np.bincount(group, weights=weights, minlength=len(result)).astype(np.float64)

    correct = rows["predicted"].to_numpy() == rows["label"].to_numpy()
    denominator = total(counted).astype(np.int64)
    still_correct = total(counted & correct).astype(np.int64)
    result["n"] = np.bincount(group, minlength=len(result))
    result["source_clean_correct"] = pd.array(
        [pd.NA] * len(result) if source_clean is None else total(source_clean).astype(np.int64),
        dtype="Int64",
    )
    result["target_clean_correct"] = total(target_clean).astype(np.int64)
    result["denominator"] = denominator
    result["still_correct"] = still_correct
    result["robust_accuracy"] = _ratio(still_correct, denominator)
    result["success_rate"] = 1.0 - result["robust_accuracy"]
    low, high = wilson_interval(still_correct, denominator)
    result["robust_accuracy_low"], result["robust_accuracy_high"] = low, high
    for column in ("confidence", "true_confidence"):
        # Zero, not a product with the mask: a NaN outside the denominator must not leak in,
        # while a NaN inside it must show.
        summed = total(np.where(counted, rows[column].to_numpy(dtype=np.float64), 0.0))
        result[column] = _ratio(summed, denominator)
    return result


def _clean_correct_of_targets(predictions: pd.DataFrame, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """For each row, say whether its target classifies its image correctly when clean."""
    clean = predictions.loc[predictions["eps_255"] == 0, ["target", "index", "label", "predicted"]]
    right = pd.Series(
        clean["predicted"].to_numpy() == clean["label"].to_numpy(),
        index=pd.MultiIndex.from_frame(clean[["target", "index"]]),
    )
    place = right.index.get_indexer(pd.MultiIndex.from_frame(rows[["target", "index"]]))
    if (place < 0).any():
        target, index = rows.loc[place < 0, ["target", "index"]].iloc[0]
        raise ValueError(
            f"the table lacks the clean prediction (eps_255 = 0) of target '{target}' "
            f"for image {index}."
        )
    return right.to_numpy()[place]


def _clean_correct_of_source(
    predictions: pd.DataFrame, source: str, rows: pd.DataFrame
) -> NDArray[np.bool_] | None:
    """Do the same for the source; None if its clean rows do not cover every image."""
    is_clean = (predictions["target"] == source) & (predictions["eps_255"] == 0)
    clean = predictions.loc[is_clean]
    place = pd.Index(clean["index"]).get_indexer(pd.Index(rows["index"]))
    if (place < 0).any():
        return None
    return (clean["predicted"].to_numpy() == clean["label"].to_numpy())[place]


def _at_budget(table: pd.DataFrame, source: str, eps_255: float) -> pd.DataFrame:
    chosen = table.loc[np.isclose(table["eps_255"], eps_255)]
    lacking = [target for target in table["target"].unique() if target not in set(chosen["target"])]
    if lacking or chosen.empty:
        budgets = ", ".join(f"{eps:g}" for eps in sorted(table["eps_255"].unique()))
        raise ValueError(
            f"source '{source}' has no rates at eps_255 = {eps_255:g}; its budgets are {budgets}."
        )
    return chosen.assign(source=source)


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide, with NaN (and no warning) where the denominator is zero."""
    top = numerator.astype(np.float64)
    return np.divide(top, denominator, out=np.full_like(top, np.nan), where=denominator > 0)
