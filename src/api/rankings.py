"""Rankings of a frame of rows, and their line for a paper."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from math import sqrt
from pathlib import Path

import pandas as pd

from ..analysis import CLEAN
from ..analysis.image_outcomes import GROUP
from ..analysis.multiple_comparisons import images_for
from ..artifacts.frame_jobs import Sweeps, jobs_of
from ..artifacts.jobs import find_jobs
from ..artifacts.layout import MANIFEST
from ..artifacts.sweep_state import job_statuses
from ..report.summary import summarise
from ..utils.model_names import parts_of


def add_sweeps(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for folders of sweeps and for printed names."""
    named = "folders of sweeps, or NAME=FOLDER; default: the newest in outputs/"
    parser.add_argument("folder", nargs="*", type=_sweep, help=named)
    text = "printed names of attacks and models, such as vgg_small=VGG-16"
    parser.add_argument("--names", nargs="+", default=[], type=new_name, help=text)


def warn(folders: Mapping[Path, str], names: Iterable[str]) -> None:
    """Print to standard error how many jobs of each sweep are unfinished, and unknown names.

    Unknown are printed names that belong to no attack, model or defence.
    """
    for folder in (folder for folder in folders if (folder / MANIFEST).exists()):
        states = [job.state for job in job_statuses(folder)]
        if left := len(states) - states.count("done"):
            print(f"{folder}: {left} of {len(states)} jobs are not done.", file=sys.stderr)
    known = {CLEAN}
    for job in find_jobs(folders):
        for name in (job.attack, job.record.source, *job.record.targets, *job.record.defences):
            known |= {name, *parts_of(name)}
    for name in names:
        if name not in known:
            print(f"--names {name}: no attack, model or defence has this name.", file=sys.stderr)


def _sweep(word: str) -> Path | dict[str, Path]:
    """Parse `FOLDER` or `NAME=FOLDER`."""
    name, sign, folder = word.partition("=")
    return {name: Path(folder)} if sign and not Path(word).exists() else Path(word)


def new_name(word: str) -> tuple[str, str]:
    """Parse `NAME=NEW`: a name and its replacement."""
    name, sign, new = word.partition("=")
    if not (name and sign and new):
        raise argparse.ArgumentTypeError(f"{word}: write NAME=NEW, such as vgg_small=VGG-16.")
    return name, new


def rankings(
    folder: Sweeps | pd.DataFrame, *more: Sweeps, of: str = "attack", related: str = "keep"
) -> pd.DataFrame:
    """Rank the attacks, or with `of="source"` the sources, in a frame or in finished sweeps.

    The result has the rows of `attacks.csv` or `sources.csv`. `related="exclude"` leaves out pairs
    of models with the same weights, architecture or family. Other arguments and errors are as for
    `table`.
    """
    if of not in ("attack", "source"):
        raise ValueError(f"of={of}: must be attack or source.")
    summary = summarise(jobs_of(folder, *more), related)
    return summary.rankings if of == "attack" else summary.sources


def images_needed(
    difference: float,
    discordance: float | None = None,
    attacks: int | None = None,
    frame: str | Path | pd.DataFrame | None = None,
) -> int:
    """Return how many images a ranking needs to decide a difference with a power of 80 %.

    Args:
        difference: Difference between the mean success of two attacks, in (0, 1].
        discordance: Mean squared difference between their success on an image, in [0, 1]. With one
            target it is the share of images that exactly one of the attacks fools. None: the
            median in `frame`.
        attacks: Number of attacks that are ranked together. None: the number in `frame`.
        frame: A frame, or the folder of a sweep; its first ranking is used.

    Raises:
        ValueError: A number is missing or impossible.

    Examples:
        >>> images_needed(difference=0.03, discordance=0.2, attacks=36)
        4932
    """
    if isinstance(difference, str | Path | pd.DataFrame):
        raise ValueError("difference must be a number in (0, 1]. Pass a frame as frame=frame.")
    if frame is not None:
        ranked = rankings(frame)
        keys = ["group", "eps_255", *GROUP, "defence", "source"]
        if len(ranked):
            ranked = ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)]
            ranked = ranked.dropna(subset="rank")
        discordance = ranked["discordance"].median() if discordance is None else discordance
        attacks = len(ranked) if attacks is None else attacks
    if not attacks or attacks < 2 or not 0 < difference <= sqrt(discordance or 0) <= 1:
        raise ValueError(
            f"difference={difference}, discordance={discordance}, attacks={attacks}: must satisfy "
            "0 < difference ** 2 <= discordance <= 1 and attacks >= 2. Pass them, or a frame."
        )
    return images_for(difference, discordance or 0, attacks)
