"""Targets behind defences, and attacks through defences, in the stored tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis import TRANSFER, job_outcomes, relation, wilson_interval
from src.artifacts import FinishedJob, JobRecord
from src.utils.model_names import NO_DEFENCE, ModelRef

Mask = NDArray[np.bool_]


def behind_defences(jobs: Sequence[FinishedJob], targets: Sequence[str]) -> pd.DataFrame:
    """Compare targets behind defences with the same targets as they are, over jobs of one attack.

    Pairs of a network with itself are left out. Means are over the targets, each over its sources,
    as in rankings. Intervals are of a bootstrap over images, which
    all pairs share.

    Returns:
        A row per defence of the jobs, none first: `clean` accuracy on the images without
        abstention, and the share of clean images with one, `unsure`; `robust` accuracy at the
        reference budget on the images of `joint`, with `robust_low` and `robust_high`; `gain`, how
        much larger it is than without, on the images that count behind both, with its interval;
        and the share of images `abstained` on.
    """
    weights = _resampled(jobs[0].record.images)
    rows, tables = [], [(job.record, job.defended) for job in jobs]
    for defence in (NO_DEFENCE, *jobs[0].record.defences):
        found, of = [], []
        for record, table in tables:
            kinds = {name: relation(record.source_model, ModelRef.parse(name)) for name in targets}
            mine = [name for name in targets if kinds[name] == TRANSFER]
            found += [_pair(record, table, target, defence) for target in mine]
            of += mine
        clean, unsure, abstained, plain, own = map(np.array, zip(*found, strict=True))
        of_pairs = np.array([1 / (of.count(name) * len({*of})) for name in of])
        robust = _shares(own, weights, of_pairs)
        both = plain[:, 0] & own[:, 0]
        gain = _shares(np.stack([both, own[:, 1]], 1), weights, of_pairs) - _shares(
            np.stack([both, plain[:, 1]], 1), weights, of_pairs
        )
        row = {"defence": defence, "clean": clean @ of_pairs, "unsure": unsure @ of_pairs}
        row["abstained"] = abstained @ of_pairs
        for name, values in (("robust", robust), ("gain", gain)):
            ends = np.nanquantile(values[1:], [0.025, 0.975])
            row |= {name: values[0], f"{name}_low": ends[0], f"{name}_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def _pair(
    own: JobRecord, table: pd.DataFrame, target: str, defence: str
) -> tuple[float, float, float, Any, Any]:
    """Return a target's numbers of `behind_defences`, and masks (2, N) of counted and correct.

    The numbers are the clean accuracy and the shares of abstentions, clean and attacked; the first
    masks are those without the defence.
    """
    pairs = dict.fromkeys([ModelRef.parse(target), ModelRef.parse(target, defence)])
    found = job_outcomes(table, own.source, list(pairs), "joint")
    at = int(np.flatnonzero(found.eps_255 == own.reference)[0])
    counted = found.counted & found.present[:, :, at]
    both = np.stack([counted, found.correct[:, :, at]], axis=1)
    abstained = (found.abstained[-1, :, at] & found.counted[-1]).sum() / found.counted[-1].sum()
    clean = found.target_clean[-1][found.present[-1, :, 0]].mean()
    unsure = found.abstained[-1, :, 0].mean()
    return float(clean), float(unsure), float(abstained), both[0], both[-1]


def _resampled(images: int) -> NDArray[np.int64]:
    """Return weights of images (1 + 2000, N): each image once, then those of a bootstrap."""
    weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), 2000)
    return np.concatenate([np.ones_like(weights[:1]), weights])


def _shares(
    pairs: NDArray[np.bool_], weights: NDArray[np.int64], of_pairs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean over pairs (P, 2, N) of correct among counted images.

    Args:
        pairs: Masks of counted and of correct images.
        weights: Weights of images, shape (B, N).
        of_pairs: Weights of pairs, shape (P,), with sum 1.

    Returns:
        One mean for each weighting of images, shape (B,).
    """
    counted = weights @ pairs[:, 0].T.astype(float)
    correct = weights @ (pairs[:, 0] & pairs[:, 1]).T.astype(float)
    with np.errstate(invalid="ignore"):  # without images a share is NaN
        return correct / counted @ of_pairs


def adaptive(jobs: Sequence[FinishedJob], targets: Sequence[str]) -> pd.DataFrame:
    """Compare attacks through defences with plain ones, on the network itself and on others.

    Args:
        jobs: Adaptive attacks, and plain ones (`mi`, `pgd`) of the same networks.
        targets: Networks, of which those that are not the source count as others.

    Returns:
        A row per adaptive attack, and per plain `pgd` without a defence: `defence`, `source`,
        `attack`, `gradients` per image; and for `itself` and `others`, the source and the mean
        over the other targets behind the defence, the number of `images` (`itself_images`) and for
        each attack (`mi`, `pgd`, `adaptive`) the share that stays correct with its interval
        (`itself_mi`, `itself_mi_low`, `itself_mi_high`) on the images that count under all, and
        the share of abstentions (`itself_mi_abstained`), which are not correct. `mi_undefended` is
        `mi` on the same images of the networks without the defence.
    """
    rows = []
    order = [NO_DEFENCE, *max((job.record.defences for job in jobs), key=len)]
    for job in (job for job in jobs if job.record.attack != "mi"):
        model, defence = job.record.source_model.columns
        plain = [
            one
            for one in jobs
            if one.record.source == model and defence in (NO_DEFENCE, *one.record.defences)
        ]
        rivals = {one.record.attack: one for one in plain} | {"adaptive": job}
        gradients = job.predictions["gradients"].max()
        row = {"defence": defence, "source": model, "attack": job.attack, "gradients": gradients}
        others = [name for name in targets if name != model]
        for kind, names in (("itself", [model]), ("others", others)):
            row |= _rivals(kind, rivals, names, defence)
        rows.append(row)
    rows.sort(key=lambda row: (order.index(row["defence"]), row["source"]))
    return pd.DataFrame(rows)


def through_defences(jobs: Sequence[FinishedJob], targets: Sequence[str]) -> pd.DataFrame:
    """Compare attacks through defences with the same attacks without, on networks behind them.

    Args:
        jobs: Plain attacks of one source, and attacks of the source behind defences.
        targets: Networks, of which those that are not the source count.

    Returns:
        A row per defence of the plain jobs, none first, with the columns `others_` of `adaptive`:
        for each attack such as `mi`, the share that stays correct is `others_mi`, and
        `others_mi_through` if the attack takes gradients through the row's defence; `least` is the
        smallest of these shares. Attacks through other defences are left out, see `undefended`.
    """
    models = [job.record.source_model for job in jobs]
    plain = [job for job, at in zip(jobs, models, strict=True) if at.defence == NO_DEFENCE]
    others = [name for name in targets if name != models[0].model]
    rows = []
    for defence in (NO_DEFENCE, *plain[0].record.defences):
        rivals = {job.record.attack: job for job in plain}
        for job, at in zip(jobs, models, strict=True):
            if at.defence == defence != NO_DEFENCE:
                rivals[f"{job.record.attack}_through"] = job
        row = _rivals("others", rivals, others, defence)
        least = min(row[f"others_{name}"] for name in rivals)
        rows.append({"defence": defence, "least": least} | row)
    return pd.DataFrame(rows)


def undefended(jobs: Sequence[FinishedJob], targets: Sequence[str]) -> pd.DataFrame:
    """Compare all attacks of one source, plain or through a defence, on undefended networks.

    Args:
        jobs: Attacks of the source as it is, and behind defences.
        targets: Networks, of which those that are not the source count.

    Returns:
        A row per attack, the strongest first: `attack`, `defence` whose gradients it takes,
        `gradients` per image, and the share that stays `correct` with its interval, `low` and
        `high`, on the images that count for the plain attacks.
    """
    others = [name for name in targets if name != jobs[0].record.source_model.model]
    rivals = {f"{job.attack} {job.record.source_model.defence}": job for job in jobs}
    plain = [name for name in rivals if name.endswith(f" {NO_DEFENCE}")]
    found, rows = _rivals("others", rivals, others, NO_DEFENCE, plain), []
    for name, job in rivals.items():
        ends = [found[f"others_{name}{end}"] for end in ("", "_low", "_high")]
        defence, gradients = job.record.source_model.defence, job.record.gradients
        rows.append([job.record.attack, defence, gradients / job.record.images, *ends])
    columns = ["attack", "defence", "gradients", "correct", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("correct", ignore_index=True)


def loss_behind(known: FinishedJob, plain: FinishedJob, targets: Sequence[str]) -> pd.Series:
    """Compare an attack through a defence on targets behind it with another on plain targets.

    Args:
        known: An attack of a source behind a defence.
        plain: An attack of the source as it is, on the same images.
        targets: Networks, of which those that are not the source count.

    Returns:
        By how much less stays correct behind the defence, on images that count on both sides: the
        mean over targets `loss`, and the ends of its 95 % interval, `low` and `high` (bootstrap).
    """
    model, defence = known.record.source_model.columns
    others = [name for name in targets if name != model]
    sides = _masks(plain, others, NO_DEFENCE), _masks(known, others, defence)
    counted = sides[0][0] & sides[1][0]
    pairs = np.concatenate([np.stack([counted, correct], axis=1) for _, correct, _ in sides])
    of_pairs = np.repeat([1, -1], len(others)) / len(others)
    losses = _shares(pairs, _resampled(counted.shape[1]), of_pairs)
    low, high = np.quantile(losses[1:], [0.025, 0.975])
    return pd.Series({"loss": losses[0], "low": low, "high": high})


def _masks(job: FinishedJob, targets: Sequence[str], defence: str) -> tuple[Mask, Mask, Mask]:
    """Return the counted, correct and abstained images of targets at the reference budget."""
    pairs = [ModelRef.parse(name, defence) for name in targets]
    found = job_outcomes(job.defended, job.record.source, pairs, "joint")
    at = int(np.flatnonzero(found.eps_255 == job.record.reference)[0])
    return found.counted, found.correct[:, :, at], found.abstained[:, :, at]


def _rivals(
    kind: str,
    rivals: Mapping[str, FinishedJob],
    targets: Sequence[str],
    defence: str,
    counting: Sequence[str] | None = None,
) -> dict[str, float]:
    """Return the numbers of `adaptive` for some targets, on the images of all or some rivals."""
    cells = {attack: _masks(job, targets, defence) for attack, job in rivals.items()}
    counted = np.all([cells[attack][0] for attack in counting or cells], axis=0)
    if "mi" in rivals:  # what the defence gains against it
        cells["mi_undefended"] = _masks(rivals["mi"], targets, NO_DEFENCE)
    row = {f"{kind}_images": counted.sum() / len(targets)}
    for attack, (_, correct, abstained) in cells.items():
        each = np.full(len(targets), 1 / len(targets))
        shares = _shares(np.stack([counted, correct], axis=1), _resampled(counted.shape[1]), each)
        ends = np.nanquantile(shares[1:], [0.025, 0.975])
        if len(targets) == 1:  # of a rate near 0 a bootstrap is too short
            ends = np.array(wilson_interval((counted & correct).sum(), counted.sum()))
        name = f"{kind}_{attack}"
        row |= {name: shares[0], f"{name}_low": ends[0], f"{name}_high": ends[1]}
        row[f"{name}_abstained"] = (counted & abstained).sum() / counted.sum()
    return row
