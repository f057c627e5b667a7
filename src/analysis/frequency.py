"""What of a perturbation transfers, and what of an image is needed, by spatial frequency."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.analysis.exploration import need_columns
from src.analysis.intervals import wilson_interval
from src.analysis.outcomes import image_positions, outcomes, target_labels
from src.analysis.rates import ratio
from src.checks import check_choice

BANDS = ("all", "low", "band", "high")
"""Parts of a perturbation: the whole, and its low, middle and high frequencies."""
NORMS = ("linf", "l2")
"""In which norm the parts were given the size of the whole."""

NYQUIST = 0.5
"""Frequency in cycles per pixel of the finest grating, along rows or columns."""
SPLIT = 0.25
"""Frequency in cycles per pixel above which power counts as high: half the finest grating."""

_ROUNDING = 1e-9  # of bounds that are multiples of 1/64


def high_frequency_shares(spectra: pd.DataFrame, above: float = SPLIT) -> pd.DataFrame:
    """Sum the power above a frequency, of images and of perturbations.

    Args:
        spectra: Binned spectra with `kind` ("image" or "perturbation"), `eps_255`,
            `frequency_low`, `coefficients`, `n` and `share` (mean over the n images of the
            share of power in the bin, the constant part left out), `source` and `attack`. It may
            have `seen_up_to`: the highest frequency in cycles per pixel that the source can see
            of such an image, 0.5 * input size / image size; NaN, or 0.5 and more, if it does not
            make images smaller.
        above: Frequency in cycles per pixel; where it is inside a bin, the next one begins.

    Returns:
        One row per `attack`, `source`, `kind` and `eps_255`: `n`, `frequency` (where the summed
        bins begin; NaN if none does), `share` of the power in [0, 1] (NaN without it),
        `flat_share`, what it would be if the power were the same at all frequencies, `seen_up_to`
        (NaN if the source sees all of them) and `seen_flat_share`, the flat share of the bins
        that begin below that.

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
        seen_up_to = _limit(rows)
        seen = rows
        if np.isfinite(seen_up_to):
            seen = rows[rows["frequency_low"] < seen_up_to - _ROUNDING]
        flats = _flat_share(rows, above), seen_up_to, _flat_share(seen, above)
        records.append((*key, int(rows["n"].max()), begin, share, *flats))
    columns = [*keys, "n", "frequency", "share", "flat_share", "seen_up_to", "seen_flat_share"]
    return pd.DataFrame(records, columns=columns)


def _limit(rows: pd.DataFrame) -> float:
    """Return the lowest of the limits of a model's sight; NaN if there is none below 1/2."""
    limits = rows["seen_up_to"].to_numpy(dtype=np.float64) if "seen_up_to" in rows else np.empty(0)
    limits = limits[limits < NYQUIST - _ROUNDING]  # NaN is not below
    return float(limits.min()) if len(limits) else float("nan")


def _flat_share(rows: pd.DataFrame, above: float) -> float:
    high = rows.loc[rows["frequency_low"] >= above - _ROUNDING, "coefficients"].sum()
    return float(high / max(rows["coefficients"].sum(), 1))


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
        `success_rate_low` and `success_rate_high` (NaN without images), and `targeted`, whether
        success is reaching a class.

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
    table["targeted"] = aims is not None
    return table[["target", "band", "norm", *table.columns[len(keys) :]]]


def low_pass_accuracy(low_passed: pd.DataFrame, clean: pd.DataFrame | None = None) -> pd.DataFrame:
    """Count how many clean images are recognised without their high frequencies.

    Args:
        low_passed: One row per (index, target, cutoff) with `label` and `predicted`; `cutoff` in
            cycles per pixel, below which frequencies were kept. It may have `seen_up_to`, the
            highest frequency that the target can see (see `high_frequency_shares`).
        clean: Answers to the same images as they are: one row per (index, target) with `label`
            and `predicted`. Images that were not low-passed are left out.

    Returns:
        One row per (target, cutoff), targets in the order of the table and by rising cutoff:
        `target`, `cutoff` (inf: all frequencies, from `clean`), `n` (all images), `correct`,
        `accuracy` and its 95 % Wilson interval `accuracy_low` and `accuracy_high`, and
        `seen_up_to` if the table has it (NaN if the target sees all frequencies).

    Raises:
        ValueError: If a column is missing, a row is there twice or is not low-passed at all, or
            `clean` lacks an image.
    """
    keys = ["target", "cutoff"]
    need_columns(low_passed, ["index", *keys, "label", "predicted"], "low_passed")
    if not np.isfinite(low_passed["cutoff"].to_numpy(dtype=np.float64)).all():
        raise ValueError("the low_passed table must have finite cutoffs.")
    _check_once(low_passed, ["index", *keys], "low_passed")
    order = list(low_passed["target"].unique())
    rows = low_passed if clean is None else _with_clean(low_passed, clean)
    rows = rows[keys].assign(
        target=_ordered(rows["target"], order), correct=rows["predicted"] == rows["label"]
    )
    groups = rows.groupby(keys, observed=True, sort=True)["correct"]
    table = pd.DataFrame({"n": groups.size(), "correct": groups.sum().astype(np.int64)})
    table = table.reset_index().astype({"target": object})
    k, n = table["correct"].to_numpy(), table["n"].to_numpy()
    table["accuracy"] = ratio(k, n)
    table["accuracy_low"], table["accuracy_high"] = wilson_interval(k, n)
    if "seen_up_to" in low_passed:
        limits = {name: _limit(found) for name, found in low_passed.groupby("target", sort=False)}
        table["seen_up_to"] = table["target"].map(limits).astype(np.float64)
    return table


def _with_clean(low_passed: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """Put the answers to the unfiltered images below the others, as those of no cutoff."""
    keys = ["index", "target"]
    need_columns(clean, [*keys, "label", "predicted"], "clean")
    images = low_passed[keys].drop_duplicates()
    kept = clean[[*keys, "label", "predicted"]].merge(images, on=keys)
    _check_once(kept, keys, "clean")
    if len(kept) < len(images):
        lacking = images.merge(kept[keys], on=keys, how="left", indicator=True)
        index, target = lacking.loc[lacking["_merge"] == "left_only", keys].iloc[0]
        raise ValueError(
            f"the clean table lacks image {index} of '{target}', which was low-passed."
        )
    return pd.concat([low_passed[[*kept.columns, "cutoff"]], kept.assign(cutoff=np.inf)])


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
