"""Rankings of attacks and sources, and how many images decide a difference."""

from math import ceil, inf, sqrt
from pathlib import Path

import pandas as pd
from scipy.stats import studentized_range

from src.analysis.multiple_comparisons import FEWEST_TESTED, LEVEL, detectable
from src.artifacts.frame_jobs import Sweeps, jobs_of
from src.report.summary import summarise


def rankings(
    folder: Sweeps | pd.DataFrame, *more: Sweeps, of: str = "attack", related: str = "keep"
) -> pd.DataFrame:
    """Return the rankings of attacks, or sources (`of="source"`), of a frame or finished sweeps.

    They are the rows of `attacks.csv` and `sources.csv`. `related="exclude"` leaves out pairs with
    the same weights, architecture or family. Other arguments and errors are those of `table`.
    """
    if of not in ("attack", "source"):
        raise ValueError(f"of={of}: attack or source.")
    summary = summarise(jobs_of(folder, *more), related)
    return summary.rankings if of == "attack" else summary.sources


def images_needed(
    difference: float,
    discordance: float | None = None,
    attacks: int | None = None,
    frame: str | Path | pd.DataFrame | None = None,
) -> int:
    """Return how many images decide a difference between two ranked attacks with a power of 80 %.

    Args:
        difference: Of their mean success, in (0, 1].
        discordance: Their mean squared difference on an image, in [0, 1]: with one target the share
            of images that only one of the two fools. None: the median of the `frame`.
        attacks: Number of attacks that are ranked together. None: that of the `frame`.
        frame: A frame, or a sweep's folder, whose first ranking counts.

    Raises:
        ValueError: A number is missing or impossible.

    Examples:
        >>> images_needed(difference=0.03, discordance=0.2, attacks=36)
        4865
    """
    if frame is not None:
        ranked = rankings(frame)
        keys = ["group", "eps_255", "kind", "defence", "source"]
        if len(ranked):
            ranked = ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)]
        discordance = ranked["discordance"].median() if discordance is None else discordance
        attacks = len(ranked) if attacks is None else attacks
    if not attacks or attacks < 2 or not 0 < difference <= sqrt(discordance or 0) <= 1:
        raise ValueError(
            f"difference={difference}, discordance={discordance}, attacks={attacks}: needed are "
            "0 < difference ** 2 <= discordance <= 1 and attacks >= 2, or a frame that has them."
        )
    cutoff = studentized_range.ppf(1 - LEVEL, attacks, inf) / sqrt(2)
    alone = detectable(cutoff, discordance or 0, 1)
    return max(FEWEST_TESTED, ceil((alone / difference) ** 2))
