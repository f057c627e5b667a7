"""Rankings of attacks by their mean success on other models, and what is undecided in them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import FEWEST_IMAGES, holm, wilson_interval
from src.analysis.matrices import TRANSFER, relation

SIGNIFICANT = 0.05
"""Level below which a corrected p-value decides."""

_FLIPS = 9_999  # the smallest p-value is 1e-4, 0.005 after Holm's correction for 50 attacks

Values = NDArray[np.float64]


def rankings(rows: pd.DataFrame, against: str | None = None) -> pd.DataFrame:
    """Rank attacks by success on models other than the source, at one budget.

    An image's score is the mean of its successes over the other targets that count it; an attack's
    is the mean over images. Attacks are ranked for each source, and over all single ones by those
    that were run from each of them. Targeted attacks, ensembles of sources, and sources behind a
    defence are ranked apart.

    Args:
        rows: `image_outcomes` of jobs on the same images, with `attack` and `source`.
        against: Attack that the others are tested against; None: the first of each ranking.

    Returns:
        One row per ranked attack, by `kind` (`untargeted` or `targeted`; `of ensembles`,
        `behind a defence`), the mean over sources first, then by falling mean:

        - `attack`, `source`: a source's name, or `mean of N sources`;
        - `targets`: number of the other targets; `images`: number of images in the mean;
        - `mean` success in [0, 1], with its 95 % Wilson interval `low` and `high`, NaN below
          `FEWEST_IMAGES` images, see `wilson_interval`;
        - `rank`, 1 for the largest mean;
        - `p_holm`: p-value of equality with the first, by random flips of the signs of the
          differences on the images counted for both, after Holm's correction within the ranking;
          NaN for the first, and without `against`;
        - `undecided`: whether the attack is, or cannot be told from, the first at level 0.05.

    Reference:
        P. Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd ed. (2005), 3.2.
    """
    parts = [
        _ranking(group, against).assign(kind=kind, source=name)
        for kind, name, group in _groups(rows)
    ]
    columns = ["kind", "attack", "source", "targets", "images", "mean", "low", "high"]
    columns += ["rank", "p_holm", "undecided"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the kind, source and counted rows of every ranking."""
    pairs = rows[["attack", "source", "target"]].drop_duplicates()
    pairs = pairs[
        list(map(lambda s, t: relation(s, t) == TRANSFER, pairs["source"], pairs["target"]))
    ]
    rows = rows[rows["counted"]].merge(pairs, on=list(pairs))
    aimed = rows.groupby(["attack", "source"], sort=False)["target_label"].transform("count") > 0
    names = rows["source"].astype(str)
    apart = names.str.contains("+", regex=False).map({True: " of ensembles", False: ""})
    apart = apart.mask(names.str.contains("@", regex=False), " behind a defence")
    for targeted in (False, True):
        for sort in ("", " of ensembles", " behind a defence"):
            kind = ("targeted" if targeted else "untargeted") + sort
            mine = rows[(aimed == targeted) & (apart == sort)]
            sources = mine["source"].nunique()
            from_all = mine.groupby("attack", sort=False)["source"].transform("nunique") == sources
            if sources > 1 and not sort and from_all.any():
                yield kind, f"mean of {sources} sources", mine[from_all]
            for source, group in mine.groupby("source", sort=False, observed=True):
                yield kind, str(source), group


def _ranking(rows: pd.DataFrame, against: str | None) -> pd.DataFrame:
    """Rank the attacks of one group."""
    rows = rows.astype({"success": np.float64, "attack": object})
    scores = rows.pivot_table("success", "index", "attack", aggfunc="mean", sort=False)
    means = scores.mean().sort_values(ascending=False, kind="stable")
    scores = scores[means.index]
    values = scores.to_numpy().T
    low, high = wilson_interval(scores.sum(), scores.count())
    names = list(means.index)
    place = 0 if against is None else names.index(against) if against in names else None
    p = holm(_sign_flips(values, place))
    found = pd.DataFrame(
        {
            "attack": means.index,
            "targets": rows.groupby("attack")["target"].nunique().loc[means.index].to_numpy(),
            "images": scores.count().to_numpy(),
            "mean": means.to_numpy(),
            "low": low,
            "high": high,
            "rank": np.arange(1, len(means) + 1),
            "p_holm": p,
        }
    )
    few = found["images"] < FEWEST_IMAGES
    found.loc[few, ["low", "high"]] = np.nan
    return found.assign(undecided=~(found["p_holm"] < SIGNIFICANT))


def _sign_flips(values: Values, place: int | None) -> Values:
    """Return two-sided p-values of every row of (A, N) against one of them, whose own is NaN."""
    if place is None:
        return np.full(len(values), np.nan)
    differences = np.nan_to_num(values - values[place])
    signs = np.random.default_rng(1).integers(0, 2, (_FLIPS, values.shape[1])) * 2.0 - 1
    flipped, seen = np.abs(signs @ differences.T), np.abs(differences.sum(axis=1))
    p = (1 + np.count_nonzero(flipped >= seen - 1e-9, axis=0)) / (1 + _FLIPS)
    p[place] = np.nan
    return p
