"""Counts and rates as text."""

from collections.abc import Callable, Iterable
from math import isnan, nan

import pandas as pd


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
    rate = format_rate(count, denominator, deviation)
    return f"{format_count(count)} / {format_count(denominator)} = {rate}"


def format_rate(count: float, denominator: float, deviation: float = nan) -> str:
    """Format a rate and, if known, its standard deviation over the seeds."""
    rate = f"{count / denominator:.2%}" if denominator else "n/a"
    return rate if isnan(deviation) else f"{rate} \N{PLUS-MINUS SIGN} {deviation:.2%}"


def format_cells(
    rows: pd.DataFrame, form: Callable[[float, float, float], str] = format_cell
) -> pd.Series:
    """Format the counts `k` of `n` in rows, with their standard deviation `success_rate_sd`."""
    columns = (rows[name] for name in ("k", "n", "success_rate_sd"))
    return pd.Series(list(map(form, *columns)), rows.index, dtype=object)


def percents(rows: pd.DataFrame) -> pd.DataFrame:
    """Format shares in percent; texts stay, and NaN is empty."""
    return rows.map(lambda x: x if isinstance(x, str) else "" if isnan(x) else f"{x:.1%}")


def span(numbers: Iterable[float]) -> str:
    """Return `MIN to MAX` of the numbers, or the single value if all are equal."""
    least, most = (f"{end(numbers, default=0):.6g}" for end in (min, max))
    return least if least == most else f"{least} to {most}"
