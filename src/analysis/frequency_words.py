"""Sentences on the frequencies of perturbations, and on those that models need."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.analysis.exploration import need_columns
from src.analysis.frequency import BANDS, NORMS, SPLIT, high_frequency_shares
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
        f"{above_flat} with a larger one than white noise{_seen_shares(made)}."
    )
    return first, second


def filter_sentences(rates: pd.DataFrame) -> tuple[str, str]:
    """Say which frequencies of the perturbations transfer, at equal L-infinity and equal L2.

    Args:
        rates: Results of `filtered_rates` below each other, with `attack` and `source`. Counts
            are summed over the pairs that are not white box, or, without any, over all; those of
            targeted jobs are told only where there are no others.

    Raises:
        ValueError: If a column is missing.
    """
    columns = ["band", "norm", "frequency_low", "frequency_high", "n", "success", "targeted"]
    need_columns(rates, [*_PAIR, *columns], "filtered rates")
    white = [is_white_box(*pair) for pair in zip(rates["source"], rates["target"], strict=True)]
    pairs, what = rates[~np.array(white, dtype=bool)], "not white box"
    if pairs.empty:
        pairs, what = rates, "white box"
    targeted = pairs["targeted"].astype(bool)
    kind, left_out = "the attacks", ""
    if targeted.all() and len(pairs):
        kind = "the targeted attacks"
    elif targeted.any():
        pairs, left_out = pairs[~targeted], "; targeted attacks left out"
    attacks = ", ".join(map(str, pairs["attack"].unique()))
    count = len(pairs.drop_duplicates(_PAIR))
    # With several attacks, each of them makes a pair of its own.
    each = ", each attack by itself" if pairs["attack"].nunique() > 1 else ""
    where = (
        f"over {count} {'pair that is' if count == 1 else 'pairs that are'} {what} "
        f"({attacks}{each}{left_out})"
    )
    linf, l2 = (_filter_sentence(pairs[pairs["norm"] == norm], norm, where, kind) for norm in NORMS)
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
        f"{whole} is {_half(accuracy)}{_seen_targets(accuracy)}.",
    )


def _jobs(rows: pd.DataFrame) -> list[str]:
    pairs = zip(rows["attack"], rows["source"], strict=True)
    return [f"{attack} on {source}" for attack, source in pairs]


def _span(values: pd.Series, form: str) -> str:
    """Write a number, or the smallest and the largest where they do not read the same."""
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


def _seen_shares(made: pd.DataFrame) -> str:
    """Compare the jobs of sources that make images smaller with noise that these can see."""
    made = made[made["seen_up_to"].notna()]
    clauses = []
    for source, rows in made.groupby("source", sort=False):
        larger = int((rows["share"] > rows["seen_flat_share"]).sum())
        clauses.append(
            f"; the source {source} resizes its input, so it sees nothing above "
            f"{_span(rows['seen_up_to'], '.3g')} cycles per pixel: white noise below that would "
            f"have {_span(rows['seen_flat_share'], '.1%')}, and {larger} of {len(rows)} of its "
            "jobs have more"
        )
    return "".join(clauses)


def _seen_targets(accuracy: pd.DataFrame) -> str:
    """Name the models that make images smaller, and what they can see."""
    if "seen_up_to" not in accuracy:
        return ""
    limits = accuracy.drop_duplicates("target").dropna(subset=["seen_up_to"])
    limits = limits[limits["seen_up_to"] < 0.5]
    if limits.empty:
        return ""
    told = ", ".join(
        f"{limit:.3g} ({target})"
        for target, limit in zip(limits["target"], limits["seen_up_to"], strict=True)
    )
    return (
        "; models that resize their input see nothing above so many cycles per pixel, whatever "
        f"the cutoff: {told}"
    )


def _filter_sentence(rows: pd.DataFrame, norm: str, where: str, kind: str) -> str:
    """Tell the successes of each band in one norm, and in how many pairs one is largest."""
    columns = {"success": "sum", "n": "sum", "frequency_low": "first", "frequency_high": "first"}
    found = rows.groupby("band")[list(columns)].agg(columns)
    counts = {band: (int(k), int(n)) for band, k, n, _, _ in found.itertuples() if n}
    bounds = {band: (low, high) for band, _, _, low, high in found.itertuples()}
    parts = [band for band in BANDS[1:] if band in counts]
    start = f"At equal {_NORM_WORDS[norm]} norm, {where}"
    if not parts:
        return f"{start}, no filtered image is counted."
    told = [f"{_band_words(band, *bounds[band])} on {format_cell(*counts[band])}" for band in parts]
    whole = f"; the whole perturbation on {format_cell(*counts['all'])}" if "all" in counts else ""
    several = len(rows.drop_duplicates(_PAIR)) > 1
    unit = " image-pair combinations, in which the same images recur" if several else " images"
    return (
        f"{start}, {kind} succeed with {', '.join(told)} (successes / all{unit}){whole}: "
        f"{_best(rows)}."
    )


def _best(rows: pd.DataFrame) -> str:
    """Say in how many pairs the same band succeeds most and least; counts of signs, no test."""
    known = rows[rows["band"].isin(BANDS[1:]) & (rows["n"] > 0)]
    pairs = [pair for _, pair in known.groupby(_PAIR, sort=False) if len(pair) > 1]
    told = [
        words
        for words in (_extreme(pairs, "most", 1.0), _extreme(pairs, "least", -1.0))
        if words is not None
    ]
    return " and ".join(told) or "no band is best or worst in most pairs"


def _extreme(pairs: Sequence[pd.DataFrame], what: str, sign: float) -> str | None:
    """Name the band that alone has the highest signed rate in more than half of the pairs."""
    leads: list[str] = []
    for pair in pairs:
        rate = sign * (pair["success"] / pair["n"]).to_numpy()
        first = pair["band"].to_numpy()[rate == rate.max()]
        leads += [str(first[0])] if len(first) == 1 else []
    band = max(BANDS[1:], key=leads.count)
    count = leads.count(band)
    if 2 * count <= len(pairs):
        return None
    ones = "the one pair" if len(pairs) == 1 else f"{count} of {len(pairs)} pairs"
    return f"in {ones} the {_PART_WORDS[band]} frequencies succeed {what}"


def _band_words(band: str, low: float, high: float) -> str:
    if band == "low":
        return f"the low frequencies (below {high:.3g} cycles per pixel)"
    if band == "high":
        return f"the high ones (from {low:.3g})"
    return f"the middle ones ({low:.3g} to {high:.3g})"


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
