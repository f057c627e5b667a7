"""Confidence over the budget, alone and by the confidence of clean images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..utils.model_names import ABSTAINED
from .estimates import share_columns
from .intervals import FEWEST_IMAGES, wilson_interval
from .outcomes import JobOutcomes, ratio

_COLUMNS = ["target", "n", "flipped", "rho", "rho_low", "rho_high", "verdict"]


def initial_confidence_effect(table: pd.DataFrame) -> pd.DataFrame:
    """Correlate initial confidence with the minimum adversarial budget (Spearman) per target.

    The images are the rows of `trajectories`. An image that never flips ranks above every budget.
    Ties share their mean rank, so coarse budgets and many such images move rho towards 0.

    Returns:
        One row per target: `target`, `n` images, `flipped` (how many flip at some budget), `rho`
        with its 95 % interval `rho_low` and `rho_high`, and `verdict`. The verdict is `supported`
        if the interval is above 0, `contradicted` if it is below, else `undecided`. For fewer than
        10 images, or if all budgets or all confidences are equal, it is `not computable`, and rho
        is NaN.

    Reference:
        D. G. Bonett and T. A. Wright, Sample size requirements for estimating Pearson, Kendall and
        Spearman correlations, Psychometrika 65 (2000).
    """
    records = [
        (target, *_effect(rows["initial_confidence"], rows["first_flip_eps_255"]))
        for target, rows in table.groupby("target", sort=False, observed=True)
    ]
    return pd.DataFrame(records, columns=_COLUMNS)


def _effect(confidence: pd.Series, first: pd.Series) -> tuple[object, ...]:
    """Compute the columns after `target` for one target."""
    n, flipped, rho = len(first), int(first.notna().sum()), np.nan
    budgets = first.fillna(np.inf)  # NaN: the image never flips
    if n >= FEWEST_IMAGES and budgets.nunique() > 1 and confidence.nunique() > 1:
        rho = float(np.corrcoef(confidence.rank(na_option="keep"), budgets.rank())[0, 1])
    if np.isnan(rho):  # includes the case that a confidence is NaN
        return (n, flipped, np.nan, np.nan, np.nan, "not computable")
    half = 1.959964 * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    low, high = np.tanh([centre - half, centre + half]).tolist()
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "undecided"
    return (n, flipped, rho, low, high, verdict)


LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Levels of initial confidence, highest first."""
BIN_WIDTH = 0.05
"""Width of the bin around each level of initial confidence."""
TOP_K = 5
_DIGITS = 7
"""Decimals kept before confidences are compared with bounds, so that a float32 0.95 is 0.95."""


def by_class(clean: pd.DataFrame) -> pd.DataFrame:
    """Compute one model's mean confidence and accuracy on clean images per true class.

    Returns:
        One row per class by decreasing confidence: `label`, `images` (their number), mean
        `confidence` and `accuracy`. Images on which the model abstains are left out.
    """
    clean = clean[clean["predicted"] != ABSTAINED]
    rows = clean.assign(correct=clean["predicted"] == clean["label"])
    groups = rows.astype({"confidence": np.float64}).groupby("label")
    table = groups.agg(
        images=("correct", "size"), confidence=("confidence", "mean"), accuracy=("correct", "mean")
    ).reset_index()
    return table.sort_values(["confidence", "label"], ascending=[False, True], ignore_index=True)


def confidence_profiles(clean: pd.DataFrame) -> pd.DataFrame:
    """Average one model's five highest probabilities on clean images per initial confidence.

    An image belongs to a level of `LEVELS` if level - 0.025 <= initial confidence < level + 0.025.

    Returns:
        Five rows per level that has images: `level`, `rank` (1 is the predicted class), `images`
        and the mean `confidence` at that rank. Empty if `clean` has no column `top5_confidences`.
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
    """Compute one model's top-1 accuracy on clean images and, given `top5_classes`, its top-5.

    Returns:
        One row per `k`: `n` images, `correct`, `accuracy` with its 95 % Wilson interval, and the
        mean `confidence`. For k = 1 this is the confidence in the predicted class over all images;
        for k = 5 the confidence in the true class over the images that have it among the five.
        Images on which the model abstains are left out.
    """
    clean = clean[clean["predicted"] != ABSTAINED]
    among = {1: (clean["predicted"] == clean["label"]).to_numpy()}
    values = [clean["confidence"]]
    if "top5_classes" in clean:
        label = clean["label"].to_numpy(dtype=np.float64)
        among[TOP_K] = (top_values(clean["top5_classes"]) == label[:, None]).any(axis=1)
        values.append(clean.loc[among[TOP_K], "true_confidence"])
    correct = np.array([hits.sum() for hits in among.values()])
    n = np.full(len(among), len(clean))
    table = pd.DataFrame({"k": list(among), "n": n, "correct": correct})
    means = [confidences.astype(np.float64).mean() for confidences in values]
    return table.assign(**share_columns("accuracy", correct, n), confidence=means)


def by_initial_confidence(result: JobOutcomes, groups: int | Sequence[float] = 3) -> pd.DataFrame:
    """Compute accuracy and confidence over the budgets, in groups by initial confidence.

    Only the protocol's images that the target classifies correctly when clean are counted. The
    groups of a target are equally large, except that equal confidences share a group: then a group
    may be larger, or missing. If `groups` is a list, it has the edges of fixed groups.

    Returns:
        One row per target, group and budget (including 0), highest confidence first: `target`,
        `group` (1 is the most confident) and its `name`, `lowest` and `highest` initial confidence
        (of fixed groups: the edges), `eps_255`, `n` images, `still_correct`, and `robust_accuracy`
        and `confidence` with their 95 % intervals (see `wilson_interval`; at budget 0 the
        confidence interval is within the group's range).
    """
    arrays = (result.present, result.correct, result.confidence)
    initial = result.confidence[:, :, 0].round(_DIGITS)
    counted = result.counted & result.target_clean & ~np.isnan(initial)
    parts = list[dict[str, Any]]()
    for place, target in enumerate(map(str, result.targets)):
        values = np.sort(initial[place, counted[place]])
        if isinstance(groups, int):
            places = len(values) * np.arange(1, groups) // groups
            ends = values[places] if len(values) else values
        else:
            ends = np.asarray(groups)
        group_of = len(ends) + 1 - np.searchsorted(ends, initial[place], side="right")
        for group in sorted(set(group_of[counted[place]])):
            images = counted[place] & (group_of == group)
            present, correct, confidence = (array[place, images] for array in arrays)
            span = initial[place, images].min(), initial[place, images].max()
            if not isinstance(groups, int):
                span = tuple([0.0, *ends, 1.0][len(ends) + 1 - group :][:2])
            part = {
                "target": target,
                "group": group,
                "name": _span(*span, not isinstance(groups, int)),
                "lowest": span[0],
                "highest": span[1],
                "eps_255": result.eps_255,
                "n": np.count_nonzero(present, axis=0),
                "still_correct": np.count_nonzero(correct, axis=0),
                "confidence": np.where(present, confidence, 0.0).sum(axis=0),
            }
            parts.append(part)
    return _with_intervals(pd.DataFrame(parts)) if parts else pd.DataFrame()


def _span(low: float, high: float, fixed: bool) -> str:
    """Name a group by its edges, or else by its confidences, rounded down: 99.9 % is not 100 %.

    They have a decimal if the group begins above 95 %.
    """
    per = 1000 if fixed else 10 if low > 0.95 else 1
    ends = (f"{np.floor(100 * per * end + 1e-6) / per:g}" for end in (low, high))
    return "\N{EN DASH}".join(ends) + " %"


def _with_intervals(groups: pd.DataFrame) -> pd.DataFrame:
    """Return a row per group and budget, from counts and the sums of confidences."""
    of_budgets = ["eps_255", "n", "still_correct", "confidence"]
    groups = groups.explode(of_budgets, ignore_index=True).infer_objects()
    eps, n, still, confidence = (groups[name].to_numpy() for name in of_budgets)
    mean = ratio(confidence, n)
    low = np.where(eps == 0, groups["lowest"], 0.0)
    high = np.where(eps == 0, groups["highest"], 1.0)
    # Of the range of possible values.
    share = np.nan_to_num(np.clip(ratio(mean - low, high - low), 0, 1))
    least, most = (low + (high - low) * end for end in wilson_interval(share * n, n))
    return groups.drop(columns="confidence").assign(
        **share_columns("robust_accuracy", still, n),
        confidence=mean,
        confidence_low=least,
        confidence_high=most,
    )


def top_values(column: pd.Series) -> NDArray[np.float64]:
    """Stack a column of arrays of up to five numbers into shape (rows, 5), padded with NaN."""
    table = np.full((len(column), TOP_K), np.nan)
    lengths = column.map(len).to_numpy(np.int64)
    for length in np.unique(lengths):
        here = lengths == length
        table[here, :length] = np.stack(column[here].to_list())[:, :TOP_K]
    return table
