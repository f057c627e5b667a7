"""What of a perturbation transfers, and what of an image is needed, by spatial frequency."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.analysis.controls import excess
from src.analysis.exploration import need_columns
from src.analysis.intervals import wilson_interval
from src.analysis.outcomes import target_labels
from src.analysis.rates import ratio
from src.checks import check_choice

BANDS = ("all", "low", "band", "high")
"""Parts of a perturbation: the whole, and its low, middle and high frequencies."""
NORMS = ("linf", "l2")
"""In which norm the parts were given the size of the whole."""
KINDS = ("attack", "noise")
"""Whose parts: the attack's perturbation, or random-sign noise, its control."""

SPLIT = 0.25
"""Frequency in cycles per pixel above which power counts as high: half the finest grating."""

_ROUNDING = 1e-9  # of bounds that are multiples of 1/64
_BOUNDS = ["frequency_low", "frequency_high"]
_ANSWERS = [
    *("index", "target", "eps_255", "label", "predicted", "confidence", "true_confidence"),
]
_RATES = [
    *("target", "band", "norm", *_BOUNDS, "n", "success", "noise_success"),
    *("attack_only", "noise_only", "success_rate", "success_rate_low", "success_rate_high"),
    *("noise_success_rate", "excess", "excess_low", "excess_high", "targeted"),
]


def high_frequency_shares(spectra: pd.DataFrame, above: float = SPLIT) -> pd.DataFrame:
    """Sum the power above a frequency, of images and of perturbations.

    Args:
        spectra: Binned spectra with `kind` ("image" or "perturbation"), `eps_255`,
            `frequency_low`, `coefficients`, `n` and `share` (mean over the n images of the
            share of power in the bin, the constant part left out), `source` and `attack`.
        above: Frequency in cycles per pixel; where it is inside a bin, the next one begins.

    Returns:
        One row per `attack`, `source`, `kind` and `eps_255`: `n`, `frequency` (where the summed
        bins begin; NaN if none does), `share` of the power in [0, 1] (NaN without it) and
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
        flat = float(high["coefficients"].sum() / max(rows["coefficients"].sum(), 1))
        records.append((*key, int(rows["n"].max()), begin, share, flat))
    return pd.DataFrame(records, columns=[*keys, "n", "frequency", "share", "flat_share"])


def filtered_rates(
    filtered: pd.DataFrame,
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
) -> pd.DataFrame:
    """Count the successes of filtered perturbations, and subtract those of filtered noise.

    Args:
        filtered: One row per (index, target, band, norm, kind) of one budget, with `eps_255`,
            `label`, `frequency_low`, `frequency_high` (cycles per pixel), `predicted`,
            `confidence` and `true_confidence`. `band` is one of `BANDS`, `norm` (in which the
            part has the size of the whole) one of `NORMS`, `kind` one of `KINDS`.
        predictions: Predictions of the same job, clean rows included; they decide which images
            are counted, and hold the classes of a targeted attack.
        source: Model that the adversarial images were made on.
        targets: Models that the images were shown to, in the order of the result.
        protocol: Which images are counted, as in `rates`.

    Returns:
        One row per (target, norm, band): `target`, `band`, `norm`, `frequency_low`,
        `frequency_high`, `n` images, `success` and `noise_success`, `attack_only` and `noise_only`
        (images on which one of the two succeeds), `success_rate` and its 95 % Wilson interval
        `success_rate_low` and `success_rate_high` (NaN without images), `noise_success_rate`,
        their difference `excess` with its interval `excess_low` and `excess_high` (see
        `src.analysis.controls.excess`), and `targeted`, whether success is reaching a class.

    Raises:
        ValueError: As `excess`, for a missing column, an unknown band, norm or kind, several
            budgets, or an image of the predictions that was not filtered.
    """
    if "kind" not in filtered:
        raise ValueError(
            "the filtered table has no noise to compare with: an earlier version wrote it; run "
            "the job again."
        )
    need_columns(filtered, [*_ANSWERS, "norm", "band", *_BOUNDS], "filtered")
    rows = filtered[filtered["target"].isin(list(targets))]
    _check_filtered(rows, targets)
    clean = predictions.loc[predictions["eps_255"] == 0, _ANSWERS]
    whole = predictions.drop_duplicates(["target", "index"])["target"].value_counts()
    aims = target_labels(predictions)
    if aims is not None:
        rows = rows.assign(target_label=aims.reindex(rows["index"]).to_numpy())
    tables = []
    for target, norm, band in itertools.product(targets, NORMS, BANDS):
        part = rows[(rows["target"] == target) & (rows["norm"] == norm) & (rows["band"] == band)]
        if part.empty:
            continue
        made, noise = (part[part["kind"] == kind] for kind in KINDS)
        if len(made) != (images := whole.get(target, 0)):
            raise ValueError(
                f"the filtered table has {len(made)} of the {images} images that were shown to "
                f"'{target}', norm {norm}, band {band}."
            )
        answers = pd.concat([clean, made.drop(columns=["norm", "band", "kind", *_BOUNDS])])
        names = {"norm": norm, "band": band, **made[_BOUNDS].iloc[0]}
        tables.append(excess(answers, noise, source, [target], protocol).assign(**names))
    result = pd.concat(tables, ignore_index=True).rename(columns={"denominator": "n"})
    result.columns = [name.replace("control", "noise") for name in result.columns]
    low, high = wilson_interval(result["success"], result["n"])
    return result.assign(success_rate_low=low, success_rate_high=high)[_RATES]


def low_pass_accuracy(low_passed: pd.DataFrame, clean: pd.DataFrame | None = None) -> pd.DataFrame:
    """Count how many clean images are recognised without their high frequencies.

    Args:
        low_passed: One row per (index, target, cutoff) with `label` and `predicted`; `cutoff` in
            cycles per pixel, below which frequencies were kept.
        clean: Answers to the same images as they are: one row per (index, target) with `label`
            and `predicted`. Images that were not low-passed are left out.

    Returns:
        One row per (target, cutoff), targets in the order of the table and by rising cutoff:
        `target`, `cutoff` (inf: all frequencies, from `clean`), `n` (all images), `correct`,
        `accuracy` and its 95 % Wilson interval `accuracy_low` and `accuracy_high`.

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
    """Refuse names without meaning, targets that are not there, and several budgets."""
    absent = [target for target in targets if target not in set(rows["target"])]
    if absent:
        raise ValueError(f"the filtered table has no rows of {', '.join(absent)}.")
    for band in rows["band"].unique():
        check_choice("band", band, BANDS)
    for norm in rows["norm"].unique():
        check_choice("norm", norm, NORMS)
    for kind in rows["kind"].unique():
        check_choice("kind", kind, KINDS)
    budgets = sorted(rows["eps_255"].unique())
    if len(budgets) > 1:
        listed = ", ".join(f"{eps:g}" for eps in budgets)
        raise ValueError(f"the filtered table must have one budget, not {listed}.")


def _check_once(rows: pd.DataFrame, keys: Sequence[str], name: str) -> None:
    repeated = rows.duplicated(list(keys))
    if repeated.any():
        first = rows.loc[repeated, list(keys)].iloc[0]
        told = ", ".join(f"{key} {value}" for key, value in first.items())
        raise ValueError(f"the {name} table has several rows of {told}.")
