"""Texts of all sections: counts, and sections with too few images."""

import pandas as pd

ENOUGH = 39
"""Fewest images that are compared: no rate of them has an interval wider than 30 points."""


def span(n: pd.Series) -> str:
    """Return `MIN to MAX` of the counts, or the one that all have."""
    return str(n.min()) if n.min() == n.max() else f"{n.min()} to {n.max()}"


def too_few(n: pd.Series) -> str:
    """Return the sentence of a section that has too few images."""
    return f"Images counted for a pair: {n.max()} at most; a comparison needs {ENOUGH}."
