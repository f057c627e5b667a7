"""Texts of all sections: names of pairs, counts, and sections with too few images."""

import pandas as pd

from src.analysis import is_white_box

ENOUGH = 39
"""Fewest images that are compared: no rate of them has an interval wider than 30 points."""


def pair_names(rows: pd.DataFrame) -> pd.Series:
    """Name the source-target pair of each row; a white box has an asterisk."""
    names = [
        f"{source} \N{RIGHTWARDS ARROW} {target}{' *' if is_white_box(source, target) else ''}"
        for source, target in zip(rows["source"], rows["target"], strict=True)
    ]
    return pd.Series(names, index=rows.index)


def span(n: pd.Series) -> str:
    """Return `MIN to MAX` of the counts, or the one that all have."""
    return str(n.min()) if n.min() == n.max() else f"{n.min()} to {n.max()}"


def too_few(n: pd.Series) -> str:
    """Return the sentence of a section that has too few images."""
    return f"Images counted for a pair: {n.max()} at most; a comparison needs {ENOUGH}."
