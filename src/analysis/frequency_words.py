"""Sentences on the frequencies of perturbations, and on those that models need."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.analysis.exploration import need_columns
from src.analysis.frequency import NORMS, SPLIT, high_frequency_shares
from src.analysis.matrix import format_cell, is_white_box

_PART_WORDS = {"low": "low", "band": "middle", "high": "high"}
_NORM_WORDS = {"linf": "L-infinity", "l2": "L2"}
_MOST_LISTED = 3  # more are told by the smallest and the largest
_PAIR = ["attack", "source", "target"]


def spectrum_sentences(spectra: pd.DataFrame, above: float = SPLIT) -> tuple[str, str]:
    """Say how much of the perturbations' power is at high frequencies, beside the images'.

    Args:
        spectra: As for `high_frequency_shares`, of several jobs below each other. Each job's
            perturbations are compared with its own images.
        above: Frequency in cycles per pixel.

    Raises:
        ValueError: If a column is missing.
    """
    shares = high_frequency_shares(spectra, above).dropna(subset=["share", "frequency"])
    made = shares[shares["kind"] == "perturbation"]
    images = shares.loc[shares["kind"] == "image", ["attack", "source", "n", "share"]]
    own = images.drop_duplicates(["attack", "source"])
    lacking = "perturbations" if made.empty else "images"
    made = made.merge(own, on=["attack", "source"], suffixes=("", "_of_images"))
    if made.empty:
        return (
            f"At which frequencies the perturbations lie cannot be told: no spectrum of {lacking} "
            "has power.",
            "Without it there is nothing to compare with a flat spectrum.",
        )
    counts = made["n_of_images"]
    first = (
        f"At {_span(made['frequency'], '.3g')} cycles per pixel and above lie "
        f"{_listed(made['share'], _jobs(made))} of the power of the perturbations at "
        f"{_span(made['eps_255'], 'g')}/255, and {_span(made['share_of_images'], '.1%')} of that "
        f"of the {_span(counts, 'd')} images themselves (mean over images, constant part left out)."
    )
    higher = int((made["share"] > made["share_of_images"]).sum())
    above_flat = int((made["share"] > made["flat_share"]).sum())
    second = (
        "Power spread evenly over all frequencies, as of white noise, would have "
        f"{_span(made['flat_share'], '.1%')} there; {higher} of {len(made)} jobs have "
        "perturbations with a larger such share than their images, and "
        f"{above_flat} with a larger one than white noise."
    )
    return first, second


def filter_sentences(rates: pd.DataFrame) -> tuple[str, str]:
    """Say what parts of the perturbations achieve beyond noise, at equal L-infinity and equal L2.

    Args:
        rates: Results of `filtered_rates` below each other, with `attack` and `source`. Told are
            the pairs that are not white box, or, without any, all; targeted jobs only where
            there are no others. No count is a sum over pairs, whose images are the same.

    Raises:
        ValueError: If a column is missing.
    """
    columns = ["band", "norm", "n", "excess", "excess_low", "targeted"]
    need_columns(rates, [*_PAIR, *columns], "filtered rates")
    white = [is_white_box(*pair) for pair in zip(rates["source"], rates["target"], strict=True)]
    pairs, what = rates[~np.array(white, dtype=bool)], "not white box"
    if pairs.empty:
        pairs, what = rates, "white box"
    targeted = pairs["targeted"].astype(bool)
    if not targeted.all():
        pairs, what = pairs[~targeted], f"{what}{', untargeted' if targeted.any() else ''}"
    linf, l2 = (_filter_sentence(pairs[pairs["norm"] == norm], norm, what) for norm in NORMS)
    return linf, l2


def low_pass_sentences(accuracy: pd.DataFrame) -> tuple[str, str]:
    """Say how well models recognise images without their high frequencies.

    Args:
        accuracy: Result of `low_pass_accuracy`; with the cutoff inf, what is kept is measured
            against the unfiltered images, else against the highest cutoff.

    Raises:
        ValueError: If a column is missing.
    """
    need_columns(accuracy, ["target", "cutoff", "n", "correct", "accuracy"], "low-pass")
    if not np.isfinite(accuracy["cutoff"].to_numpy(dtype=np.float64)).any():
        return "No image was low-passed.", "Nothing is known of the frequencies that models need."
    cutoffs = np.sort(accuracy["cutoff"].unique())
    finite = cutoffs[np.isfinite(cutoffs)]
    near, last = finite[np.abs(finite - SPLIT).argmin()], cutoffs[-1]
    kept, whole = f"those below {last:.3g}", f"at {last:.3g} cycles per pixel"
    if np.isinf(last):
        kept, whole = "all of them", "on the unfiltered images"
    more = f"; with {kept}, {_recognised(accuracy, last)}" if near < last else ""
    return (
        f"Of clean images that keep only the frequencies below {near:.3g} cycles per pixel, "
        f"{_recognised(accuracy, near)}{more}.",
        "The lowest cutoff down to which a model keeps at least half of its accuracy "
        f"{whole} is {_half(accuracy)}.",
    )


def _jobs(rows: pd.DataFrame) -> list[str]:
    pairs = zip(rows["attack"], rows["source"], strict=True)
    return [f"{attack} on {source}" for attack, source in pairs]


def _span(values: pd.Series, form: str) -> str:
    """Write a number, or the smallest and the largest where they do not read the same."""
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


def _filter_sentence(rows: pd.DataFrame, norm: str, what: str) -> str:
    """Tell each band's excess over noise, and in how many pairs its interval lies above 0."""
    known = rows[rows["n"] > 0]
    start = f"At equal {_NORM_WORDS[norm]} norm"
    if known.empty:
        return f"{start}, no filtered image is counted."
    told = []
    for band, word in _PART_WORDS.items():
        part = known[known["band"] == band]
        if len(part):
            above = int((part["excess_low"] > 0).sum())
            told.append(
                f"{above} of {len(part)} for the {word} ones ({_span(part['excess'], '.1%')})"
            )
    return (
        f"{start}, the excess of successes over random-sign noise of the same frequencies is above "
        f"0 (95 % interval of each pair; pairs {what}, which share images) in {', '.join(told)}."
    )


def _listed(shares: pd.Series, names: Sequence[str]) -> str:
    """Tell a few shares with their names, or the smallest and the largest of many."""
    told = [f"{share:.1%} ({name})" for share, name in zip(shares, names, strict=True)]
    if len(told) > _MOST_LISTED:
        order = np.argsort(shares.to_numpy(), kind="stable")
        return f"between {told[order[0]]} and {told[order[-1]]}"
    return ", ".join(told)


def _recognised(accuracy: pd.DataFrame, cutoff: float) -> str:
    """Tell how many images each model gets right at a cutoff."""
    rows = accuracy[accuracy["cutoff"] == cutoff]
    return ", ".join(
        f"{target} recognises {format_cell(k, n)}"
        for target, k, n in zip(rows["target"], rows["correct"], rows["n"], strict=True)
    )


def _half(accuracy: pd.DataFrame) -> str:
    """Tell the lowest cutoff down to which each model keeps half of what it has at the highest."""
    told = []
    for target, rows in accuracy.groupby("target", sort=False):
        falling = rows.sort_values("cutoff", ascending=False)
        kept = (falling["accuracy"] >= falling["accuracy"].iloc[0] / 2).cummin()
        lowest = falling.loc[kept, "cutoff"].min() if falling["correct"].iloc[0] else np.inf
        told.append(f"{f'{lowest:.3g}' if np.isfinite(lowest) else 'none'} ({target!s})")
    return ", ".join(told)
