"""Numbers of the stored tables, as the documentation words them."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from statsmodels.stats.proportion import confint_proportions_2indep

from src.analysis import TRANSFER, WHITE_BOX, relation
from src.analysis.image_outcomes import count_ones, joined
from src.analysis.intervals import holm, wilson_interval
from src.analysis.outcomes import outcomes
from src.analysis.paired_tests import both_ways, paired_tests
from src.analysis.trajectories import trajectories
from src.artifacts.jobs import FinishedJob, find_jobs
from src.artifacts.record import JobRecord
from src.report.page.content import build_report
from src.report.page.html import Figure
from src.report.page.page_data import PageData, compute_page_data
from src.report.summary import Summary, summarise
from src.report.terminal import print_matrices
from src.utils.model_names import NO_DEFENCE, ModelRef

WIDTH = 120
"""Characters of a line of a matrix."""
DIFFER = {"cells": "cells", "cells_differ": "cells_differ", "largest": "largest_difference"}


class Sweep:
    """The stored jobs of a folder of tables."""

    def __init__(self, folder: Path) -> None:
        self.jobs: list[FinishedJob] = find_jobs([folder])

    @cached_property
    def summary(self) -> Summary:
        """Rates, excess and matrices of the jobs."""
        return summarise(self.jobs)

    @cached_property
    def found(self) -> PageData:
        """Every statistic of the report, its paired tests as the table `tests`."""
        found = compute_page_data(self.summary)
        tests = [paired_tests(group) for group in found.outcomes]
        found.tables["tests"] = pd.concat(tests, ignore_index=True)
        return found

    def row(self, table: str, **where: object) -> pd.Series:
        """Return the one row of a table of the report where columns have these values."""
        rows = self.found.table(table)
        for column, value in where.items():
            rows = rows[rows[column] == value]
        if len(rows) != 1:
            raise ValueError(f"{table} has {len(rows)} rows where {where}.")
        return rows.iloc[0]

    def rates(
        self, attack: str, source: str, target: str, eps_255: float | None = None
    ) -> pd.Series:
        """Return a pair's rates under the protocol `joint`; budget None: the reference."""
        pair = {"attack": attack, "source": source, "target": target, "protocol": "joint"}
        eps_255 = self.jobs[0].record.reference if eps_255 is None else eps_255
        return self.row("rates", **pair, eps_255=eps_255, primary=True)

    def success(self, attack: str, source: str, target: str) -> str:
        """Write a pair's success with its denominator and 95 % interval."""
        row = self.rates(attack, source, target)
        low, high = 100 * row["success_rate_low"], 100 * row["success_rate_high"]
        counts = f"{row['success']} / {row['denominator']}"
        return f"{counts} = {row['success_rate']:.0%} ({low:.0f}-{high:.0f})"

    def matrix(self, attack: str) -> str:
        """Write an attack's matrix as the terminal shows it."""
        console = Console(file=StringIO(), width=WIDTH, record=True)
        (matrix,) = [one for one in self.summary.matrices if one.attack == attack]
        print_matrices(Summary(matrices=[matrix]), console)
        return "\n".join(line.rstrip() for line in console.export_text().strip().splitlines())

    def images(self, attack: str, source: str, target: str) -> pd.DataFrame:
        """Describe every image of a pair over the budgets; see `trajectories`."""
        job = next(job for job in self.jobs if (job.attack, job.record.source) == (attack, source))
        return trajectories(job.predictions, source, [target], "joint", job.flips)

    def attacks(self, *, targeted: bool = False) -> list[str]:
        """Return the names of the attacks, in the order of the jobs, with target labels or none."""
        rates = self.found.table("rates")
        return list(dict.fromkeys(rates.loc[rates["targeted"] == targeted, "attack"]))

    def against(self, baseline: str, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
        """Compare every untargeted attack with one of them, of its norm, on the same images.

        Returns:
            A row per other attack and pair: `attack`, `source`, `target`, `difference` of the
            success rates with Tango's interval, and McNemar's exact `p` and `p_holm`, corrected
            for all of these rows.
        """
        tests = self.found.table("tests")
        rows = both_ways(tests[tests["kind"] == "attack"])
        rows = rows[rows["second"] == baseline]
        rows = rows.rename(columns={"common": "source", "first": "attack"})
        rows = rows[[pair in pairs for pair in zip(rows["source"], rows["target"], strict=True)]]
        return rows.assign(p_holm=holm(rows["p"]))

    def figure(self, name: str) -> Figure:
        """Return a chart of the report."""
        return next(one for one in build_report(self.summary).figures if one.name == name)


def beside_bases(sweeps: Sequence[Sweep], bases: Mapping[str, str]) -> pd.DataFrame:
    """Compare attacks with those that they build on, on models that are no part of the source.

    Returns:
        A row per attack of `bases` and source: `attack`, `base`, `source`; mean success of either
        over the `targets`, `success` and `base_success`; numbers of targets on which the attack is
        `better` or `worse` with p < 0.05, by McNemar's exact test with Holm's correction for all
        targets of all rows; and `gradients` an image.
    """
    tests = pd.concat([one.found.table("tests").query("kind == 'attack'") for one in sweeps])
    models = (map(ModelRef.parse, tests[name]) for name in ("common", "target"))
    others = np.array([relation(*pair) != WHITE_BOX for pair in zip(*models, strict=True)])
    tests = tests[others & (tests["second"].map(bases) == tests["first"])]
    significant = holm(tests["p"]) < 0.05
    tests = tests.assign(
        success=tests["second_success"] / tests["n"],
        base_success=tests["first_success"] / tests["n"],
        better=significant & (tests["difference"] < 0),
        worse=significant & (tests["difference"] > 0),
    )
    cost = {
        (one.job.attack, one.job.record.source): one.cost["gradients_per_image"]
        for sweep in sweeps
        for one in sweep.summary.jobs
    }
    found = tests.groupby(["second", "first", "common"], sort=False).agg(
        targets=("n", "size"),
        success=("success", "mean"),
        base_success=("base_success", "mean"),
        better=("better", "sum"),
        worse=("worse", "sum"),
    )
    rows = found.reset_index().set_axis(["attack", "base", "source", *found.columns], axis=1)
    order = {name: number for number, name in enumerate(bases)}
    rows = rows.sort_values("attack", key=lambda names: names.map(order), kind="stable")
    pairs = zip(rows["attack"], rows["source"], strict=True)
    return rows.assign(gradients=[cost[pair] for pair in pairs])


def benchmarks(folder: Path) -> pd.DataFrame:
    """Return what the stored benchmarks measured.

    Returns:
        A row per file, `input`, `attack` and library or variant of ours: the file's name, `plan`,
        `images`, `rounds`, `threads`, number of `budgets`; columns of `benchmarks.compare.times`;
        `bare`, seconds over those of the bare network calls that ours needed; of the `cells` of
        source, target and budget `cells_differ` in their count from ours, by `largest_difference`
        (NaN: ours).
    """
    times = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        for one in stored.get("results", ()):  # none of a GPU
            if "times" not in one:  # of growth
                continue
            about = {"plan": path.stem, **{key: one[key] for key in ("input", "attack")}}
            about |= {key: stored["options"][key] for key in ("images", "rounds", "threads")}
            about["budgets"] = len(stored["options"]["budgets"])
            for row in one["times"]:
                found = one["agreement"].get(row["library"], {})
                times.append(about | row | {name: found.get(key) for key, name in DIFFER.items()})
    return pd.DataFrame(times)


def decided_otherwise(one: Sweep, other: Sweep, attack: str, eps_255: float) -> dict[str, float]:
    """Compare two sweeps of the same attack, models and images, pair by pair and image by image.

    Returns:
        `n` pairs of a target and an image that both sweeps count under `joint`; `unlike`, how many
        of them one sweep alone fools; `first_only` and `second_only`, which; and `largest`, the
        largest difference of a source and target's rates, in points.

    Raises:
        ValueError: Data or weights are not the same.
    """
    found, models = [], []
    for sweep in (one, other):
        jobs = [job for job in sweep.summary.attacked if job.job.record.attack == attack]
        jobs.sort(key=lambda job: job.job.record.source)
        records = [job.job.record for job in jobs]
        models.append([(record.source, record.data, record.weights) for record in records])
        found.append(joined([job.outcomes[eps_255] for job in jobs]))
    if models[0] != models[1]:
        raise ValueError("the sweeps are not of the same data and weights.")
    both = found[0].counted & found[1].counted
    first, second = found[0].fooled & both, found[1].fooled & both
    masks = first, second, both
    cells = [
        100 * abs(count_ones(a) - count_ones(b)) / count_ones(n)
        for a, b, n in zip(*(each.reshape(-1, each.shape[-1]) for each in masks), strict=True)
        if n.any()
    ]
    return {
        "n": count_ones(both),
        "unlike": count_ones(first ^ second),
        "first_only": count_ones(first & ~second),
        "second_only": count_ones(second & ~first),
        "largest": max(cells),
    }


def beside_published(
    published: pd.DataFrame, sweep: Sweep, eps_255: float
) -> tuple[tuple[float, float], int]:
    """Compare what other models' FGSM images leave right with published counts.

    Returns:
        The smallest and the largest difference, ours minus theirs, in points; and of how many
        pairs the 95 % interval of the difference of two independent rates leaves 0 out.
    """
    found = []
    for row in published[published["source"] != published["target"]].to_dict("records"):
        own = sweep.rates("fgsm", row["source"], row["target"], eps_255)
        counts = [
            int(each[name]) for each in (own, row) for name in ("still_correct", "denominator")
        ]
        low, high = confint_proportions_2indep(*counts)
        found.append((100 * (counts[0] / counts[1] - counts[2] / counts[3]), low > 0 or high < 0))
    differences, beyond = zip(*found, strict=True)
    return (min(differences), max(differences)), sum(beyond)


def span(row: pd.Series, name: str, scale: float = 1, form: str = ".2f") -> str:
    """Write a value with its 95 % interval, such as `0.84 [0.79, 0.88]`."""
    value, low, high = (f"{scale * row[f'{name}{end}']:z{form}}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def difference(against: pd.DataFrame, attack: str, source: str, target: str) -> str:
    """Write a row of `Sweep.against` in points; nothing for those not compared."""
    pair = (against["source"] == source) & (against["target"] == target)
    rows = against[pair & (against["attack"] == attack)]
    return "".join(
        f"{span(row, 'difference', 100, '.0f')}, {p_value(row['p_holm'])}"
        for _, row in rows.iterrows()
    )


def p_value(p: float) -> str:
    """Write a p-value.

    >>> p_value(0.00001), p_value(0.0312)
    ('p < 0.0001', 'p = 0.03')
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.1g}"


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
    found = outcomes(table, own.source, list(pairs), "joint")
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
        the share of abstentions (`itself_mi_abstained`), which are not correct.
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


def _rivals(
    kind: str, rivals: Mapping[str, FinishedJob], targets: Sequence[str], defence: str
) -> dict[str, float]:
    """Return the numbers of `adaptive` for some targets."""
    pairs, cells = [ModelRef.parse(name, defence) for name in targets], {}
    for attack, job in rivals.items():
        found = outcomes(job.defended, job.record.source, pairs, "joint")
        at = int(np.flatnonzero(found.eps_255 == job.record.reference)[0])
        cells[attack] = found.counted, found.correct[:, :, at], found.abstained[:, :, at]
    counted = np.all([cell[0] for cell in cells.values()], axis=0)
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
