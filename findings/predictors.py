"""Measures of two models that only these findings need, and the tables that they are made of."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import rel_entr

from src.analysis.outcomes import ratio
from src.analysis.source_choice import Values
from src.artifacts.jobs import FinishedJob
from src.report.source_choice import (
    Frames,
    means_by_pair,
    of_images,
    pair_measures,
    vectors_by_model,
)

OF_SOURCE = {
    "gradient consistency": ("gradient_consistency", "consistency"),
    "curvature": ("smoothness", "curvature"),
    "self-transfer": ("self_transfer", "fooled"),
}
"""Measures of the source alone: the table and the column that is averaged over images."""


def all_pair_measures(
    jobs: Sequence[FinishedJob],
) -> Callable[[NDArray[np.int64], Sequence[str]], Frames]:
    """Return `pair_measures` with those of `OF_SOURCE`, and with `alpha` and `gamma`.

    The last two are `change_ratio` and `change_alignment` of the models' logits.
    """
    tables = defaultdict[str, dict[tuple[str, str], pd.DataFrame]](dict)
    for job in jobs:
        for name in {"output_changes", *(name for name, _ in OF_SOURCE.values())} & {*job.files}:
            tables[name][job.row_title, job.record.source] = job.table(name).set_index("index")
    vectors = tables["output_changes"].items()
    changes = {key: vectors_by_model(table, "change") for key, table in vectors}
    public = pair_measures(jobs)

    def measure(index: NDArray[np.int64], targets: Sequence[str]) -> Frames:
        frames = Frames()
        for name, (table, column) in OF_SOURCE.items():
            values = means_by_pair(tables[table], column, index).max(axis=1)  # one value per row
            frames[name] = pd.DataFrame(dict.fromkeys(targets, values))
        frames |= public(index, targets) | _changes(changes, index)
        return {name: frame for name, frame in frames.items() if not frame.empty}

    return measure


def _changes(changes: Mapping[tuple[str, str], Frames], index: NDArray[np.int64]) -> Frames:
    """Compute alpha and gamma from the pairs with the same attack on source and target."""
    rows = []
    for (attack, source), lists in changes.items():
        mine = of_images(lists[source], index)
        for target, its in lists.items():
            change, white_box = of_images(its, index), changes.get((attack, target), {}).get(target)
            alpha = (
                np.nan if white_box is None else change_ratio(change, of_images(white_box, index))
            )
            rows.append((source, target, alpha, change_alignment(mine, change)))
    table = pd.DataFrame(rows, columns=["source", "target", "alpha", "gamma"])
    return {
        name: table.pivot_table(name, "source", "target", "mean", dropna=True)
        for name in ("alpha", "gamma")
    }


def mutual_information(correct: pd.DataFrame) -> pd.DataFrame:
    """Compute the mutual information of two models being correct, in bits (arXiv 2304.02312).

    Args:
        correct: Whether each model (column) is correct on each image (row).
    """
    right = correct.to_numpy(np.float64)
    states, p = np.stack([right, 1 - right]), right.mean(axis=0)
    joint = np.swapaxes(states, 1, 2)[:, None] @ states / len(right)  # shape (2, 2, models, models)
    each = np.stack([p, 1 - p])
    expected = each[:, None, :, None] * each[None, :, None, :]
    information = rel_entr(joint, expected).sum(axis=(0, 1)) / np.log(2)
    information = (information + information.T) / 2  # equal bits for a pair in either order
    return pd.DataFrame(information, correct.columns, correct.columns)


def change_ratio(change: Values, white_box: Values) -> float:
    """Compute alpha: the change of a target's logits relative to that by an attack on itself.

    Both arguments are changes of the target's logits, shape (N, K): `change` under the source's
    perturbations, `white_box` under those of the same attack on the target. Alpha is the mean over
    images of the ratio of their norms, without images whose `white_box` is 0.

    Reference:
        Liang et al. (2021), arXiv 2006.14512, and the authors' code.
    """
    norms = ratio(np.linalg.norm(change, axis=1), np.linalg.norm(white_box, axis=1))
    return float(np.nanmean(norms)) if np.isfinite(norms).any() else np.nan


def change_alignment(source: Values, target: Values) -> float:
    """Compute gamma: how similarly the logits of two models change under the same perturbations.

    Gamma is the squared Frobenius norm of the mean over images of the outer product of both
    changes, shapes (N, K) and (N, L), each scaled to length 1. It is in [0, 1]. Zero changes stay
    zero and count.

    Reference:
        Liang et al. (2021), arXiv 2006.14512, and the authors' code.
    """
    units = []
    for change in (source, target):
        norm = np.linalg.norm(change, axis=1, keepdims=True)
        units.append(np.nan_to_num(ratio(change, np.broadcast_to(norm, change.shape))))
    return float(np.square(units[0].T @ units[1] / len(source)).sum())
