"""Rankings of attacks and sources, and how many images decide a difference."""

from pathlib import Path

import pandas as pd

from src.analysis import pairwise
from src.analysis.summary import summarise
from src.frames.frame import jobs_of


def rankings(
    folder: str | Path | pd.DataFrame, *more: str | Path, of: str = "attack"
) -> pd.DataFrame:
    """Return the rankings of attacks, or of sources, of a frame or of finished sweeps.

    They are those of `attacks.csv` and `sources.csv`: one row per budget, kind, defence, attack and
    source, the reference budget first, with the mean success, the difference from the first of the
    ranking with its simultaneous 95 % interval, and whether that is decided.

    Args:
        folder: A frame of `load_sweep` or `transfer`; a sweep's folder, or any other that holds
            such folders.
        *more: Further folders.
        of: `attack` or `source`.

    Raises:
        ValueError: As `load_sweep`; or there is no such kind of ranking.
    """
    if of not in ("attack", "source"):
        raise ValueError(f"of={of}: there are attack, source.")
    summary = summarise(jobs_of(folder, *more))
    return summary.rankings if of == "attack" else summary.sources


def images_needed(
    difference: float,
    discordance: float | None = None,
    attacks: int | None = None,
    frame: str | Path | pd.DataFrame | None = None,
) -> int:
    """Return how many images decide a difference between two attacks with a power of 80 %.

    The test is that of the rankings, corrected for all pairs of attacks.

    Args:
        difference: Of their mean success, in (0, 1].
        discordance: Mean squared difference of the two on an image, in [0, 1]: with one target the
            share of images that only one of the two fools. None: the median of the `frame`.
        attacks: Number of attacks that are ranked together. None: that of the `frame`.
        frame: A frame, or a sweep's folder, whose first ranking is looked at.

    Raises:
        ValueError: A number is missing or impossible.

    Examples:
        >>> images_needed(difference=0.03, discordance=0.2, attacks=36)
        4865
    """
    if frame is not None:
        ranked = rankings(frame)
        keys = ["eps_255", "kind", "defence", "source"]
        ranked = ranked[(ranked[keys] == ranked[keys].head(1).squeeze()).all(axis=1)]
        discordance = ranked["discordance"].median() if discordance is None else discordance
        attacks = len(ranked) if attacks is None else attacks
    if discordance is None or attacks is None:
        raise ValueError("images_needed takes discordance and attacks, or a frame that has them.")
    return pairwise.images_needed(difference, discordance, attacks)
