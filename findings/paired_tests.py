"""Paired tests between two attacks on the same images."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import bdtr

from src.analysis import Outcomes, Values, paired_interval, ratio

_NAMES = ["source", "target", "first", "second"]
_COUNTS = ["n", "first_success", "second_success", "first_only", "second_only"]
_EXCHANGED = {
    f"{side}{end}": f"{other}{end}"
    for side, other in (("first", "second"), ("second", "first"))
    for end in ("", "_success", "_only")
}


def paired_tests(outcomes: Outcomes) -> pd.DataFrame:
    """Compare the success of two attacks from one source on the images that both of them count.

    A targeted attack is only compared with another targeted one; their labels must be the same.

    Returns:
        One row per comparison, ordered by job: `source`, `target`, `first` and `second`; `n`
        images, `first_success`, `second_success`, `first_only`, `second_only`; the `difference` of
        the success rates with its `paired_interval`, and `p` from `mcnemar_p` (NaN without an
        image); `p_holm`, corrected for all of them (see `holm`).
    """
    rows = []
    for names, jobs, target in _comparisons(outcomes):
        counted = outcomes.counted[jobs, target].all(axis=0)
        first, second = outcomes.fooled[jobs, target] & counted
        masks = (counted, first, second, first & ~second, second & ~first)
        rows.append((*names, *map(np.count_nonzero, masks)))
    return _tested(pd.DataFrame(rows, columns=[*_NAMES, *_COUNTS]))


def both_ways(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `paired_tests`, followed by the same rows with their sides swapped."""
    turned = tests.rename(columns=_EXCHANGED)
    ends = ["difference", "difference_low", "difference_high"]
    turned[ends] = -tests[["difference", "difference_high", "difference_low"]].to_numpy()
    return pd.concat([tests, turned[[*tests]]], ignore_index=True)


def _comparisons(outcomes: Outcomes) -> Iterator[tuple[tuple[str, ...], list[int], int]]:
    """Yield the `_NAMES` of each comparison with the positions of its two jobs and its target."""
    for jobs in map(list, combinations(range(len(outcomes.jobs)), 2)):
        (attack, source), (other_attack, other_source) = (outcomes.jobs[job] for job in jobs)
        if source == other_source and len({*outcomes.targeted[jobs]}) == 1:
            for place in map(int, np.flatnonzero(outcomes.evaluated[jobs].all(axis=0))):
                target = outcomes.targets[place].model
                yield (source, target, attack, other_attack), jobs, place


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    """Add differences, intervals and tests to the counts, with Holm's correction."""
    table = table.astype(dict.fromkeys(_COUNTS, np.int64))
    b, c, n = (table[name].to_numpy() for name in ("first_only", "second_only", "n"))
    table["difference"] = ratio(b - c, n)
    table["difference_low"], table["difference_high"] = paired_interval(b, c, n)
    table["p"] = np.where(n > 0, mcnemar_p(b, c), np.nan)
    table["p_holm"] = holm(table["p"])
    return table


def mcnemar_p(first_only: ArrayLike, second_only: ArrayLike) -> Values:
    """Compute two-sided p-values of the exact McNemar test that two paired rates are equal.

    The arguments are the numbers of images on which only the first and only the second attack
    succeeds, as arrays of the same shape.
    """
    b, c = np.asarray(first_only), np.asarray(second_only)
    return np.minimum(2 * bdtr(np.minimum(b, c).astype(float), b + c, 0.5), 1.0)


def holm(p: ArrayLike) -> Values:
    """Correct p-values for multiple tests with Holm's method (1979); NaN is not a test."""
    values = np.array(p, np.float64)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
    tests = np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(values[order] * tests), 1)
    return values
