"""Trainings of one network as one row or column: means over trainings, with their range."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..analysis.estimates import MEAN
from ..analysis.transfer_rates import ANOTHER_TRAINING, TRANSFER
from ..artifacts.comparable import ALIKE, SETTINGS, groups_of
from .results import Results

_FIELDS = [*(name for name in ALIKE if name != "model"), SETTINGS]
"""Facts that jobs must share for their networks to be trainings of one."""
_KEYS = ["group", "attack", "source", "target", "defence", "norm", "protocol", "eps_255"]
_KEYS += ["variant", "relation", "ensemble", "source_defence", "targeted"]


def over_trainings(results: Results, rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Fold the trainings of one network in rows of the frame.

    Args:
        results: Results that the rows are of.
        rows: Rows of the frame with `with_cell_columns`, at one budget of each job.
        column: Column of which the range is computed.

    Returns:
        A row per attack, source network and target network, or `another training` as the target.
        Numbers are means over the source's trainings, each the mean over the target's trainings.
        Pairs that are missing are in no mean. `COLUMN_low` and `COLUMN_high` are the smallest and
        the largest value of a pair of trainings, NaN for a single pair; `source_trainings` is the
        number of the source's trainings. Then the means over source and target networks, as `mean`,
        of networks other than the source. Jobs that differ only in the weights of their models are
        folded, such as those of a sweep over `training.seed`; their attack has its label.
    """
    records = [row[0].job.record for row in results.attacked]
    groups = groups_of(records, _FIELDS)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups), 1)}
    labels = {group: record.label for group, record in zip(groups, records, strict=True)}
    shared = Counter(labels.values())
    named = dict[tuple[str, str], tuple[int, str]]()
    for row, group in zip(results.attacked, groups, strict=True):
        job, label = row[0].job, labels[group]
        name = label if shared[label] == 1 else job.attack
        named[job.attack, job.record.source] = numbers[group], name
    pairs = rows[(rows["source"] != MEAN) & (rows["target"] != MEAN)]
    of_jobs = [named[its] for its in zip(pairs["attack"], pairs["source"], strict=True)]
    columns = {
        axis: pairs[f"{axis}_network"].where(pairs[f"{axis}_network"] != "", pairs[axis])
        for axis in ("source", "target")
    }
    columns["target"] = columns["target"].mask(
        pairs["relation"] == ANOTHER_TRAINING, ANOTHER_TRAINING
    )
    training = pairs["source"] + "\n" + pairs["source_training"]
    group, attack = (np.array(its, object) for its in zip(*of_jobs, strict=True))
    pairs = pairs.assign(**columns, group=group, attack=attack, training=training, seed="")
    cells = _means(_means(pairs, [*_KEYS, "training"]), _KEYS)
    cells["denominator"] = cells["denominator"].round()
    of_cell = pairs.groupby(_KEYS, sort=False)
    ends = of_cell[column].agg(["min", "max", "size"])
    ends = ends[["min", "max"]].where(ends["size"] > 1)
    cells[[f"{column}_low", f"{column}_high"]] = ends.to_numpy()
    cells["source_trainings"] = of_cell["training"].nunique().to_numpy()
    others = cells[cells["relation"] == TRANSFER].assign(
        **{f"{column}_low": np.nan, f"{column}_high": np.nan}
    )
    of_sources, of_targets = (
        _means(others, [its for its in _KEYS if its != axis]).assign(**{axis: MEAN})
        for axis in ("target", "source")
    )
    places = [its for its in _KEYS if its not in ("source", "target")]
    both = _means(of_targets, places).assign(source=MEAN, target=MEAN)
    return pd.concat([cells, of_sources, of_targets, both], ignore_index=True)


def _means(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the means of numbers, and the first of other values, of rows with equal keys."""
    rest = rows.columns.difference([*keys], sort=False)
    numbers = [name for name in rest if rows[name].dtype.kind in "fiu"]
    rules = {name: "mean" if name in numbers else "first" for name in rest}
    return rows.groupby([*keys], sort=False).agg(rules).reset_index()
