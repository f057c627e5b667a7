"""Paired tests: attacks, sources and the two directions of transfer on the same images."""

from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from src.analysis.intervals import mcnemar_p, paired_interval
from src.analysis.outcomes import Mask, at_budget, outcomes
from src.analysis.transfer_rates import ratio

_COUNTS = ["n", "first_success", "second_success", "first_only", "second_only"]
_UNTARGETED, _ABSENT = -1, -2  # in the place of a target label


def image_outcomes(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    eps_255: float,
    protocol: str = "joint",
) -> pd.DataFrame:
    """Return the outcome of every image at one budget.

    Args:
        predictions: Predictions of a job, clean rows included as the protocol needs them.
        source: Model that the adversarial images were crafted on.
        targets: Models that the images were evaluated on.
        eps_255: Budget in units of 1/255, above 0.
        protocol: Which images are counted, as in `rates`.

    Returns:
        One row per target and image at that budget: `target` (categorical), `index`, `label`,
        `target_label` (NaN of an untargeted attack), `counted` and `success`. With the columns
        `attack` and `source`, the rows of several jobs below each other are what `paired_tests`
        and `asymmetry` compare.

    Raises:
        ValueError: As `rates`, or the job lacks the budget.
    """
    found = outcomes(at_budget(predictions, eps_255), source, targets, protocol)
    target, image = np.nonzero(found.present[:, :, -1] & (found.eps_255[-1] > 0))
    labels = np.full(len(found.index), np.nan)
    if found.target_labels is not None:
        labels = found.target_labels.astype(np.float64)
    return pd.DataFrame(
        {
            "target": pd.Categorical.from_codes(target, pd.Index(found.targets)),
            "index": found.index[image],
            "label": found.label[image],
            "target_label": labels[image],
            "counted": found.counted[target, image],
            "success": found.success[target, image, -1],
        }
    )


def paired_tests(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare attacks, and sources, on the images that both of two jobs count.

    Two attacks are compared where they have the same source and target, and the same target
    labels or both none; two sources where they have the same attack and target, also if their
    target labels differ. Targeted attacks are never compared with untargeted ones: their
    successes are different things. A target that is white box for one of two sources is
    included.

    Args:
        rows: Rows of `image_outcomes` of several jobs on the same data set, with `attack` and
            `source`. Images are matched by `index`; those of one job alone are left out.

    Returns:
        One row per pair of jobs and target of both, `kind` "attack" before "source", pairs and
        targets in the order of the rows, with

        - `target`; `common` (the shared source, or attack); `first`, `second` (the attacks, or
          sources);
        - `n` images; `first_success` and `second_success`, how many of them each of the two
          succeeds on; `first_only` and `second_only`, on how many just one of them does;
        - `difference` of the success rates in [-1, 1], first minus second, with its 95 %
          interval `difference_low` and `difference_high` (see `paired_interval`);
        - `p`, two-sided (see `mcnemar_p`), and `p_holm`, corrected for the number of tests of
          this kind.

        Without an image (n = 0) there is no test: difference and p are NaN.

    Raises:
        ValueError: An image has two labels: the jobs are of different data.

    Reference:
        S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6
        (1979).
    """
    cells = _cells(rows)
    targets = list(rows["target"].unique())
    names = ["kind", "target", "common", "first", "second"]
    parts = []
    for kind, same, differing in (("attack", 1, 0), ("source", 0, 1)):
        found = []
        for one, other in _job_pairs(rows, same, differing):
            for target in targets:
                first, second = cells.get((*one, target)), cells.get((*other, target))
                if first is None or second is None or first.targeted != second.targeted:
                    continue
                if kind == "source" or first.same_target_labels(second):
                    pair = (one[same], one[differing], other[differing])
                    found.append((kind, target, *pair, *first.counts(second)))
        parts.append(_tested(names, found))
    return pd.concat(parts, ignore_index=True)


def asymmetry(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare the two directions of transfer between models that are both source and target.

    Args:
        rows: As for `paired_tests`; compared are the images counted in both directions.

    Returns:
        One row per attack and pair of models, in the order of the rows, with `attack`, `first`,
        `second`, `n` images, `first_success` (on how many of them the attack with the first as
        source succeeds against the second) and `second_success` (the other direction),
        `first_only` and `second_only` (only one of the two succeeds), `difference` of the rates
        with `difference_low` and `difference_high`, `p` and `p_holm` (over all rows), each as in
        `paired_tests`.

    Raises:
        ValueError: As `paired_tests`.
    """
    cells = _cells(rows)
    found = []
    for (attack, source), (_, other) in _job_pairs(rows, 0, 1):
        forward, backward = cells.get((attack, source, other)), cells.get((attack, other, source))
        if forward and backward and forward.targeted == backward.targeted:
            found.append((attack, source, other, *forward.counts(backward)))
    return _tested(["attack", "first", "second"], found)


class _Cell(NamedTuple):
    """The outcomes of one attack, source and target on N images.

    Attributes:
        counted: Shape (N,).
        success: Likewise.
        target_label: Likewise; `_UNTARGETED`, or `_ABSENT` where there is no row.
    """

    counted: Mask
    success: Mask
    target_label: NDArray[np.int64]

    @property
    def targeted(self) -> bool:
        """Whether the attack has target labels."""
        return bool((self.target_label >= 0).any())

    def same_target_labels(self, other: "_Cell") -> bool:
        """Tell whether the target labels agree on the images of both."""
        both = (self.target_label != _ABSENT) & (other.target_label != _ABSENT)
        return bool((self.target_label == other.target_label)[both].all())

    def counts(self, other: "_Cell") -> tuple[int, ...]:
        """Return `_COUNTS` of the images that both count."""
        counted = self.counted & other.counted
        one, two = counted & self.success, counted & other.success
        masks = (counted, one, two, one & ~two, two & ~one)
        return tuple(int(np.count_nonzero(mask)) for mask in masks)


def _cells(rows: pd.DataFrame) -> dict[tuple[Hashable, ...], _Cell]:
    """Lay rows out by (attack, source, target), each over all images."""
    images = pd.Index(rows["index"].unique())
    labels = rows[["index", "label"]].drop_duplicates()["index"]
    if labels.duplicated().any():
        image = labels[labels.duplicated()].iloc[0]
        raise ValueError(f"image {image} has different labels in two jobs.")
    cells: dict[tuple[Hashable, ...], _Cell] = {}
    names = ["attack", "source", "target"]
    for key, its in rows.groupby(names, sort=False, observed=True):
        place = images.get_indexer(pd.Index(its["index"]))
        counted, success = np.zeros((2, len(images)), bool)
        cell = _Cell(counted, success, np.full(len(images), _ABSENT))
        cell.counted[place], cell.success[place] = its["counted"], its["success"]
        cell.target_label[place] = its["target_label"].fillna(_UNTARGETED)
        cells[key] = cell
    return cells


def _job_pairs(
    rows: pd.DataFrame, same: int, differing: int
) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Return the pairs of jobs (attack, source) with one name in common and not the other."""
    jobs = rows[["attack", "source"]].drop_duplicates().itertuples(index=False, name=None)
    for one, other in combinations(jobs, 2):
        if one[same] == other[same] and one[differing] != other[differing]:
            yield one, other


def _tested(names: list[str], found: list[tuple[object, ...]]) -> pd.DataFrame:
    """Add difference, interval and tests to counts; Holm's correction is over all rows."""
    table = pd.DataFrame(found, columns=[*names, *_COUNTS])
    table = table.astype(dict.fromkeys(_COUNTS, np.int64))
    b, c, n = (table[name].to_numpy() for name in ("first_only", "second_only", "n"))
    low, high = paired_interval(b, c, n)
    p = np.where(n > 0, mcnemar_p(b, c), np.nan)
    holm = p.copy()
    if (n > 0).any():
        holm[n > 0] = multipletests(p[n > 0], method="holm")[1]
    tests = {"difference": ratio(b - c, n), "difference_low": low, "difference_high": high}
    return table.assign(**tests, p=p, p_holm=holm)
