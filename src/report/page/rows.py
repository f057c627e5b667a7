"""Rows of the page by column: places on axes, and numbers as text beside the values of marks."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import TRANSFER, WHITE_BOX, estimates
from ...analysis.quantities import QUANTITIES, Quantity
from ..charts.theme import MEAN

_CURVE = "confidence"
"""Quantity of the second chart over the budget."""

Axes = Mapping[str, list[Any]]


def of_axes(rows: pd.DataFrame, axes: Axes) -> dict[str, Any]:
    """Return the rows by column.

    Returns:
        `place`: that of a row on the axes, the last fastest; the target after the last is the mean
        over white boxes. `relation`, `overlap` and `note` are texts. A column for each quantity has
        the `value` that places a mark, its `text` in percent, and if known `low`, `high` and their
        text `ends`, the `counts`, and the `spread` over seeds.
    """
    of_targets, of_sources = rows["target"] == estimates.MEAN, rows["source"] == MEAN
    pair, boxes = ~of_targets & ~of_sources, of_targets & (rows["relation"] == WHITE_BOX)
    used = pair | boxes | (rows["relation"] == TRANSFER)
    rows, pair, boxes = rows[used], pair[used], boxes[used]
    named = rows.replace({"source": {MEAN: ""}, "target": {estimates.MEAN: ""}})
    places = [pd.Index(names).get_indexer(pd.Index(named[axis])) for axis, names in axes.items()]
    places[2] = np.where(boxes, len(axes["target"]), places[2])
    shape = [len(names) + (axis == "target") for axis, names in axes.items()]
    over = "over {:g} " + np.where(of_sources[used], "sources", "members").astype(object)
    pairs = zip(over, rows["pairs"], strict=True)
    many = [text.format(n) if n > 1 else "one source" for text, n in pairs]
    without = _texts(rows["abstained"], lambda n: f"{_count(n)} without a prediction" * bool(n))
    values = {
        rate.short: _quantity(rows, rate, pair) for rate in QUANTITIES.values() if rate.page_name
    }
    return {
        "place": np.ravel_multi_index(places, shape).tolist(),
        "relation": rows["relation"].replace(TRANSFER, "").tolist(),
        "overlap": rows["overlap"].tolist(),
        "note": np.where(boxes, many, np.where(pair, without, "")).tolist(),
        **values,
        _CURVE: _quantity(rows, QUANTITIES[_CURVE], pair),
    }


def _quantity(rows: pd.DataFrame, rate: Quantity, pair: pd.Series) -> dict[str, list[Any]]:
    """Return the columns of a quantity."""
    name = rate.column
    columns: dict[str, list[Any]] = {"text": _texts(rows[name], percent)}
    columns["value"] = _numbers(rows[name])
    if rate.count:
        low, high = (rows[f"{name}_{end}"] for end in ("low", "high"))
        columns |= {"low": _numbers(low), "high": _numbers(high)}
        ends = zip(_texts(low, percent), _texts(high, percent), strict=True)
        columns["ends"] = [f"[{least}, {most}]" if least else "" for least, most in ends]
        counts = zip(*(_texts(rows[name], _count) for name in (rate.count, rate.of)), strict=True)
        columns["counts"] = np.where(pair, [f"{k} / {n}" * bool(n) for k, n in counts], "").tolist()
    if (spread := f"{name}_sd") in rows:
        columns["spread"] = _texts(rows[spread], lambda sd: f"\N{PLUS-MINUS SIGN} {percent(sd)}")
    return columns


def percent(share: float) -> str:
    """Return a share in percent, without a sign where it rounds to 0."""
    return f"{100 * share:z.1f}"


def _count(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")


def _texts(column: pd.Series, form: Callable[[float], str]) -> list[str]:
    """Format the numbers of a column; NaN is empty."""
    codes, numbers = pd.factorize(column)
    return np.array([*map(form, numbers), ""], object)[codes].tolist()


def _numbers(column: pd.Series) -> list[float | None]:
    """Return the numbers of a column with four decimals; None for NaN."""
    rounded = column.round(4).astype(object)
    return rounded.where(column.notna(), None).tolist()
