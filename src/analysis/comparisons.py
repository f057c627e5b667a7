"""Paired tests: attacks, sources and the two directions of transfer on the same images."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from src.analysis.intervals import exact_mcnemar, paired_interval
from src.analysis.outcomes import outcomes, target_labels
from src.analysis.rates import ratio

_TEST = ["difference", "difference_low", "difference_high", "p", "p_holm"]
_PAIRED = [
    *("kind", "target", "common", "first", "second", "n"),
    *("first_success", "second_success", "first_only", "second_only"),
]
_ASYMMETRY = [
    *("attack", "first", "second", "n", "forward", "backward", "forward_only", "backward_only"),
]


def paired_tests(
    jobs: Sequence["Compared"], eps_255: float, protocol: str = "joint"
) -> pd.DataFrame:
    """Compare attacks, and sources, on the images that both of two jobs count.

    Two attacks are compared where they have the same source and target and aim for the same
    classes or both for none; two sources where they have the same attack and target, also if
    each aims for classes of its own. Attacks that aim and attacks that do not are never
    compared: their successes are different things. A target that is white box for one of two
    sources is included.

    Args:
        jobs: Jobs of the same data set. Images are matched by `index`; those of one job alone
            are left out.
        eps_255: Budget in units of 1/255, above 0, one of those of every job.
        protocol: Which images each job counts, as in `rates`. With `joint`, two sources are
            compared on the images that both of them and the target get right when clean.

    Returns:
        One row per pair of jobs and target that both were shown to, `kind` "attack" before
        "source", pairs in the order of the jobs, targets in that of the first job, with

        - `target`; `common` (the shared source, or attack); `first`, `second` (the attacks, or
          sources);
        - `n` images; `first_success` and `second_success`, how many of them each of the two
          succeeds on (a targeted attack: by reaching its class); `first_only` and
          `second_only`, on how many just one of them does;
        - `difference` of the success rates in [-1, 1], first minus second, with its 95 %
          interval `difference_low` and `difference_high` (see `paired_interval`);
        - `p`, two-sided (see `two_sided_mcnemar`), and `p_holm`, corrected for the number of
          tests of this kind.

        Without an image (n = 0) there is no test: difference and p are NaN.

    Raises:
        ValueError: As `rates`, if the budget is not above 0 or a job lacks it, two jobs have the
            same attack and source, or an image has different labels in two jobs.

    Reference:
        S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6
        (1979).
    """
    answers = _answers_of_jobs(jobs, eps_255, protocol)
    records: list[tuple[object, ...]] = []
    for kind in ("attack", "source"):
        for one, other in combinations(range(len(jobs)), 2):
            same_attack = jobs[one].attack == jobs[other].attack
            same_source = jobs[one].source == jobs[other].source
            if same_attack == same_source or same_source != (kind == "attack"):
                continue
            names = jobs[one][:2], jobs[other][:2]  # (attack, source)
            differing, shared = (0, 1) if kind == "attack" else (1, 0)
            for target, first in answers[one].items():
                second = answers[other].get(target)
                if second is None or not _comparable(first, second, same_aims=kind == "attack"):
                    continue
                known = (kind, target, names[0][shared], names[0][differing], names[1][differing])
                records.append((*known, *_counts(first, second, names)))
    return _tested(pd.DataFrame(records, columns=_PAIRED), "kind")


def asymmetry(jobs: Sequence["Compared"], eps_255: float, protocol: str = "joint") -> pd.DataFrame:
    """Compare the two directions of transfer between models that are both source and target.

    Args:
        jobs: As for `paired_tests`.
        eps_255: Budget in units of 1/255, above 0, one of those of every job.
        protocol: Which images each job counts, as in `rates`; compared are those counted in
            both directions.

    Returns:
        One row per attack and pair of models, in the order of the jobs, with `attack`, `first`,
        `second`, `n` images, `forward` (on how many of them the attack made on the first
        succeeds against the second) and `backward` (made on the second, against the first),
        `forward_only` and `backward_only` (only one of the two succeeds), `difference` of the
        rates, forward minus backward, with `difference_low` and `difference_high`, `p` and
        `p_holm` (over all rows), each as in `paired_tests`.

    Raises:
        ValueError: As `paired_tests`.
    """
    answers = _answers_of_jobs(jobs, eps_255, protocol)
    records: list[tuple[object, ...]] = []
    for attack in dict.fromkeys(job.attack for job in jobs):
        mine = [place for place, job in enumerate(jobs) if job.attack == attack]
        for one, other in combinations(mine, 2):
            first, second = jobs[one].source, jobs[other].source
            forward, backward = answers[one].get(second), answers[other].get(first)
            if forward is None or backward is None:
                continue
            if _comparable(forward, backward, same_aims=False):
                counts = _counts(forward, backward, (jobs[one][:2], jobs[other][:2]))
                records.append((attack, first, second, *counts))
    table = pd.DataFrame(records, columns=_ASYMMETRY)
    return _tested(table.assign(kind="asymmetry"), "kind").drop(columns="kind")


def two_sided_mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided exact p-value that two paired rates are equal.

    Args:
        first_only: Images on which only the first succeeds.
        second_only: Images on which only the second does.

    Returns:
        Twice the smaller tail of Binomial(first_only + second_only, 1/2), at most 1.

    Reference:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions
        or percentages, Psychometrika 12 (1947), with the binomial distribution in place of its
        approximation.

    >>> two_sided_mcnemar(0, 2), two_sided_mcnemar(0, 0)
    (0.5, 1.0)
    """
    larger, smaller = max(first_only, second_only), min(first_only, second_only)
    return min(1.0, 2.0 * exact_mcnemar(larger, smaller))


def _answers_of_jobs(
    jobs: Sequence["Compared"], eps_255: float, protocol: str
) -> list[dict[str, "_Answers"]]:
    """Return what became of every image at one budget, by target, for each job."""
    if not eps_255 > 0:
        raise ValueError(f"eps_255={eps_255} is no budget of an attack; it must be above 0.")
    names = [(job.attack, job.source) for job in jobs]
    for attack, source in names:
        if names.count((attack, source)) > 1:
            raise ValueError(f"two jobs have the attack '{attack}' and the source '{source}'.")
    return [dict(_answers(job, eps_255, protocol)) for job in jobs]


def _answers(job: "Compared", eps_255: float, protocol: str) -> Iterator[tuple[str, "_Answers"]]:
    """Yield each target's answers at one budget."""
    budgets = job.predictions["eps_255"]
    here = np.isclose(budgets, eps_255)
    if not here.any():
        tried = ", ".join(f"{eps:g}" for eps in sorted(budgets[budgets != 0].unique()))
        raise ValueError(
            f"{job.attack} made on '{job.source}' was not run at eps_255 = {eps_255:g}; "
            f"its budgets are {tried or 'none'}."
        )
    table = job.predictions.loc[here | (budgets == 0).to_numpy()]
    targets = [str(target) for target in job.predictions.loc[here, "target"].unique()]
    found = outcomes(table, job.source, targets, protocol)
    aims = target_labels(table)
    attacked = (found.rows["eps_255"] != 0).to_numpy()
    for target in targets:
        rows = np.flatnonzero(attacked & (found.rows["target"] == target).to_numpy())
        index = found.rows["index"].to_numpy()[rows]
        yield (
            target,
            _Answers(
                images=index,
                label=found.rows["label"].to_numpy()[rows],
                aim=None if aims is None else aims.loc[index].to_numpy(),
                counted=found.counted[rows],
                success=found.success[rows],
            ),
        )


def _comparable(first: "_Answers", second: "_Answers", *, same_aims: bool) -> bool:
    """Tell whether the two successes are the same thing."""
    if first.aim is None or second.aim is None:
        return first.aim is second.aim
    mine, theirs = _matched(first, second)
    return not same_aims or bool((first.aim[mine] == second.aim[theirs]).all())


def _counts(
    first: "_Answers", second: "_Answers", names: tuple[tuple[str, str], tuple[str, str]]
) -> tuple[int, ...]:
    """Count images: both count, first succeeds, second does, only first, only second."""
    mine, theirs = _matched(first, second)
    if (first.label[mine] != second.label[theirs]).any():
        jobs = " and ".join(f"{attack} made on '{source}'" for attack, source in names)
        raise ValueError(f"{jobs} have different labels for the same images.")
    counted = first.counted[mine] & second.counted[theirs]
    by_first = counted & first.success[mine]
    by_second = counted & second.success[theirs]
    masks = (counted, by_first, by_second, by_first & ~by_second, by_second & ~by_first)
    return tuple(int(mask.sum()) for mask in masks)


def _matched(first: "_Answers", second: "_Answers") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the images that both have."""
    _, mine, theirs = np.intersect1d(
        first.images, second.images, assume_unique=True, return_indices=True
    )
    return mine, theirs


def _tested(table: pd.DataFrame, family: str) -> pd.DataFrame:
    """Add difference, interval and tests to counts; Holm's correction within each family.

    The counts are the columns `n` and the two whose names end in `_only`.
    """
    first_only, second_only = [name for name in table.columns if name.endswith("_only")]
    numbers = list(table.columns[table.columns.get_loc("n") : table.columns.get_loc(second_only)])
    table = table.astype(dict.fromkeys([*numbers, second_only], "int64"))
    b, c, n = (table[name].to_numpy() for name in (first_only, second_only, "n"))
    table["difference"] = ratio(b - c, n)
    table["difference_low"], table["difference_high"] = paired_interval(b, c, n)
    p = [two_sided_mcnemar(*pair) for pair in zip(b.tolist(), c.tolist(), strict=True)]
    table["p"] = np.where(n > 0, np.array(p, dtype=np.float64), np.nan)
    table["p_holm"] = table["p"]
    for _, members in table[table["p"].notna()].groupby(family):
        table.loc[members.index, "p_holm"] = multipletests(members["p"], method="holm")[1]
    return table


class Compared(NamedTuple):
    """A job to be compared with others.

    Attributes:
        attack: Its name, with what else tells it from the other attacks.
        source: Model, or ensemble joined by `+`, that the images were made on.
        predictions: Its predictions table, clean rows included.
    """

    attack: str
    source: str
    predictions: pd.DataFrame


class _Answers(NamedTuple):
    """What became of N images, shape (N,) each; `aim` is None if the attack has none."""

    images: NDArray[np.int64]
    label: NDArray[np.int64]
    aim: NDArray[np.int64] | None
    counted: NDArray[np.bool_]
    success: NDArray[np.bool_]
