"""Texts shared by the sections: ranges of counts, and the note on too few images."""

import pandas as pd

ENOUGH = 39
"""Fewest images for a comparison; intervals of rates are then at most 30 points wide."""


def span(n: pd.Series) -> str:
    """Return `MIN to MAX` of the counts, or the single value if all are equal."""
    return str(n.min()) if n.min() == n.max() else f"{n.min()} to {n.max()}"


def too_few(n: pd.Series) -> str:
    """Return the sentence for a section with too few images."""
    return f"Images counted per pair: {n.max()} at most; a comparison needs {ENOUGH}."
