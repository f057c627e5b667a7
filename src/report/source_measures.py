"""Measures of model pairs from the tables of jobs with `diagnostics=sources`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.source_measures import change_alignment, change_ratio, linear_cka
from src.artifacts.jobs import StoredJob

Frames = dict[str, pd.DataFrame]
Lists = dict[str, pd.DataFrame]
"""Vectors by model: one row per image, indexed by the image's number."""

OF_SOURCE = {
    "gradient consistency": ("gradient_consistency", "consistency"),
    "curvature": ("smoothness", "curvature"),
    "self-transfer": ("self_transfer", "fooled"),
}
"""Measures of the source alone: the table and the column that is averaged over images."""


def pair_measures(
    jobs: Sequence[StoredJob],
) -> Callable[[NDArray[np.int64], Sequence[str]], Frames]:
    """Return a function that computes measures as frames (source, target).

    Its arguments are the numbers of images and the targets. A measure is averaged over the attacks
    that have it; measures that no job has are left out. In addition to `OF_SOURCE` there are:

    - `gradient cosine`: mean cosine between the gradients of source and target;
    - `cka`: `linear_cka` of the outputs of their feature layers;
    - `alpha`, `gamma`: `change_ratio` and `change_alignment` of their logits.
    """
    tables = defaultdict[str, dict[tuple[str, str], pd.DataFrame]](dict)
    names = {name for name, _ in OF_SOURCE.values()} | {"similarity", "features", "output_changes"}
    for job in jobs:
        for name in names & job.files.keys():
            tables[name][job.row, job.record.source] = job.table(name).set_index("index")
    features = {name: rows for table in tables["features"].values() for name, rows in _lists(table)}
    changes = {key: dict(_lists(table)) for key, table in tables["output_changes"].items()}

    def measure(index: NDArray[np.int64], targets: Sequence[str]) -> Frames:
        frames = Frames()
        for name, (table, column) in OF_SOURCE.items():
            values = _means(tables[table], column, index).max(axis=1)  # one value per row
            frames[name] = pd.DataFrame(dict.fromkeys(targets, values))
        frames["gradient cosine"] = _means(tables["similarity"], "cosine", index)
        frames["cka"] = _cka(features, index)
        frames |= _changes(changes, index)
        return {name: frame for name, frame in frames.items() if not frame.empty}

    return measure


def _lists(table: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Yield each model's name and vectors."""
    column = "features" if "features" in table else "change"
    for model, rows in table.groupby("target", observed=True):
        yield str(model), pd.DataFrame(np.stack(rows[column].to_list()), rows.index)


def _of(rows: pd.DataFrame, index: NDArray[np.int64]) -> NDArray[np.float64]:
    return rows.loc[rows.index.isin(index)].sort_index().to_numpy(np.float64)


def _means(
    tables: Mapping[tuple[str, str], pd.DataFrame], column: str, index: NDArray[np.int64]
) -> pd.DataFrame:
    """Return the means over images by source (row) and model (column)."""
    parts = [
        rows[rows.index.isin(index)].groupby("target", observed=True)[column].mean().rename(source)
        for (_, source), rows in tables.items()
    ]
    return pd.DataFrame(parts).groupby(level=0).mean()


def _cka(features: Lists, index: NDArray[np.int64]) -> pd.DataFrame:
    values = {name: _of(rows, index) for name, rows in features.items()}
    return pd.DataFrame(
        {
            other: {name: linear_cka(mine, its) for name, mine in values.items()}
            for other, its in values.items()
        }
    )


def _changes(changes: Mapping[tuple[str, str], Lists], index: NDArray[np.int64]) -> Frames:
    """Compute alpha and gamma from the pairs with the same attack on source and target."""
    rows = []
    for (attack, source), lists in changes.items():
        mine = _of(lists[source], index)
        for target, its in lists.items():
            change, white_box = _of(its, index), changes.get((attack, target), {}).get(target)
            alpha = np.nan if white_box is None else change_ratio(change, _of(white_box, index))
            rows.append((source, target, alpha, change_alignment(mine, change)))
    table = pd.DataFrame(rows, columns=["source", "target", "alpha", "gamma"])
    return {
        name: table.pivot_table(name, "source", "target", "mean", dropna=True)
        for name in ("alpha", "gamma")
    }
