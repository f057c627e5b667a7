"""Accuracy in two sweeps on the same images: did a network become weaker?"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.multiple_comparisons import FEWEST_TESTED, compare_versions
from ..analysis.outcomes import Values
from ..analysis.transfer_rates import TRANSFER, relation
from ..artifacts.comparable import differences, differing
from ..artifacts.jobs import name_jobs
from ..artifacts.record import JobRecord
from ..artifacts.sweep_folders import Sweeps
from ..report.grid import Grid
from ..report.results import Results, open_jobs
from ..report.words import cell_name, direction, gate_sentence
from ..utils.model_names import NO_DEFENCE, ModelRef, parts_of, renamed
from ..utils.refusals import shortened

CELL = ["attack", "source", "target", "defence", "norm", "eps_255"]
ROBUST, CLEAN = "robust accuracy", "clean accuracy"
OUTCOME = ["image", "index", "target", "defence", "eps_255"]
"""Columns that name an outcome."""
SAME = (
    *("attack", "storage", "seed", "program's code", "weights", "preprocessing", "defence"),
    *("trainer.precision", "trainer.attack_precision"),
)
"""Facts in which jobs with equal outcomes may differ."""
NOTES = "notes"
"""Key in `frame.attrs`: what else differs between the sweeps, as lines."""
_TARGET = ["target", "defence"]


def compare(
    old: Sweeps | Results,
    new: Sweeps | Results,
    *,
    pairs: Mapping[str, str] | None = None,
    eps_255: float | None = None,
    common: bool = False,
) -> pd.DataFrame:
    """Compute how much accuracy changed between two sweeps on the same images.

    Every image counts. It is right if the predicted class is the true one, and wrong if the target
    abstains. A cell of robust accuracy is an attack, source, target and defence; one of clean
    accuracy is a target and defence.

    Args:
        old: What `load_sweep` or `transfer` returned, or a folder; compared with the other one.
        new: The other one.
        pairs: Names of models in `new` by their names in `old`, where these differ. Models of `old`
            keep different names.
        eps_255: Budget in units of 1/255; None: each job's reference budget.
        common: Leave out the cells of `old` that `new` lacks.

    Returns:
        One row per cell with the columns `measure` (robust or clean accuracy), those of `CELL`,
        `is_mean`, `cells`, `images`, and these:

        - `old`, `new`, `change`: the accuracies, and the second minus the first, in [-1, 1];
        - `old_right`, `new_right`: numbers of images that are right;
        - `lost`, `gained`: numbers of images that are less, or more, often right than before;
        - `low`, `high`, `p_adjusted`: 95 % interval and p-value, which hold together for all rows
          of a measure (random signs per image);
        - `p`: p-value of this row alone (exact McNemar test);
        - `largest_fall`: falls up to this one cannot be excluded, at one-sided 95 % in each row,
          rounded up to 0.001.

        The worst change of a measure comes first. If a measure has several cells, a row with
        `is_mean` and without names and `p` precedes them. It is the mean over targets of each
        target's mean over cells without white boxes (with them if there are no others); `cells` is
        their number. `attrs["notes"]` says what else differs.

    Raises:
        ValueError: Images, norms or budgets differ; `new` lacks a cell of `old`; there are fewer
            than 30 images; or `pairs` has an unknown name, or gives two models one name.
    """
    sides = _read(old, "OLD", eps_255, pairs or {}), _read(new, "NEW", eps_255, {})
    _check_alike(*sides, eps_255)
    from scipy.stats import binomtest  # slow to import

    parts, notes = [], _notes(*sides)
    for measure in (ROBUST, CLEAN):
        first, second = (side.right[measure] for side in sides)
        first, second, left_out = _in_both(first, second, common)
        notes += left_out
        rows, weights = _means(measure, first.columns)
        tables = first.notna().astype(float), first.fillna(0), second.fillna(0)
        weights = weights * len(first) / first.count().to_numpy()
        values, before, after = (weights @ table.to_numpy().T for table in tables)
        most, rows["images"] = values.max(axis=1), (values > 0).sum(axis=1)
        for name, rows_of in (("old", before), ("new", after)):
            rows[name] = rows_of.mean(axis=1).clip(max=1)  # of rounding
            rows[f"{name}_right"] = (rows[name] * rows["images"]).round(6)
        steps = (after - before).round(9)
        rows["lost"], rows["gained"] = (steps < 0).sum(axis=1), (steps > 0).sum(axis=1)
        changed = rows.loc[~rows["is_mean"], ["lost", "gained"]]
        rows["p"] = changed.apply(lambda row: binomtest(max(row), max(row.sum(), 1)).pvalue, axis=1)
        alone = rows["p"].fillna(0).to_numpy()
        parts.append(rows.assign(**compare_versions(before, after, most=most, alone=alone)))
    frame = pd.concat(parts, ignore_index=True)
    keys = [frame["measure"] == CLEAN, ~frame["is_mean"], frame["change"]]
    frame = frame.iloc[np.lexsort(list(map(np.asarray, keys[::-1])))].reset_index(drop=True)
    frame.attrs[NOTES] = notes
    return frame


def equal_outcomes(old: Sweeps | Results, new: Sweeps | Results) -> tuple[bool, list[str]]:
    """Count the outcomes that are equal in two sweeps, on the images that both have.

    An outcome is the class that a target predicts for an image at a budget. A job is compared with
    those of the same attack, source and norm whose settings differ least; the order of an
    ensemble's members does not matter. Equal images have equal digests and places in their set.

    Returns:
        Whether all of these outcomes are equal, a line per job of `old`, and the sum.

    Raises:
        ValueError: No outcome is in both.
    """
    lines, counts = list[str](), np.zeros(2, int)
    others = open_jobs(new)
    for job in name_jobs(open_jobs(old), ()):
        name = " from ".join(filter(None, [job.attack, job.record.source]))
        alike = defaultdict[tuple[str, ...], list[pd.DataFrame]](list)
        for other in others:
            if _job_name(job.record) == _job_name(other.record):
                unlike = (*differing(job.record, other.record, fields=SAME),)
                alike[unlike].append(other.defended)
        if not alike:
            lines.append(f"{name}: only in the first")
            continue
        unlike, tables = min(alike.items(), key=lambda pair: len(pair[0]))
        both = job.defended.merge(pd.concat(tables), on=OUTCOME, suffixes=("", "_new"))
        columns = both[["label", "predicted"]], both[["label_new", "predicted_new"]]
        equal = int((columns[0].to_numpy() == columns[1].to_numpy()).all(axis=1).sum())
        counts += equal, len(both)
        images = both["image"].nunique()
        line = f"{name}: {equal:,} of {len(both):,} outcomes equal, {images:,} images in common"
        lines.append(line + f"; other {shortened([*unlike])}" * bool(unlike))
    if not counts[1]:
        raise ValueError("No outcome is in both: they have no job, image and budget in common.")
    lines.append(f"{counts[0]:,} of {counts[1]:,} outcomes are equal")
    return bool(counts[0] == counts[1]), lines


def _job_name(record: JobRecord) -> tuple[str, ...]:
    """Return what the jobs of two sweeps are paired by."""
    return record.attack, _without_order(record.source), record.norm


def _without_order(model: str) -> str:
    """Return a model's name with an ensemble's members in alphabetical order."""
    ref = ModelRef.parse(model)
    return str(ModelRef(tuple(sorted(ref.members)), ref.defence))


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
            f"{cell_name(lost[0])}. If a model has another name: --pair OLDNAME=NEWNAME. To leave "
            "cells out: --common."
        )
    old, new = old[cells], new[cells].reindex(old.index)
    if (old.isna() != new.isna()).any(axis=None):
        raise ValueError("Some targets have predictions for other images in NEW than in OLD.")
    few: list[Any] = [cell for cell in old if old[cell].count() < FEWEST_TESTED]
    if few and not (common and len(few) < old.shape[1]):
        raise ValueError(
            f"{cell_name(few[0])}: {old[few[0]].count()} images are too few to compare: "
            f"{FEWEST_TESTED} are needed."
        )
    left: dict[str, Any] = {f"only in {name}": names for name, names in only.items()}
    left["too few images"] = few
    notes = [f"{why}: {shortened([*map(cell_name, ids)])}" for why, ids in left.items() if len(ids)]
    return old.drop(columns=few), new.drop(columns=few), notes


def gate(changes: pd.DataFrame, max_fall: float | None = None) -> tuple[bool, str]:
    """Decide whether the rows of `compare` pass, and say why.

    They pass if a fall above `max_fall` points is excluded in every row; None: if no row fell
    significantly. Each row is tested at 5 % without correction, because all must pass: a network
    that is worse by `max_fall` in any row passes with a probability of at most 5 %.

    Reference:
        R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24
        (1982), intersection-union tests.
    """
    if max_fall is None:
        passed = not (changes["high"] < 0).any()
    else:
        passed = round(100 * changes["largest_fall"].max(), 9) <= max_fall  # 7.000000000000001 is 7
    return passed, gate_sentence(changes, max_fall, passed)


def as_json(changes: pd.DataFrame, max_fall: float | None = None) -> str:
    """Return the rows of `compare` as a JSON list, in percent and points; null: unknown."""
    shares = changes[["old", "new", "change", "low", "high", "largest_fall"]]
    points = (100 * shares).round(9)
    excluded = None if max_fall is None else points["largest_fall"] <= max_fall
    verdicts = {"verdict": changes.apply(direction, axis=1), "excluded": excluded}
    return changes.assign(**points, **verdicts).to_json(orient="records", double_precision=15)


def change_table(changes: pd.DataFrame) -> Grid:
    """Lay out the rows of `compare`, in percent and points."""
    heads = ["attack", "source", "target", "OLD", "NEW", "change", "95 % interval", "fall <=", ""]
    texts = []
    for _, row in changes.iterrows():
        names = ["" if pd.isna(name) else name for name in row[CELL[:3]]]
        if row["is_mean"]:
            names[0] = f"mean of {row['cells']}"
        elif row["defence"] != NO_DEFENCE:
            names[2] += f"@{row['defence']}"
        names[0] = f"{'clean ' * (row['measure'] == CLEAN)}{names[0]}".strip()
        old, new, fall = (f"{100 * row[name]:.1f}" for name in ("old", "new", "largest_fall"))
        change, low, high = (f"{100 * row[name]:+z.1f}" for name in ("change", "low", "high"))
        texts.append([*names, old, new, change, f"[{low}, {high}]", fall, direction(row)])
    return Grid(heads, texts, left=range(3))


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


def _read(
    sweep: Sweeps | Results, name: str, eps_255: float | None, pairs: Mapping[str, str]
) -> _Side:
    """Read the primary variants at `eps_255`, or at each job's reference budget."""
    jobs: dict[tuple[str, str], JobRecord] = {}
    targets: dict[str, str] = {}
    labels, doubled, models = [], [], set[str]()

    def called(model: str) -> str:
        return _without_order(renamed(model, pairs))

    right: dict[str, dict[tuple[Any, ...], pd.Series]] = {ROBUST: {}, CLEAN: {}}
    for job in name_jobs([job for job in open_jobs(sweep) if job.attacked], ()):
        record, source = job.record, called(job.record.source)
        eps = record.reference if eps_255 is None else eps_255
        jobs[job.attack, source] = record
        models |= {record.source, *record.targets}
        targets |= {called(target): key for target, key in record.target_keys.items()}
        for (model, defence), rows in job.defended.groupby(_TARGET, observed=True):
            rows = rows.set_index("index")
            is_right = (rows["predicted"] == rows["label"]).astype(float)
            pair = called(str(model)), str(defence)
            if (attacked := (rows["eps_255"] == eps) & (eps > 0)).any():
                cell = job.attack, source, *pair, record.norm, eps
                doubled += [cell] if cell in right[ROBUST] else []
                right[ROBUST][cell] = is_right[attacked]
                clean = is_right[rows["eps_255"] == 0]
                right[CLEAN][pair] = right[CLEAN].get(pair, clean).combine_first(clean)
                labels.append(rows["label"])
    if not labels:
        at = "" if eps_255 is None else f" at --eps {eps_255:g}"
        raise ValueError(f"{name} has no adversarial images{at}.")
    parts = {part for model in models for part in parts_of(model)}
    names = [renamed(model, pairs) for model in parts.union(models)]
    for model, new in pairs.items():
        if model not in parts:
            raise ValueError(f"--pair {model}: {name} has no model of this name.")
        if names.count(new) > 1:
            raise ValueError(f"--pair {model}={new}: {name} has two models of this new name.")
    if doubled:
        raise ValueError(f"{name} has two jobs with {cell_name(doubled[0])}. Keep one of them.")
    if pd.concat(labels).groupby(level=0).nunique().max() > 1:
        raise ValueError(f"{name} has several sets of images. Compare sweeps on one set.")
    wide = {measure: pd.DataFrame(columns) for measure, columns in right.items()}
    wide[ROBUST].columns.names, wide[CLEAN].columns.names = CELL, _TARGET
    return _Side(jobs, targets, wide)


def _check_alike(old: _Side, new: _Side, eps_255: float | None) -> None:
    """Raise a ValueError unless jobs of the same name have the same images, norm and budgets."""
    budgets = ["epsilon.reference", "epsilon.grid"] * (eps_255 is None)
    for job in (job for job in old.jobs if job in new.jobs):
        for fields, way in ((["images", "norm"], ""), (budgets, " Choose one budget with --eps.")):
            if unlike := differences(old.jobs[job], new.jobs[job], fields=fields):
                name = " from ".join(job)
                raise ValueError(f"{name}: OLD and NEW differ in {', '.join(unlike)}.{way}")


def _notes(old: _Side, new: _Side) -> list[str]:
    """Return which targets are other networks, and which adversarial images are others."""
    targets = [name for name, key in old.targets.items() if new.targets.get(name, key) != key]
    images = [
        " from ".join(job)
        for job, record in old.jobs.items()
        if job in new.jobs and differences(record, new.jobs[job], fields=("attack", "storage"))
    ]
    return [
        f"other networks as targets: {shortened(targets) or 'none'}",
        f"other adversarial images: {shortened(images) or 'none'}",
    ]


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
