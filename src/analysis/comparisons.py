"""Paired tests of attacks, and of sources, on the same images."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from src.analysis.intervals import holm, mcnemar_p, paired_interval
from src.analysis.matrices import relation
from src.analysis.outcomes import at_budget, outcomes
from src.analysis.transfer_rates import ratio

COMPARISONS = ("attack", "source")
"""Kinds of paired test, by what differs between the two sides."""

_NAMES = ["kind", "target", "common", "first", "second"]
_COUNTS = ["n", "first_success", "second_success", "first_only", "second_only"]
_EXCHANGED = {
    f"{side}{end}": f"{other}{end}"
    for side, other in (("first", "second"), ("second", "first"))
    for end in ("", "_success", "_only")
}
_ABSENT = -1
_CELL = ["attack", "source", "target"]

Cell = tuple[str, str, str]


def image_outcomes(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    eps_255: float,
    protocol: str = "joint",
) -> pd.DataFrame:
    """Return the outcome of every image at one budget above 0; the arguments are those of `rates`.

    Returns:
        One row per target and image: `target`, `index`, `target_label` (NaN for an untargeted
        attack), `counted` and `success`.
    """
    found = outcomes(at_budget(predictions, eps_255), source, targets, protocol)
    target, image = np.nonzero(found.present[:, :, -1])
    labels = np.full(len(found.index), np.nan)
    if found.target_labels is not None:
        labels = found.target_labels.astype(np.float64)
    return pd.DataFrame(
        {
            "target": np.array(found.targets, dtype=object)[target],
            "index": found.index[image],
            "target_label": labels[image],
            "counted": found.counted[target, image],
            "success": found.success[target, image, -1],
        }
    )


def paired_tests(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare the success of jobs on the images that both sides of a comparison count.

    The rows are those of `image_outcomes` of several jobs on the same images, with `attack` and
    `source`. Two attacks from one source, or two sources of one attack, are compared against each
    target (two sources not where it is the white box of one alone). Targeted attacks are compared
    with targeted ones alone, and two attacks only where every image has one target label.

    Returns:
        One row per comparison, by `kind` in the order of `COMPARISONS`, then in that of the rows:
        `target`, `common` (the shared source, or attack), `first` and `second`; `n` images,
        `first_success`, `second_success`, `first_only`, `second_only`; `difference` of the success
        rates, first minus second, with its 95 % interval (see
        `paired_interval`), and two-sided `p` (see `mcnemar_p`), NaN without an image; `p_holm`,
        corrected for the tests of this kind (see `holm`).
    """
    names = ["counted", "success", "target_label"]
    numbers = rows.astype(dict.fromkeys(names, np.float64))
    wide = numbers.pivot(index="index", columns=_CELL, values=names).fillna(_ABSENT)
    every = rows[_CELL].drop_duplicates().itertuples(index=False, name=None)
    cells = {cell: [wide[name, *cell].to_numpy() for name in names] for cell in every}
    found = []
    for origin, one, other in _comparisons(rows):
        if one not in cells or other not in cells:
            continue
        (first_counted, first, a), (second_counted, second, b) = cells[one], cells[other]
        unlike = origin[0] == "attack" and ((a != b) & (a >= 0) & (b >= 0)).any()
        if unlike or (a >= 0).any() != (b >= 0).any():
            continue
        both = (first_counted > 0) & (second_counted > 0)
        first, second = both & (first > 0), both & (second > 0)
        masks = (both, first, second, first & ~second, second & ~first)
        found.append((*origin, *map(np.count_nonzero, masks)))
    found.sort(key=lambda row: COMPARISONS.index(row[0]))
    return _tested(pd.DataFrame(found, columns=[*_NAMES, *_COUNTS]))


def both_ways(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `paired_tests`, and each once more with its sides exchanged."""
    turned = tests.rename(columns=_EXCHANGED)
    ends = ["difference", "difference_low", "difference_high"]
    turned[ends] = -tests[["difference", "difference_high", "difference_low"]].to_numpy()
    return pd.concat([tests, turned[[*tests]]], ignore_index=True)


def _comparisons(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], Cell, Cell]]:
    """Yield the `_NAMES` of every comparison, with the two (attack, source, target) compared."""
    targets = list(rows["target"].unique())
    jobs = rows[["attack", "source"]].drop_duplicates().itertuples(index=False, name=None)
    for (attack, source), (other_attack, other) in combinations(jobs, 2):
        for target in targets:
            cells = (attack, source, target), (other_attack, other, target)
            if source == other:
                yield ("attack", target, source, attack, other_attack), *cells
            elif attack == other_attack and relation(source, target) == relation(other, target):
                yield ("source", target, attack, source, other), *cells


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    """Add difference, interval and tests to counts; Holm's correction is over all of a kind."""
    table = table.astype(dict.fromkeys(_COUNTS, np.int64))
    b, c, n = (table[name].to_numpy() for name in ("first_only", "second_only", "n"))
    table["difference"] = ratio(b - c, n)
    table["difference_low"], table["difference_high"] = paired_interval(b, c, n)
    table["p"] = np.where(n > 0, mcnemar_p(b, c), np.nan)
    table["p_holm"] = np.nan
    for kind in COMPARISONS:
        mine = table["kind"] == kind
        table.loc[mine, "p_holm"] = holm(table.loc[mine, "p"])
    return table
