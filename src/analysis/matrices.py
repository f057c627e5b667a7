"""Transfer matrices in long form: counts, rates and white boxes, one row per cell."""

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

import pandas as pd

from ..utils.model_names import ModelRef
from .intervals import wilson_interval
from .quantities import QUANTITIES, Quantity

CLEAN = "clean"
"""Name of the matrix row for clean images."""
WHITE_BOX, OWN, TRANSFER = "white box", "own", "transfer"
"""Relations of a target to a source, see `relation`."""
RELATED = "related"
"""Relation of another network that rankings and means leave out because it resembles the source."""


def with_cell_columns(rates: pd.DataFrame) -> pd.DataFrame:
    """Add the numbers in a matrix cell: success for targeted attacks, else robust accuracy.

    `rates` has rows of `rates_by_protocol`, either all targeted or all untargeted. The added
    columns are `k` of `n` images, their `rate` with `rate_low` and `rate_high`, `counted` (what k
    counts, in words), and the 95 % interval of the mean confidence, `confidence_low` and
    `confidence_high`. `success_rate_sd` is added as NaN if there is only one seed.
    """
    targeted = bool(rates["targeted"].any())
    rate, n = matrix_rate(targeted), rates["denominator"]
    columns: dict[str, Any] = {
        f"rate{end}": rates[f"{rate.column}{end}"] for end in ("", "_low", "_high")
    }
    for name in (name for name, quantity in QUANTITIES.items() if quantity.interval):
        columns[f"{name}_low"], columns[f"{name}_high"] = wilson_interval(rates[name] * n, n)
    counted = "target class reached" if targeted else "still correct"
    rows = rates.assign(k=rates[rate.count], n=n, counted=counted, **columns)
    return rows if "success_rate_sd" in rows else rows.assign(success_rate_sd=nan)


def matrix_rate(targeted: bool) -> Quantity:
    """Return the rate in a matrix: success for targeted attacks, else robust accuracy."""
    return QUANTITIES["success_rate" if targeted else "robust_accuracy"]


def clean_rows(
    rates: pd.DataFrame, keys: Sequence[str] = ("attack", "target", "defence")
) -> pd.DataFrame:
    """Return the `with_cell_columns` rates on all clean images, with source and relation `clean`.

    There is one row per combination of the `keys`. It is left out if jobs count differently, for
    example because the target labels depend on the source.
    """
    rows = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)]
    alike = rows.groupby([*keys], sort=False)[["k", "n"]].transform("nunique").eq(1).all(axis=1)
    return rows[alike].drop_duplicates([*keys]).assign(source=CLEAN, relation=CLEAN)


def transfer_matrix(rates: pd.DataFrame, eps_255: float, protocol: str) -> pd.DataFrame:
    """Build the transfer matrix of one attack at one budget, in long form.

    `rates` comes from `rates_by_protocol`, for jobs with the same attack and for the primary
    variant only.

    Returns:
        One row per cell, with the columns of `with_cell_columns` and `cell` (see `format_cell`).
        The first rows, with `source` = `clean`, are for clean images, and count all images under
        any protocol.
    """
    rows = with_cell_columns(rates)
    here = (rows["protocol"] == protocol) & (rows["eps_255"] == eps_255)
    cells = pd.concat([clean_rows(rows), rows[here]], ignore_index=True)
    spread = cells["success_rate_sd"].mask(cells["source"] == CLEAN)
    return cells.assign(cell=list(map(format_cell, cells["k"], cells["n"], spread)))


def behind_defences(rates: pd.DataFrame, eps_255: float, protocol: str) -> pd.DataFrame:
    """Average clean and robust accuracy behind each defence over the targets of other sources.

    A target's rate is its mean over the sources other than itself; targets weigh equally.

    `rates` is as for `transfer_matrix`, with all defences.

    Returns:
        One row per `source_defence` and `defence` of the targets, none first: the number of
        `targets`, `clean_accuracy` on all clean images, `rate` at the budget under the protocol,
        what it has `counted` (see `with_cell_columns`), the number of predictions (`n`) and
        abstentions (`abstained`), and `itself`, the counts with the sources' own networks as
        targets (empty: they are none).
    """
    rows, keys = with_cell_columns(rates), ["source_defence", "defence"]
    rows = rows[(rows["protocol"] == protocol) & (rows["eps_255"] == eps_255)]
    others = rows["relation"] == TRANSFER
    counts = rows[~others].groupby(keys)[["k", "n"]].sum()
    kept = {"counted": "first", "abstained": "sum", "n": "sum"}
    of_target = rows[others].groupby([*keys, "target"], sort=False)
    cells_ = of_target.agg({"clean_accuracy": "mean", "rate": "mean", **kept}).reset_index()
    means = cells_.groupby(keys, sort=False).agg(
        targets=("target", "size"),
        clean_accuracy=("clean_accuracy", "mean"),
        rate=("rate", "mean"),
        **{name: (name, how) for name, how in kept.items()},
    )
    cells = [format_cell(*row) for row in counts.itertuples(index=False)]
    itself = pd.Series(cells, counts.index, dtype=object).reindex(means.index).fillna("")
    return means.assign(itself=itself).reset_index()


def relation(source: ModelRef, target: ModelRef) -> str:
    """Return the relation of a target to the source of the images.

    It is `white box` if model and defence are the source's, `own` if the target is the source's
    model, or a member of it, behind another defence, and `transfer` otherwise.

    >>> vgg, resnet, both = map(ModelRef.parse, ["vgg16", "resnet50", "vgg16+resnet50"])
    >>> relation(both, resnet), relation(vgg, vgg.behind("jpeg")), relation(vgg, resnet)
    ('white box', 'own', 'transfer')
    """
    if target.members != source.members and target.model not in source.members:
        return TRANSFER
    return WHITE_BOX if source.defence == target.defence else OWN


def format_count(count: float) -> str:
    """Format a count, or the mean of counts over seeds, without a trailing `.0`."""
    return f"{count:.1f}".removesuffix(".0")


def format_cell(count: float, denominator: float, deviation: float = nan) -> str:
    """Format a rate with its counts and, if known, its standard deviation over the seeds.

    >>> format_cell(1374, 8139)
    '1374 / 8139 = 16.88%'
    >>> format_cell(0, 0)
    '0 / 0 = n/a'
    >>> format_cell(12.5, 20, 0.035)
    '12.5 / 20 = 62.50% \N{PLUS-MINUS SIGN} 3.50%'
    """
    rate = f"{count / denominator:.2%}" if denominator else "n/a"
    if not isnan(deviation):
        rate += f" \N{PLUS-MINUS SIGN} {deviation:.2%}"
    return f"{format_count(count)} / {format_count(denominator)} = {rate}"
