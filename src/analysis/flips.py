"""At which budget an image first loses its class, and whether an 8-bit image can hold that."""

import numpy as np
import pandas as pd

from src.analysis.outcomes import image_positions, outcomes
from src.analysis.rates import ratio

SMALLEST_8_BIT_STEP = 1.0
"""In units of 1/255: an 8-bit image that differs at all differs by this much somewhere."""


def first_flips(
    table: pd.DataFrame, rounded: pd.DataFrame | None = None, norm: str = "linf"
) -> pd.DataFrame:
    """Find the smallest tried budget at which each image is no longer classified correctly.

    A flip is any class but the true one, for targeted attacks too. It is one crossing of the
    boundary: an image may be classified correctly again at larger budgets, and its class may have
    changed and come back between two tried ones. Only the first tried flip counts.

    Args:
        table: Predictions of the attack, clean rows included. Models that were shown clean
            images alone are passed over.
        rounded: Predictions of the same adversarial images stored with 8 bits.
        norm: Of the budgets, `linf` or `l2`.

    Returns:
        One row per (target, index) of the images that the target classifies correctly when
        clean, in the table's order of targets and by index, with `label`,
        `first_flip_eps_255` (NaN if it never flips), `below_8_bits` (the first flip lies below
        1/255, so that no 8-bit image can hold it; missing for `l2`, whose budgets allow single
        pixels more) and `flips_at_8_bits` (nullable: whether the
        8-bit image of that same budget flips too; missing if the image never flips or
        `rounded` is None).

    Raises:
        ValueError: As `rates`, or if `rounded` lacks the row of a first flip.
    """
    targets = list(table.loc[table["eps_255"] != 0, "target"].unique())
    found = outcomes(table, "", targets, "target_correct")
    assert found.target_clean is not None  # the protocol needs it
    initial = found.rows[found.target_clean]
    order = pd.Categorical(initial["target"], categories=targets, ordered=True)
    initial = initial.assign(place=order.codes).sort_values(["place", "index", "eps_255"])
    images = initial.drop_duplicates(["place", "index"])[["target", "index", "label"]]
    images = images.reset_index(drop=True)
    wrong = initial[initial["predicted"] != initial["label"]]
    flips = wrong.drop_duplicates(["place", "index"])
    at = image_positions(flips, images)
    flipped = at >= 0
    first = np.full(len(images), np.nan)
    first[flipped] = flips["eps_255"].to_numpy()[at[flipped]]
    images["first_flip_eps_255"] = first
    unknown = pd.array([pd.NA] * len(images), dtype="boolean")
    images["below_8_bits"] = first < SMALLEST_8_BIT_STEP if norm == "linf" else unknown
    images["flips_at_8_bits"] = unknown
    if rounded is not None and flipped.any():
        images.loc[flipped, "flips_at_8_bits"] = _flips_in(rounded, images[flipped])
    return images


def flip_summary(flips: pd.DataFrame) -> pd.DataFrame:
    """Summarise first flips by target.

    Args:
        flips: Result of `first_flips`.

    Returns:
        One row per target with the counts `initially_correct`, `flipped` (at some tried budget,
        whatever becomes of the image at larger ones), `below_8_bits` (missing where the flips
        are) and `flips_at_8_bits` (missing without 8-bit predictions); `flipped_share` of the
        initially correct; `below_8_bits_share` and `flips_at_8_bits_share` of the flipped; and
        `median_first_flip_eps_255`, the smallest tried budget by which at least half of the
        initially correct images have flipped, NaN if fewer ever do. (It is the Kaplan-Meier
        median: the median of the flipped images alone would look the smaller the fewer flip.)
    """
    groups = flips.groupby("target", sort=False)
    summary = groups.size().rename("initially_correct").to_frame()
    summary["flipped"] = groups["first_flip_eps_255"].count()
    summary["median_first_flip_eps_255"] = groups["first_flip_eps_255"].agg(_median)
    summary["below_8_bits"] = groups["below_8_bits"].sum(min_count=1)
    answered = groups["flips_at_8_bits"].count()
    nobody = not flips["flips_at_8_bits"].notna().any() and bool(summary["flipped"].any())
    survivors = groups["flips_at_8_bits"].sum().astype("Int64")
    summary["flips_at_8_bits"] = survivors.mask(nobody | answered.lt(summary["flipped"]))
    flipped = summary["flipped"].to_numpy()
    summary["flipped_share"] = ratio(flipped, summary["initially_correct"].to_numpy())
    for name in ("below_8_bits", "flips_at_8_bits"):
        counts = summary[name].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        summary[f"{name}_share"] = ratio(counts, flipped)
    return summary.reset_index()


def _flips_in(rounded: pd.DataFrame, flips: pd.DataFrame) -> np.ndarray:
    """Say of each first flip whether the same image and budget flips in another table."""
    keys = ["target", "index", "eps_255"]
    there = rounded[[*keys, "predicted"]].assign(target=rounded["target"].astype(object))
    wanted = flips.rename(columns={"first_flip_eps_255": "eps_255"})[[*keys, "label"]]
    both = wanted.merge(there, on=keys, how="left", validate="one_to_one")
    lacking = both["predicted"].isna()
    if lacking.any():
        target, index, eps = both.loc[lacking, keys].iloc[0]
        raise ValueError(
            f"the 8-bit table lacks {int(lacking.sum())} of {len(both)} first flips, "
            f"first index {index}, target '{target}', eps_255 {eps:g}."
        )
    return (both["predicted"] != both["label"]).to_numpy()


def _median(first: pd.Series) -> float:
    """Return the smallest budget by which half have flipped; NaN stands for never."""
    middle = np.sort(first.to_numpy())[(len(first) - 1) // 2]  # NaN sorts last
    return float(middle)
