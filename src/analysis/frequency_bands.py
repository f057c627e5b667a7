"""Success of filtered perturbations, and accuracy on low-passed images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .controls import excess
from .intervals import wilson_interval
from .outcomes import ratio, target_labels, with_defence

BANDS = ("all", "low", "mid", "high")
"""Frequency bands of a perturbation; `all` is the whole perturbation."""
PERTURBATIONS = ("attack", "noise")
"""Filtered perturbations: the attack's, and random-sign noise as its control."""

_BOUNDS = ["frequency_low", "frequency_high"]
_COLUMNS = [
    "index",
    "target",
    "defence",
    "eps_255",
    "label",
    "predicted",
    "confidence",
    "true_confidence",
]


def filtered_rates(
    filtered: pd.DataFrame,
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
) -> pd.DataFrame:
    """Compare the success of filtered perturbations with that of filtered noise.

    `filtered` is a job's table with one row per (index, target, band, kind). The job's
    `predictions` determine which images are counted, and hold the target labels. The other
    arguments are as for `rates`.

    Returns:
        One row per (target, band) with the columns of `src.analysis.controls.excess`, then
        `band`, `frequency_low` and `frequency_high` (cycles per pixel).
    """
    labels = target_labels(predictions)
    if labels is not None:
        filtered = filtered.assign(target_label=labels.reindex(filtered["index"]).to_numpy())
    predictions, filtered = with_defence(predictions), with_defence(filtered)
    used = predictions["index"].isin(filtered["index"])
    clean = predictions.loc[used & (predictions["eps_255"] == 0), _COLUMNS]
    tables = []
    for band in BANDS:
        part = filtered[filtered["band"] == band]
        attack, noise = (part[part["kind"] == kind] for kind in PERTURBATIONS)
        table = excess(pd.concat([clean, attack]), noise, source, targets, protocol)
        tables.append(table.assign(band=band, **attack[_BOUNDS].iloc[0]))
    order = list(targets)
    return pd.concat(tables).sort_values(
        "target", key=lambda names: names.map(order.index), kind="stable", ignore_index=True
    )


def low_pass_accuracy(low_passed: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """Compute the accuracy on clean images without their high frequencies.

    `low_passed` has one row per (index, target, cutoff), with `label`, `predicted` and the `cutoff`
    in cycles per pixel; `clean` has the predictions for the unfiltered images.

    Returns:
        One row per cutoff and target, by increasing cutoff: `target`, `cutoff` (inf: all
        frequencies), `n`, `correct`, `accuracy` and its 95 % Wilson interval.
    """
    images = low_passed[["index", "target"]].drop_duplicates()
    unfiltered = clean.merge(images, on=["index", "target"]).assign(cutoff=np.inf)
    rows = pd.concat([low_passed.sort_values("cutoff"), unfiltered])
    rows = rows.assign(correct=rows["predicted"] == rows["label"])
    groups = rows.groupby(["target", "cutoff"], sort=False)["correct"]
    table = groups.agg(n="size", correct="sum").reset_index()
    k, n = table["correct"].to_numpy(), table["n"].to_numpy()
    table["accuracy"] = ratio(k, n)
    table["accuracy_low"], table["accuracy_high"] = wilson_interval(k, n)
    return table
