"""Paired tests: attacks, sources and the two directions of transfer on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from src.analysis.intervals import mcnemar_p, paired_interval
from src.analysis.outcomes import Mask, at_budget, outcomes
from src.analysis.transfer_rates import ratio

Indices = NDArray[np.intp]

_COUNTS = ["n", "first_success", "second_success", "first_only", "second_only"]
_AT_ONCE = 4_000_000  # images of pairs that are counted at once


def image_outcomes(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    eps_255: float,
    protocol: str = "joint",
) -> pd.DataFrame:
    """Return what became of every image at one budget.

    Args:
        predictions: Predictions of a job, clean rows included as the protocol needs them.
        source: Model that the adversarial images were made on.
        targets: Models that the images were shown to.
        eps_255: Budget in units of 1/255, above 0.
        protocol: Which images are counted, as in `rates`.

    Returns:
        One row per target and image at that budget: `target` (categorical), `index`, `label`,
        `aim` (the class that a targeted attack aims for; NaN if it is untargeted), `counted`
        and `success`. With the columns `attack` and `source`, the rows of several jobs below each
        other are what `paired_tests` and `asymmetry` compare.

    Raises:
        ValueError: As `rates`, or if the job lacks the budget.
    """
    found = outcomes(at_budget(predictions, eps_255), source, targets, protocol)
    target, image = np.nonzero(found.present[:, :, -1] & (found.eps_255[-1] > 0))
    aim = np.full(len(found.index), np.nan) if found.aim is None else found.aim.astype(np.float64)
    return pd.DataFrame(
        {
            "target": pd.Categorical.from_codes(target, pd.Index(found.targets)),
            "index": found.index[image],
            "label": found.label[image],
            "aim": aim[image],
            "counted": found.counted[target, image],
            "success": found.success[target, image, -1],
        }
    )


def paired_tests(answers: pd.DataFrame) -> pd.DataFrame:
    """Compare attacks, and sources, on the images that both of two jobs count.

    Two attacks are compared where they have the same source and target and aim for the same
    classes or both for none; two sources where they have the same attack and target, also if
    each aims for classes of its own. Attacks that aim and attacks that do not are never
    compared: their successes are different things. A target that is white box for one of two
    sources is included.

    Args:
        answers: Rows of `image_outcomes` of several jobs on the same data set, with `attack` and
            `source`. Images are matched by `index`; those of one job alone are left out.

    Returns:
        One row per pair of jobs and target that both were shown to, `kind` "attack" before
        "source", pairs and targets in the order of the rows, with

        - `target`; `common` (the shared source, or attack); `first`, `second` (the attacks, or
          sources);
        - `n` images; `first_success` and `second_success`, how many of them each of the two
          succeeds on (a targeted attack: by reaching its class); `first_only` and
          `second_only`, on how many just one of them does;
        - `difference` of the success rates in [-1, 1], first minus second, with its 95 %
          interval `difference_low` and `difference_high` (see `paired_interval`);
        - `p`, two-sided (see `mcnemar_p`), and `p_holm`, corrected for the number of tests of
          this kind.

        Without an image (n = 0) there is no test: difference and p are NaN.

    Raises:
        ValueError: An image has two labels, or two rows of one attack, source and target.

    Reference:
        S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6
        (1979).
    """
    grid = _grid(answers)
    parts = []
    for kind, same, differing in (
        ("attack", grid.source, grid.attack),
        ("source", grid.attack, grid.source),
    ):
        one, other = _pairs(same, differing)
        pair, target = np.nonzero(grid.shown[one] & grid.shown[other])
        one, other = one[pair], other[pair]
        names = {"target": grid.targets[target], "common": same[one]}
        names |= {"first": differing[one], "second": differing[other]}
        counts, alike, same_aims = _counts(grid, (one, target), (other, target))
        table = pd.concat([pd.DataFrame(names), counts], axis=1)
        table.insert(0, "kind", kind)
        parts.append(_tested(table[alike & (same_aims if kind == "attack" else True)]))
    return pd.concat(parts, ignore_index=True)


def asymmetry(answers: pd.DataFrame) -> pd.DataFrame:
    """Compare the two directions of transfer between models that are both source and target.

    Args:
        answers: As for `paired_tests`; compared are the images counted in both directions.

    Returns:
        One row per attack and pair of models, in the order of the rows, with `attack`, `first`,
        `second`, `n` images, `forward` (on how many of them the attack made on the first
        succeeds against the second) and `backward` (made on the second, against the first),
        `forward_only` and `backward_only` (only one of the two succeeds), `difference` of the
        rates, forward minus backward, with `difference_low` and `difference_high`, `p` and
        `p_holm` (over all rows), each as in `paired_tests`.

    Raises:
        ValueError: As `paired_tests`.
    """
    grid = _grid(answers)
    home = pd.Index(grid.targets).get_indexer(pd.Index(grid.source))  # -1: is no target
    one, other = _pairs(grid.attack, grid.source)
    both = grid.shown[one, home[other]] & grid.shown[other, home[one]]
    both &= (home[one] >= 0) & (home[other] >= 0)
    one, other = one[both], other[both]
    names = {"attack": grid.attack[one], "first": grid.source[one], "second": grid.source[other]}
    counts, alike, _ = _counts(grid, (one, home[other]), (other, home[one]))
    table = _tested(pd.concat([pd.DataFrame(names), counts], axis=1)[alike])
    directions = {"first": "forward", "second": "backward"}
    renamed = {f"{side}_success": way for side, way in directions.items()}
    renamed |= {f"{side}_only": f"{way}_only" for side, way in directions.items()}
    return table.rename(columns=renamed).reset_index(drop=True)


@dataclass(frozen=True)
class _Grid:
    """What became of N images at T targets in J jobs.

    Attributes:
        attack: Of the jobs, shape (J,).
        source: Likewise.
        targets: Names, shape (T,).
        shown: Whether the target was shown images of the job, shape (J, T).
        counted: Shape (J, T, N).
        success: Likewise.
        aim: The class aimed for, -1 for none and -2 without a row, shape (J, T, N).
    """

    attack: NDArray[np.object_]
    source: NDArray[np.object_]
    targets: NDArray[np.object_]
    shown: Mask
    counted: Mask
    success: Mask
    aim: NDArray[np.int32]


def _grid(answers: pd.DataFrame) -> _Grid:
    attack, attacks = pd.factorize(answers["attack"])
    source, sources = pd.factorize(answers["source"])
    job, jobs = pd.factorize(attack * len(sources) + source)
    target, targets = pd.factorize(answers["target"])
    image, images = pd.factorize(answers["index"])
    label = np.zeros(len(images), np.int64)
    label[image] = answers["label"]
    unlike = label[image] != answers["label"].to_numpy()
    if unlike.any():
        raise ValueError(f"image {images[image[unlike][0]]} has different labels in two jobs.")
    shape = (len(jobs), len(targets), len(images))
    aim = np.full(shape, -2, np.int32)
    counted, success = np.zeros((2, *shape), bool)
    place = (job, target, image)
    aim[place] = answers["aim"].fillna(-1)
    counted[place], success[place] = answers["counted"], answers["success"]
    if np.count_nonzero(aim > -2) < len(answers):
        raise ValueError("two rows are of the same attack, source, target and image.")
    by_attack, by_source = np.divmod(jobs, max(len(sources), 1))
    return _Grid(
        attack=np.asarray(attacks, object)[by_attack],
        source=np.asarray(sources, object)[by_source],
        targets=np.asarray(targets, object),
        shown=np.any(aim > -2, axis=2),
        counted=counted,
        success=success,
        aim=aim,
    )


def _pairs(same: NDArray[np.object_], differing: NDArray[np.object_]) -> tuple[Indices, Indices]:
    """Return the pairs of jobs that have one name in common and not the other."""
    one, other = np.triu_indices(len(same), 1)
    fit = (same[one] == same[other]) & (differing[one] != differing[other])
    return one[fit], other[fit]


def _counts(
    grid: _Grid, first: tuple[Indices, Indices], second: tuple[Indices, Indices]
) -> tuple[pd.DataFrame, Mask, Mask]:
    """Count the images of P pairs of (job, target).

    Returns:
        The counts, whether both attacks of a pair aim for classes or neither does, and whether
        they aim for the same classes on the images that both have; P rows each.
    """
    parts = []
    at_once = max(1, _AT_ONCE // max(grid.aim.shape[2], 1))
    for start in range(0, max(len(first[0]), 1), at_once):
        some = slice(start, start + at_once)
        mine, theirs = ((jobs[some], targets[some]) for jobs, targets in (first, second))
        counted = grid.counted[mine] & grid.counted[theirs]
        by_first, by_second = counted & grid.success[mine], counted & grid.success[theirs]
        aim, other_aim = grid.aim[mine], grid.aim[theirs]
        unlike = (aim != other_aim) & (aim > -2) & (other_aim > -2)
        aiming = (aim >= 0).any(axis=1), (other_aim >= 0).any(axis=1)
        masks = (counted, by_first, by_second, by_first & ~by_second, by_second & ~by_first)
        sums = [np.count_nonzero(mask, axis=1) for mask in masks]
        parts.append(np.array([*sums, aiming[0] == aiming[1], ~unlike.any(axis=1)]))
    found = np.concatenate(parts, axis=1)
    return pd.DataFrame(found[:-2].T, columns=_COUNTS), found[-2] > 0, found[-1] > 0


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    """Add difference, interval and tests to counts; Holm's correction is over all rows."""
    b, c, n = (table[name].to_numpy() for name in ("first_only", "second_only", "n"))
    low, high = paired_interval(b, c, n)
    p = np.where(n > 0, mcnemar_p(b, c), np.nan)
    holm = p.copy()
    if (n > 0).any():
        holm[n > 0] = multipletests(p[n > 0], method="holm")[1]
    tests = {"difference": ratio(b - c, n), "difference_low": low, "difference_high": high}
    return table.assign(**tests, p=p, p_holm=holm)
