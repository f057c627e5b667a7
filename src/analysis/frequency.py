"""What of a perturbation transfers, and what of an image is needed, by spatial frequency."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.analysis.exploration import need_columns
from src.analysis.intervals import wilson_interval
from src.analysis.matrix import format_cell, is_white_box
from src.analysis.outcomes import image_positions, outcomes, target_labels
from src.analysis.rates import ratio
from src.checks import check_choice

BANDS = ("all", "low", "band", "high")
"""Parts of a perturbation: the whole, and its low, middle and high frequencies."""
NORMS = ("linf", "l2")
"""In which norm the parts were given the size of the whole."""

SPLIT = 0.25
"""Frequency in cycles per pixel above which power counts as high: half the finest grating."""

_PART_WORDS = {"low": "low", "band": "middle", "high": "high"}
_NORM_WORDS = {"linf": "L-infinity", "l2": "L2"}
_MOST_LISTED = 3  # more are told by the smallest and the largest
_ROUNDING = 1e-9  # of bounds that are multiples of 1/64


def high_frequency_shares(spectra: pd.DataFrame, above: float = SPLIT) -> pd.DataFrame:
    """Sum the power above a frequency, of images and of perturbations.

    Args:
        spectra: Binned spectra with `kind` ("image" or "perturbation"), `eps_255`,
            `frequency_low`, `coefficients`, `n` and `share` (mean over the n images of the
            share of power in the bin, the constant part left out), and `source` and `attack`.
        above: Frequency in cycles per pixel; where it is inside a bin, the next one begins.

    Returns:
        One row per `attack`, `source`, `kind` and `eps_255`: `n`, `frequency` (where the summed
        bins begin; NaN if none does), `share` of the power in [0, 1] (NaN without it), and
        `flat_share`, what it would be if the power were the same at all frequencies.

    Raises:
        ValueError: If a column is missing.
    """
    keys = ["attack", "source", "kind", "eps_255"]
    need_columns(spectra, [*keys, "frequency_low", "coefficients", "n", "share"], "spectra")
    records = []
    for key, rows in spectra.groupby(keys, sort=False, dropna=False):
        high = rows[rows["frequency_low"] >= above - _ROUNDING]
        begin = high["frequency_low"].min() if len(high) else np.nan
        share = float(high["share"].to_numpy().sum()) if rows["share"].notna().all() else np.nan
        flat = high["coefficients"].sum() / max(rows["coefficients"].sum(), 1)
        records.append((*key, int(rows["n"].max()), begin, share, flat))
    return pd.DataFrame(records, columns=[*keys, "n", "frequency", "share", "flat_share"])


def spectrum_sentences(spectra: pd.DataFrame, above: float = SPLIT) -> tuple[str, str]:
    """Say how much of the perturbations' power is at high frequencies, beside the images'.

    Args:
        spectra: As for `high_frequency_shares`, of several jobs below each other.
        above: Frequency in cycles per pixel.

    Raises:
        ValueError: If a column is missing.
    """
    shares = high_frequency_shares(spectra, above).dropna(subset=["share", "frequency"])
    made = shares[shares["kind"] == "perturbation"]
    images = shares[shares["kind"] == "image"]
    if made.empty or images.empty:
        lacking = "perturbations" if made.empty else "images"
        return (
            f"At which frequencies the perturbations lie cannot be told: no spectrum of {lacking} "
            "has power.",
            "Without it there is nothing to compare with a flat spectrum.",
        )
    frequency, own = made["frequency"].iloc[0], images["share"].iloc[0]
    names = [
        f"{attack} on {source}"
        for attack, source in zip(made["attack"], made["source"], strict=True)
    ]
    first = (
        f"At {frequency:.3g} cycles per pixel and above lie {_listed(made['share'], names)} of "
        f"the power of the perturbations at {made['eps_255'].iloc[0]:g}/255, and {own:.1%} of that "
        f"of the {images['n'].iloc[0]} images themselves (mean over images, constant part left "
        "out)."
    )
    flat = made["flat_share"].iloc[0]
    higher = int((made["share"] > own).sum())
    above_flat = int((made["share"] > flat).sum())
    second = (
        f"Power spread evenly over all frequencies, as of white noise, would have {flat:.1%} "
        f"there; {higher} of {len(made)} jobs have perturbations with a larger such share than "
        f"the images, and {above_flat} with a larger one than white noise."
    )
    return first, second


def filtered_rates(
    filtered: pd.DataFrame,
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
) -> pd.DataFrame:
    """Count the successes of perturbations of which a filter left some frequencies alone.

    Args:
        filtered: One row per (index, target, band, norm) of one budget, with `eps_255`, `label`,
            `frequency_low`, `frequency_high` (cycles per pixel) and `predicted`. `band` is one
            of `BANDS`, `norm` (in which the part has the size of the whole) one of `NORMS`.
        predictions: Predictions of the same job, clean rows included; they decide which images
            are counted, and hold the classes of a targeted attack.
        source: Model that the adversarial images were made on.
        targets: Models that the images were shown to, in the order of the result.
        protocol: Which images are counted, as in `rates`.

    Returns:
        One row per (target, norm, band): `target`, `band`, `norm`, `frequency_low`,
        `frequency_high`, `n` images, `success`, `success_rate` and its 95 % Wilson interval
        `success_rate_low` and `success_rate_high`; NaN without images.

    Raises:
        ValueError: As `rates`, for a missing column, an unknown band or norm, several budgets,
            a row that is there twice, or an image that only one of the tables has.
    """
    keys = ["target", "norm", "band"]
    bounds = ["frequency_low", "frequency_high"]
    need_columns(filtered, ["index", "eps_255", "label", "predicted", *keys, *bounds], "filtered")
    found = outcomes(predictions, source, targets, protocol)
    rows = filtered[filtered["target"].isin(list(targets))]
    _check_filtered(rows, targets)
    images = found.rows[["target", "index"]].assign(counted=found.counted)
    images = images.drop_duplicates(["target", "index"])
    place = image_positions(images, rows)
    if (place < 0).any():
        index, target = rows.loc[place < 0, ["index", "target"]].iloc[0]
        raise ValueError(f"the predictions lack image {index} of '{target}', which was filtered.")
    counted = images["counted"].to_numpy()[place]
    aims = target_labels(predictions)
    answers = rows["predicted"].to_numpy()
    success = (
        answers != rows["label"].to_numpy()
        if aims is None
        else answers == aims.reindex(rows["index"]).to_numpy()
    )
    rows = rows.assign(counted=counted, success=counted & success)
    for column, order in zip(keys, (targets, NORMS, BANDS), strict=True):
        rows[column] = _ordered(rows[column], order)
    groups = rows.groupby(keys, observed=True, sort=True)
    table = groups[bounds].first()
    table["n"] = groups["counted"].sum().astype(np.int64)
    table["success"] = groups["success"].sum().astype(np.int64)
    table = table.reset_index().astype(dict.fromkeys(keys, object))
    _check_whole(table, images)
    k, n = table["success"].to_numpy(), table["n"].to_numpy()
    table["success_rate"] = ratio(k, n)
    table["success_rate_low"], table["success_rate_high"] = wilson_interval(k, n)
    return table[["target", "band", "norm", *table.columns[len(keys) :]]]


def filter_sentences(rates: pd.DataFrame) -> tuple[str, str]:
    """Say which frequencies of the perturbations transfer, at equal L-infinity and equal L2.

    Args:
        rates: Results of `filtered_rates` below each other, with `attack` and `source`. Counts
            are summed over the pairs that are not white box, or, without any, over all.

    Raises:
        ValueError: If a column is missing.
    """
    keys = ["attack", "source", "target"]
    columns = ["band", "norm", "frequency_low", "frequency_high", "n", "success"]
    need_columns(rates, [*keys, *columns], "filtered rates")
    white = [is_white_box(*pair) for pair in zip(rates["source"], rates["target"], strict=True)]
    pairs, what = rates[~np.array(white, dtype=bool)], "not white box"
    if pairs.empty:
        pairs, what = rates, "white box"
    attacks = ", ".join(map(str, pairs["attack"].unique()))
    count = len(pairs.drop_duplicates(keys))
    where = f"{count} {'pair that is' if count == 1 else 'pairs that are'} {what} ({attacks})"
    linf, l2 = (_filter_sentence(pairs[pairs["norm"] == norm], norm, where) for norm in NORMS)
    return linf, l2


def low_pass_accuracy(low_passed: pd.DataFrame) -> pd.DataFrame:
    """Count how many clean images are recognised without their high frequencies.

    Args:
        low_passed: One row per (index, target, cutoff) with `label` and `predicted`; `cutoff` in
            cycles per pixel, below which frequencies were kept.

    Returns:
        One row per (target, cutoff), targets in the order of the table and by rising cutoff:
        `target`, `cutoff`, `n` (all images), `correct`, `accuracy` and its 95 % Wilson interval
        `accuracy_low` and `accuracy_high`.

    Raises:
        ValueError: If a column is missing or a row is there twice.
    """
    keys = ["target", "cutoff"]
    need_columns(low_passed, ["index", *keys, "label", "predicted"], "low_passed")
    _check_once(low_passed, ["index", *keys], "low_passed")
    order = list(low_passed["target"].unique())
    rows = low_passed[keys].assign(
        target=_ordered(low_passed["target"], order),
        correct=low_passed["predicted"] == low_passed["label"],
    )
    groups = rows.groupby(keys, observed=True, sort=True)["correct"]
    table = pd.DataFrame({"n": groups.size(), "correct": groups.sum().astype(np.int64)})
    table = table.reset_index().astype({"target": object})
    k, n = table["correct"].to_numpy(), table["n"].to_numpy()
    table["accuracy"] = ratio(k, n)
    table["accuracy_low"], table["accuracy_high"] = wilson_interval(k, n)
    return table


def low_pass_sentences(accuracy: pd.DataFrame) -> tuple[str, str]:
    """Say how well models recognise images without their high frequencies.

    Args:
        accuracy: Result of `low_pass_accuracy`.

    Raises:
        ValueError: If a column is missing.
    """
    need_columns(accuracy, ["target", "cutoff", "n", "correct", "accuracy"], "low-pass")
    if accuracy.empty:
        return "No image was low-passed.", "Nothing is known of the frequencies that models need."
    cutoffs = np.sort(accuracy["cutoff"].unique())
    near, last = cutoffs[np.abs(cutoffs - SPLIT).argmin()], cutoffs[-1]
    more = f"; with those below {last:.3g}, {_recognised(accuracy, last)}" if near < last else ""
    return (
        f"Of clean images that keep only the frequencies below {near:.3g} cycles per pixel, "
        f"{_recognised(accuracy, near)}{more}.",
        "The lowest cutoff down to which a model keeps at least half of its accuracy at "
        f"{last:.3g} cycles per pixel is {_half(accuracy)}.",
    )


def _ordered(names: pd.Series, order: Sequence[str]) -> pd.Categorical:
    return pd.Categorical(names.astype(object), categories=pd.Index(list(order)), ordered=True)


def _check_filtered(rows: pd.DataFrame, targets: Sequence[str]) -> None:
    """Refuse what is not one row per image, target, band and norm of one budget."""
    absent = [target for target in targets if target not in set(rows["target"])]
    if absent:
        raise ValueError(f"the filtered table has no rows of {', '.join(absent)}.")
    for band in rows["band"].unique():
        check_choice("band", band, BANDS)
    for norm in rows["norm"].unique():
        check_choice("norm", norm, NORMS)
    budgets = sorted(rows["eps_255"].unique())
    if len(budgets) > 1:
        listed = ", ".join(f"{eps:g}" for eps in budgets)
        raise ValueError(f"the filtered table must have one budget, not {listed}.")
    _check_once(rows, ["index", "target", "norm", "band"], "filtered")


def _check_once(rows: pd.DataFrame, keys: Sequence[str], name: str) -> None:
    repeated = rows.duplicated(list(keys))
    if repeated.any():
        first = rows.loc[repeated, list(keys)].iloc[0]
        told = ", ".join(f"{key} {value}" for key, value in first.items())
        raise ValueError(f"the {name} table has several rows of {told}.")


def _check_whole(table: pd.DataFrame, images: pd.DataFrame) -> None:
    """Refuse a group that lacks counted images."""
    counted = images.groupby("target")["counted"].sum()
    expected = counted.reindex(table["target"]).to_numpy()
    lacking = table["n"].to_numpy() != expected
    if lacking.any():
        row = table[lacking].iloc[0]
        raise ValueError(
            f"the filtered table has {row['n']} of the {int(expected[lacking][0])} images counted "
            f"for '{row['target']}', norm {row['norm']}, band {row['band']}."
        )


def _filter_sentence(rows: pd.DataFrame, norm: str, where: str) -> str:
    """Tell the successes of each band in one norm, and which is largest."""
    columns = {"success": "sum", "n": "sum", "frequency_low": "first", "frequency_high": "first"}
    found = rows.groupby("band")[list(columns)].agg(columns)
    counts = {band: (int(k), int(n)) for band, k, n, _, _ in found.itertuples() if n}
    bounds = {band: (low, high) for band, _, _, low, high in found.itertuples()}
    parts = [band for band in BANDS[1:] if band in counts]
    start = f"At equal {_NORM_WORDS[norm]} norm, over {where}"
    if not parts:
        return f"{start}, no filtered image is counted."
    told = [f"{_band_words(band, *bounds[band])} on {format_cell(*counts[band])}" for band in parts]
    whole = f"; the whole perturbation on {format_cell(*counts['all'])}" if "all" in counts else ""
    share = {band: counts[band][0] / counts[band][1] for band in parts}
    leading = [band for band in parts if share[band] == max(share.values())]
    verdict = f"most often with the {_PART_WORDS[leading[0]]} ones"
    if len(leading) > 1 or len(parts) == 1:
        verdict = "no part succeeds more often than all others"
    return f"{start}, the attacks succeed with {', '.join(told)}{whole}: {verdict}."


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
        lowest = (
            f"{falling.loc[kept, 'cutoff'].min():.3g}" if falling["correct"].iloc[0] else "none"
        )
        told.append(f"{lowest} ({target!s})")
    return ", ".join(told)
