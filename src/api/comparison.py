"""Accuracy in two sweeps on the same images: did a network become weaker?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from ..analysis.multiple_comparisons import FEWEST_TESTED, compare_versions
from ..analysis.transfer_rates import TRANSFER, relation
from ..artifacts.frame_jobs import jobs_of
from ..artifacts.record import JobRecord
from ..utils.model_names import NO_DEFENCE, ModelRef, parts_of, renamed
from ..utils.refusals import shortened
from ..utils.terminal import text_table

CELL = ["attack", "source", "target", "defence", "norm", "eps_255"]
ROBUST, CLEAN = "robust accuracy", "clean accuracy"
NOTES = "notes"
"""Key in `frame.attrs`: what else differs between the sweeps, as lines."""
_TARGET = ["target", "defence"]

Values = NDArray[np.float64]


def compare(
    old: pd.DataFrame,
    new: pd.DataFrame,
    *,
    pairs: Mapping[str, str] | None = None,
    eps_255: float | None = None,
    common: bool = False,
) -> pd.DataFrame:
    """Compute how much accuracy changed between two frames of `load_sweep` on the same images.

    Every image counts. It is right if the predicted class is the true one, and wrong if the target
    abstains. A cell of robust accuracy is an attack, source, target and defence; one of clean
    accuracy is a target and defence.

    Args:
        old: The frame that the other one is compared with.
        new: The other frame.
        pairs: Names of models in `new` by their names in `old`, where these differ. Models of `old`
            keep different names.
        eps_255: Budget in units of 1/255; None: each job's reference budget.
        common: Leave out the cells of `old` that `new` lacks.

    Returns:
        One row per cell with the columns `measure` (robust or clean accuracy), those of `CELL`,
        `is_mean`, `cells`, `images`, the accuracies `old` and `new`, their `change` in [-1, 1], and
        its 95 % interval `low` and `high`. The intervals of all rows hold together. The worst
        change of a measure comes first. If a measure has several cells, a row with `is_mean` and
        without names precedes them. It is the mean over targets of each target's mean over cells
        without white boxes (with them if there are no others); `cells` is their number.
        `attrs["notes"]` says what else differs.

    Raises:
        ValueError: Images, norms or budgets differ; `new` lacks a cell of `old`; there are fewer
            than 30 images; or `pairs` has an unknown name, or gives two models one name.
    """
    sides = _read(old, "OLD", eps_255, pairs or {}), _read(new, "NEW", eps_255, {})
    _check_alike(*sides, eps_255)
    parts, values, notes = [], [], _notes(*sides)
    for measure in (ROBUST, CLEAN):
        first, second = (side.right[measure] for side in sides)
        first, second, left_out = _in_both(first, second, common)
        notes += left_out
        rows, weights = _means(measure, first.columns)
        counted = (weights > 0).astype(int) @ first.notna().to_numpy().T > 0
        parts.append(rows.assign(images=counted.sum(axis=1)))
        values.append([weights @ (side / side.count()).fillna(0).T for side in (first, second)])
    before, after = (np.concatenate(its) for its in zip(*values, strict=True))
    images = before.shape[1]
    change, margin = compare_versions(before * images, after * images)
    frame = pd.concat(parts, ignore_index=True)
    old_rate, new_rate = (its.sum(axis=1).clip(0, 1) for its in (before, after))  # of rounding
    frame = frame.assign(old=old_rate, new=new_rate, change=change)
    frame["low"] = np.maximum(change - margin, -frame["old"])
    frame["high"] = np.minimum(change + margin, 1 - frame["old"])
    keys = [frame["measure"] == CLEAN, ~frame["is_mean"], change]
    frame = frame.iloc[np.lexsort(list(map(np.asarray, keys[::-1])))].reset_index(drop=True)
    frame.attrs[NOTES] = notes
    return frame


def _in_both(
    old: pd.DataFrame, new: pd.DataFrame, common: bool
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return the cells that both sweeps have, on images in equal order, and notes on others.

    Raises:
        ValueError: As `compare`, for missing cells and images.
    """
    only = {"OLD": old.columns.difference(new.columns), "NEW": new.columns.difference(old.columns)}
    cells = old.columns.intersection(new.columns, sort=False)
    if common and not len(cells):
        raise ValueError("No cell is in both sweeps.")
    if len(lost := only["OLD"]) and not common:
        raise ValueError(
            f"NEW lacks {len(lost)} of the {old.shape[1]} cells in OLD, such as "
            f"{_text(lost[0])}. If a model has another name: --pair OLDNAME=NEWNAME. To leave "
            "cells out: --common."
        )
    old, new = old[cells], new[cells].reindex(old.index)
    if (old.isna() != new.isna()).any(axis=None):
        raise ValueError("Some targets have predictions for other images in NEW than in OLD.")
    listed = {name: shortened([*map(_text, its)]) for name, its in only.items()}
    return old, new, [f"only in {name}: {texts}" for name, texts in listed.items() if texts]


def sentence(row: pd.Series) -> str:
    """Say how the accuracy of a row of `compare` has changed, or which fall is excluded."""
    name = f"{row['measure']}, {_row_name(row)}"
    if row["low"] <= 0 <= row["high"]:
        return f"{name}: falls above {-100 * row['low']:.1f} points are excluded"
    size, *ends = (abs(100 * row[column]) for column in ("change", "low", "high"))
    return f"{name}: {_verdict(row)} by {size:z.1f} points [{min(ends):z.1f}, {max(ends):z.1f}]"


def change_table(changes: pd.DataFrame) -> Table:
    """Lay out the rows of `compare` for the terminal, in percent and points."""
    heads = ["attack", "source", "target", "OLD", "NEW", "change", "95 % interval", ""]
    texts = []
    for _, row in changes.iterrows():
        names = ["" if pd.isna(name) else name for name in row[CELL[:3]]]
        if row["is_mean"]:
            names[0] = f"mean of {row['cells']}"
        elif row["defence"] != NO_DEFENCE:
            names[2] += f"@{row['defence']}"
        if row["measure"] == CLEAN:
            names[0] = f"clean {names[0]}".strip()
        old, new = (f"{100 * row[name]:.1f}" for name in ("old", "new"))
        change, low, high = (f"{100 * row[name]:+z.1f}" for name in ("change", "low", "high"))
        texts.append([*names, old, new, change, f"[{low}, {high}]", _verdict(row)])
    return text_table(heads, texts, heads[:3], ruled=True)


def _verdict(row: pd.Series) -> str:
    """Return `fell`, `rose`, or nothing if the interval contains no change."""
    return "fell" * bool(row["high"] < 0) + "rose" * bool(row["low"] > 0)


def _row_name(row: pd.Series) -> str:
    if row["is_mean"]:
        return f"mean of {row['cells']} {'cell' if row['cells'] == 1 else 'cells'}"
    return _text([*row[CELL].dropna()])


@dataclass(frozen=True)
class _Side:
    """One of two sweeps, with the new names of its models.

    Attributes:
        jobs: The records of the jobs with adversarial images, by attack and source.
        targets: Keys of everything that decides each target's logits.
        right: Whether images are right (1 or 0; NaN: no prediction), images x cells, by measure.
    """

    jobs: Mapping[tuple[str, str], JobRecord]
    targets: Mapping[str, str]
    right: Mapping[str, pd.DataFrame]


def _read(frame: pd.DataFrame, name: str, eps_255: float | None, pairs: Mapping[str, str]) -> _Side:
    """Read the primary variants at `eps_255`, or at each job's reference budget."""
    jobs: dict[tuple[str, str], JobRecord] = {}
    targets: dict[str, str] = {}
    labels, models = [], set[str]()
    right: dict[str, dict[tuple[Any, ...], pd.Series]] = {ROBUST: {}, CLEAN: {}}
    for job in (job for job in jobs_of(frame) if job.attacked):
        record, source = job.record, renamed(job.record.source, pairs)
        eps = record.reference if eps_255 is None else eps_255
        jobs[job.attack, source] = record
        models |= {record.source, *record.targets}
        targets |= {renamed(target, pairs): key for target, key in record.target_keys.items()}
        for (model, defence), rows in job.defended.groupby(_TARGET, observed=True):
            rows = rows.set_index("index")
            is_right = (rows["predicted"] == rows["label"]).astype(float)
            pair = renamed(str(model), pairs), str(defence)
            if (attacked := (rows["eps_255"] == eps) & (eps > 0)).any():
                right[ROBUST][job.attack, source, *pair, record.norm, eps] = is_right[attacked]
                clean = is_right[rows["eps_255"] == 0]
                right[CLEAN][pair] = right[CLEAN].get(pair, clean).combine_first(clean)
                labels.append(rows["label"])
    if not labels:
        at = "" if eps_255 is None else f" at --eps {eps_255:g}"
        raise ValueError(f"{name} has no adversarial images{at}.")
    parts = {part for model in models for part in parts_of(model)}
    called = [renamed(model, pairs) for model in parts.union(models)]
    for model, new in pairs.items():
        if model not in parts:
            raise ValueError(f"--pair {model}: {name} has no model of this name.")
        if called.count(new) > 1:
            raise ValueError(f"--pair {model}={new}: {name} has two models of this new name.")
    if pd.concat(labels).groupby(level=0).nunique().max() > 1:
        raise ValueError(f"{name} has several sets of images. Compare sweeps on one set.")
    wide = {measure: pd.DataFrame(its) for measure, its in right.items()}
    wide[ROBUST].columns.names, wide[CLEAN].columns.names = CELL, _TARGET
    return _Side(jobs, targets, wide)


def _check_alike(old: _Side, new: _Side, eps_255: float | None) -> None:
    """Raise a ValueError unless jobs of the same name have the same images, norm and budgets."""
    compared = {"images": "data", "norms": "norm"}
    if eps_255 is None:
        compared |= {"reference budgets": "reference", "budgets": "budgets"}
    for job in (job for job in old.jobs if job in new.jobs):
        for what, field in compared.items():
            one, two = (getattr(side.jobs[job], field) for side in (old, new))
            if one != two:
                how = " Choose one budget with --eps." if what.endswith("budgets") else ""
                raise ValueError(
                    f"The {what} of {' from '.join(job)} differ: OLD {one}, NEW {two}.{how}"
                )
    if (images := len(old.right[ROBUST])) < FEWEST_TESTED:
        raise ValueError(f"{images} images are too few to compare: {FEWEST_TESTED} are needed.")


def _notes(old: _Side, new: _Side) -> list[str]:
    """Return which targets are other networks, and which adversarial images are others."""
    targets = [name for name, key in old.targets.items() if new.targets.get(name, key) != key]
    images = [
        " from ".join(job)
        for job, record in old.jobs.items()
        if job in new.jobs and _images_of(new.jobs[job]) != _images_of(record)
    ]
    return [
        f"other networks as targets: {shortened(targets) or 'none'}",
        f"other adversarial images: {shortened(images) or 'none'}",
    ]


def _images_of(record: JobRecord) -> tuple[str, str]:
    """Return what decides adversarial images, besides the clean images and the budget."""
    return record.crafting, record.storage


def _means(measure: str, cells: pd.Index) -> tuple[pd.DataFrame, Values]:
    """Return the rows of a measure and the cells' weights in each, shape (R, C)."""
    rows = cells.to_frame(index=False)
    frame = rows.reindex(columns=CELL).assign(measure=measure, is_mean=False, cells=1)
    weights = np.eye(len(rows))
    if len(rows) == 1:
        return frame, weights
    if measure == ROBUST:
        pairs = zip(rows["source"], *(rows[name] for name in _TARGET), strict=True)
        white = [relation(ModelRef.parse(a), ModelRef.parse(*of)) != TRANSFER for a, *of in pairs]
        rows = rows if all(white) else rows[~np.array(white)]
    groups = rows.groupby(_TARGET)
    mean = np.zeros((1, len(frame)))
    mean[0, rows.index] = 1 / groups["target"].transform("size") / groups.ngroups
    first = pd.DataFrame({"measure": [measure], "is_mean": True, "cells": len(rows)})
    return pd.concat([first, frame], ignore_index=True), np.concatenate([mean, weights])


def _text(cell: Sequence[Any]) -> str:
    """Return the name of a cell of either measure.

    >>> _text(("mi", "vgg16", "resnet50", "jpeg", "linf", 8.0)), _text(("resnet50", "none"))
    ('mi from vgg16 on resnet50@jpeg', 'resnet50')
    """
    *job, target, defence = cell[:4]
    return " on ".join([*filter(None, [" from ".join(job)]), str(ModelRef.parse(target, defence))])
