"""Compare what two sweeps of the same images have found, image by image."""

import pandas as pd

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
