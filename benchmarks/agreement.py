"""Compare what two sweeps of the same images have found, image by image."""

import numpy as np
import pandas as pd

from src.analysis.intervals import mcnemar_p, paired_interval

CELL = ["source", "target", "eps_255"]


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Add whether a prediction is `correct`, and `joint`: source and target are on the clean image.

    Args:
        rows: `source`, `target`, `eps_255`, `index`, `label`, `predicted`, clean rows (`eps_255`
            0) included; every source is a target too.

    Returns:
        The rows with the new columns, indexed by source, target, eps_255 and index.
    """
    rows = rows.assign(correct=rows["predicted"] == rows["label"])
    clean = rows[rows["eps_255"] == 0].set_index(["source", "target", "index"])["correct"]
    target, white = (
        clean.loc[pd.MultiIndex.from_frame(rows[["source", name, "index"]])].to_numpy()
        for name in ("target", "source")
    )
    return rows.assign(joint=target & white).set_index([*CELL, "index"])


def counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `correct` of `joint` images of every cell but the clean ones, from `counted`."""
    attacked = rows[rows.index.get_level_values("eps_255") > 0]
    both = attacked.assign(correct=attacked["correct"] & attacked["joint"])
    return both.groupby(level=CELL, sort=False)[["correct", "joint"]].sum()


def differences(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, int]:
    """Return how far two sweeps differ, both from `counted`.

    Returns:
        `cells`, and `cells_differ` of them in a count; `largest` difference of a count of correct
        images; `predictions`, clean ones included, and `predictions_differ` of them.
    """
    one, other = counts(ours), counts(theirs)
    other = other.loc[one.index]
    return {
        "cells": len(one),
        "cells_differ": int((one != other).any(axis=1).sum()),
        "largest": int((one["correct"] - other["correct"]).abs().max()),
        "predictions": len(ours),
        "predictions_differ": int((ours["predicted"] != theirs["predicted"].loc[ours.index]).sum()),
    }


def paired(first: pd.DataFrame, second: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Compare the success of two sweeps, from `counted`, on the images that both count.

    Args:
        first: The reference.
        second: What is compared with it.
        by: The columns of `CELL` that make a row; without `eps_255` each image counts once a
            budget, as if these were independent.

    Returns:
        `n`; `first_only` and `second_only`, on how many just one succeeds; `difference` of the
        success rates, second minus first, in points, with Tango's 95 % interval `low` and
        `high`; `p` of McNemar's exact test.
    """
    first = first[first.index.get_level_values("eps_255") > 0]
    second = second.loc[first.index]
    both = first["joint"] & second["joint"]
    either = {
        "n": both,
        "first_only": both & ~first["correct"] & second["correct"],
        "second_only": both & first["correct"] & ~second["correct"],
    }
    table = pd.DataFrame(either).groupby(level=by, sort=False).sum()
    b, c, n = (table[name].to_numpy() for name in ("second_only", "first_only", "n"))
    low, high = paired_interval(b, c, n)
    difference = 100 * (b - c) / np.maximum(n, 1)
    return table.assign(difference=difference, low=100 * low, high=100 * high, p=mcnemar_p(b, c))
