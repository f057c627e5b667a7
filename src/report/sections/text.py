"""Texts of all sections: names of pairs, counts, intervals, and sections with too few images."""

from typing import Any

import pandas as pd

from src.analysis import is_white_box, wilson_interval

WIDEST = 0.3
"""Where the interval of a rate is wider, a section is a sentence instead of charts."""
MOST_ROWS = 60
"""Most rows of a folded table."""


def pair_names(rows: pd.DataFrame) -> pd.Series:
    """Name the source-target pair of each row; a white box has an asterisk."""
    names = [
        f"{source} \N{RIGHTWARDS ARROW} {target}{' *' if is_white_box(source, target) else ''}"
        for source, target in zip(rows["source"], rows["target"], strict=True)
    ]
    return pd.Series(names, index=rows.index)


def enough(n: pd.Series) -> pd.Series:
    """Tell where a rate of so many images has an interval no wider than `WIDEST`."""
    low, high = wilson_interval(n.to_numpy() // 2, n.to_numpy())
    return pd.Series(high - low <= WIDEST, index=n.index)


def span(n: pd.Series) -> str:
    """Write the least and the largest count, or the one that all have."""
    return str(n.min()) if n.min() == n.max() else f"{n.min()} to {n.max()}"


def too_few(n: pd.Series) -> str:
    """Return the sentence of a section that has too few images."""
    return (
        f"Images counted for a pair: {n.max()} at most. The interval of a rate is then wider than "
        f"{100 * WIDEST:.0f} points, too wide for a comparison."
    )


def with_intervals(rows: pd.DataFrame, name: str, form: str) -> list[str]:
    """Write values with their intervals; `n/a` without a value."""
    numbers = rows[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    return [
        "n/a"
        if pd.isna(v)
        else f"{v:{form}}" + ("" if pd.isna(a) else f" [{a:{form}}, {b:{form}}]")
        for v, a, b in numbers
    ]


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries by column name."""
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
