"""Trainings of one network as one row or column: means over trainings, with their range."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..analysis.estimates import MEAN
from ..analysis.transfer_rates import ANOTHER_TRAINING, TRANSFER
from ..artifacts.comparable import (
    ALIKE,
    differences,
    differing,
    model_digest,
    networks_of,
    training_of,
)
from ..artifacts.finished_job import FinishedJob
from ..artifacts.record import JobRecord

_KEYS = ["attack", "source", "target", "defence", "norm", "protocol", "eps_255"]
_KEYS += ["variant", "relation", "ensemble", "source_defence", "targeted"]


def over_trainings(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Fold the trainings of one network in rows of the frame.

    Args:
        rows: Rows of the frame at one budget of each job, all of the primary variant.
        column: Column of which the range is computed.

    Returns:
        A row per attack, source network and target network, or `another training` as the target.
        Numbers are means over the source's trainings, each the mean over the target's trainings.
        Pairs that are missing are in no mean. `COLUMN_low` and `COLUMN_high` are the smallest and
        the largest value of a pair of trainings, NaN for a single pair; `source_trainings` is the
        number of the source's trainings. Then the means over source and target networks, as `mean`,
        of networks other than the source. Attacks of a sweep over `training.seed` are one attack.
    """
    pairs = rows[(rows["source"] != MEAN) & (rows["target"] != MEAN)]
    names = {axis: pairs[f"{axis}_network"] for axis in ("source", "target")}
    for axis, of in names.items():  # a model that some job calls another network is one everywhere
        unsure = (of == "") | (of.groupby(pairs[axis]).transform("nunique") > 1)
        defence = pairs[axis].str.partition("@")[2]
        names[axis] = of.where(defence == "", of + "@" + defence).where(~unsure, pairs[axis])
    another = pairs["relation"] == ANOTHER_TRAINING
    names["target"] = names["target"].mask(another, ANOTHER_TRAINING)
    names |= {"training": pairs["source"] + "\n" + pairs["source_training"]}
    names |= {"attack": pairs["attack"].map(without_training_seed)}
    pairs = pairs.assign(**names, seed="")
    cells = _means(_means(pairs, [*_KEYS, "training"]), _KEYS)
    of_cell, ends = pairs.groupby(_KEYS, sort=False), [f"{column}_low", f"{column}_high"]
    cells["denominator"] = cells["denominator"].round()
    cells["source_trainings"] = of_cell["training"].nunique().to_numpy()
    cells[ends] = of_cell[column].agg(["min", "max"]).to_numpy()
    cells.loc[(of_cell.size() == 1).to_numpy(), ends] = np.nan
    others = cells[cells["relation"] == TRANSFER].assign(**dict.fromkeys(ends, np.nan))
    rest = [name for name in _KEYS if name not in ("source", "target")]
    of_sources = _means(others, [*rest, "source"]).assign(target=MEAN)
    of_targets = _means(others, [*rest, "target"]).assign(source=MEAN)
    both = _means(of_targets, rest).assign(source=MEAN, target=MEAN)
    return pd.concat([cells, of_sources, of_targets, both], ignore_index=True)


def check_trainings(jobs: Sequence[FinishedJob]) -> None:
    """Refuse jobs that would fold as trainings, but differ in more than the seed of the training.

    Raises:
        ValueError: Their images, settings or trainings differ, or two trainings have equal weights.
    """
    records = defaultdict[str, dict[str, JobRecord]](dict)
    names = defaultdict[tuple[str, str], set[str]](set)
    for job in jobs:
        records[without_training_seed(job.row_title)][job.row_title] = job.record
        for name, digest in job.record.weights.items():
            names[networks_of(job.record)[name], digest].add(name)
    if twins := [sorted(alike) for alike in names.values() if len(alike) > 1]:
        raise ValueError(f"{' and '.join(twins[0])} are the same training: leave one out.")
    for title, alike in records.items():
        fields = ["network", *(name for name in ALIKE if name != "model")]
        unlike = differences(*alike.values(), fields=fields)
        trainings = [record.config.get("training") or {} for record in alike.values()]
        for key in sorted({key for training in trainings for key in training} - {"seed"}):
            texts = sorted({str(training.get(key)) for training in trainings})
            unlike += [f"training.{key} ({', '.join(texts)})"] * (len(texts) > 1)
        if unlike:
            raise ValueError(
                f"{title}: trainings differ in {', '.join(unlike)}, not in seed alone."
            )


def without_training_seed(title: str) -> str:
    """Return the title of a job without the seed of its training."""
    return re.sub(r" training\.seed=\d+", "", title)


def seed_names(records: Sequence[JobRecord]) -> dict[str, dict[str, str]]:
    """Return names `NAME_seedN` by a record's key and NAME, where NAME has several trainings.

    Empty if models of one name differ in more than the seed of their training.
    """
    several, models = differing(*records, fields=["weights"]), defaultdict[str, set[str]](set)
    names = dict[str, dict[str, str]]()
    for record in records:
        seeds = {name: f"{name}_seed{training_of(record, name)}" for name in record.weights}
        names[record.key] = {name: seeds[name] for name in seeds if f"weights.{name}" in several}
        for name in record.weights:
            models[names[record.key].get(name, name)].add(model_digest(record, name))
    return names if all(len(of) == 1 for of in models.values()) else {}


def _means(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the means of numbers, and the first of other values, of rows with equal keys."""
    rest = rows.columns.difference([*keys], sort=False)
    rules = {name: "mean" if rows[name].dtype.kind in "fiu" else "first" for name in rest}
    return rows.groupby([*keys], sort=False).agg(rules).reset_index()
