"""Results of finished sweeps: predictions, rates and rankings; commands that name sweeps."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd

from .. import analysis
from ..analysis.multiple_comparisons import images_for
from ..analysis.ranking import GROUP
from ..artifacts.jobs import MORE_IMAGES, find_jobs, on_other_images
from ..artifacts.sweep_folders import Sweeps, named_folders
from ..artifacts.sweep_state import unfinished
from ..report.cells import AVERAGE, DIFFERENCE
from ..report.results import Results, open_results, results_of
from ..utils.model_names import parts_of
from ..utils.refusals import choose


def load_sweep(*folders: str | Path, **named: str | Path) -> Results:
    """Load the results of the finished jobs of one or several sweeps.

    Args:
        *folders: Folders of sweeps, such as `outputs/DATE`, or folders that contain such folders.
        **named: Folders by name, as in `day1="outputs/DATE"`. If two sweeps have attacks with the
            same label, the label gets this name, or else the name of the folder.

    Returns:
        The `Results`: `frame` (all rates and means), `rates`, `rankings`, `sources`, `table()`,
        `figure()`, and `predictions`, a data frame that indexing reads. It has one row per job,
        variant, target, budget and image, with the columns

        - `attack`: the attack's label, including what distinguishes jobs with the same attack and
          source, such as ` seed=1`;
        - `source`: the model that the images were crafted on, `a+b` for an ensemble, empty for a
          job with clean images only;
        - `target`: the model that classified the images; the source also classifies clean images;
        - `defence`: the defence in front of the target, or `none`;
        - `norm`: the norm of the budget, `linf` or `l2`;
        - `protocol`: the images that the job's own matrix counts, see `rates`;
        - `variant`: a storage format such as `float32`, or a control, `noise` or `shuffled`; the
          job's primary variant comes first;
        - `eps_255`: the budget in units of 1/255, 0 for clean images;
        - `index`: the number of the image in the data set;
        - `label`, `target_label`, `predicted`: the true class, the target label (missing for
          untargeted attacks) and the most likely class;
        - `confidence`, `true_confidence`: the probabilities of the most likely class and of the
          true class, in [0, 1];
        - `draws`, `draws_correct`: the number of passes through a randomised defence, and how many
          of them predict the true class;
        - `gradients`, `forwards`: how many gradients and forward passes (including those for the
          gradients) the attack needed for this image at all budgets together; 0 for clean images
          and noise, missing if unknown.

        The first seven columns are categoricals. `source` and `target` share their categories, so
        `frame[frame.source != frame.target]` leaves out the white boxes. `results.jobs` have the
        records: settings, budgets, digests of data and weights, and versions.

    Raises:
        ValueError: A folder does not exist or holds no finished job, or a file in it is damaged.

    Examples:
        >>> frame = load_sweep("outputs/2026-01-31_12-00-00-000000")  # doctest: +SKIP
        >>> wrong = frame.predicted != frame.label  # doctest: +SKIP
        >>> wrong.groupby([frame.attack, frame.eps_255]).mean()  # doctest: +SKIP
    """
    return results_of(find_jobs(named_folders(*folders, named)))


def load_table(name: str, *folders: str | Path, **named: str | Path) -> pd.DataFrame:
    """Load one table, such as a diagnostic's, from the finished jobs of one or several sweeps.

    Args:
        name: Name of the table: the stem of its files.
        *folders: Folders of sweeps, as for `load_sweep`.
        **named: Folders by name.

    Returns:
        The rows of all jobs that have the table, after the columns `attack` and `source`.

    Raises:
        ValueError: As for `load_sweep`, or no job has the table.
    """
    jobs = find_jobs(named_folders(*folders, named))
    frames = [
        job.table(name).assign(attack=job.attack, source=job.record.source)
        for job in jobs
        if name in job.tables
    ]
    if not frames:
        tables = ", ".join(sorted({table for job in jobs for table in job.tables}))
        raise ValueError(f"No job has the table {name}. There are {tables}.")
    rows = pd.concat(frames, ignore_index=True)
    return rows[[*dict.fromkeys(["attack", "source", *rows])]]


def rates(
    frame: Results | pd.DataFrame,
    source: str | None = None,
    targets: Sequence[str] | None = None,
    protocol: str | None = None,
) -> pd.DataFrame:
    """Compute rates per target, defence and budget: still correct, success, confidence, intervals.

    With a `source`, `frame` holds one job and variant, and the result is that of
    `src.analysis.rates`. Without a `source`, `frame` comes from `load_sweep` or `transfer`. Then
    the result has rows for every job and variant and begins with the columns `attack`, `source`,
    `variant`, `norm` and `protocol`.

    Args:
        frame: At least one row per (index, target, defence, eps_255). Without a column `defence`
            there is no defence; clean images have eps_255 = 0.
        source: Model that the images were crafted on.
        targets: Models that the images were evaluated on, behind all defences; None: all.
        protocol: Images that form the denominator; None: each job's own protocol or, with a
            `source`, `joint`.

    Raises:
        ValueError: The frame lacks the clean rows that the protocol needs.
    """
    frame = frame.predictions if isinstance(frame, Results) else frame
    if source is not None:
        named = list(frame["target"].unique()) if targets is None else targets
        return analysis.rates(frame, source, named, protocol or "joint")
    keys = ["attack", "source", "variant", "norm", "protocol"]
    parts = {}
    for place, rows in frame.groupby(keys, observed=True, sort=False):
        attack, name, variant, norm, job_protocol = map(str, place)
        attacked = rows.loc[rows["eps_255"] > 0, "target"].unique()
        wanted = [target for target in attacked if targets is None or target in targets]
        if wanted:
            chosen = protocol or job_protocol
            job_rates = analysis.rates(rows, name, wanted, chosen)
            parts[attack, name, variant, norm, chosen] = job_rates
    if not parts:
        raise ValueError(f"targets={targets}: the frame has no adversarial images for them.")
    return pd.concat(parts, names=keys).reset_index(keys).reset_index(drop=True)


def add_sweeps(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for folders of sweeps and for printed names."""
    named = "folders of sweeps, or NAME=FOLDER; default: the newest in outputs/"
    parser.add_argument("folder", nargs="*", type=_sweep, default=[], help=named)
    text = "printed names of attacks and models, such as vgg_small=VGG-16"
    parser.add_argument("--names", **NEW_NAMES, help=text)


def warn(folders: Mapping[Path, str], names: Iterable[str]) -> None:
    """Print to standard error what sweeps lack, jobs on different images, and unknown names.

    Unknown are printed names that belong to no attack, model or defence.
    """
    for folder, (left, jobs) in unfinished(folders).items():
        print(f"{folder}: {left} of {jobs} jobs are not done.", file=sys.stderr)
    reserved = {analysis.CLEAN, AVERAGE, DIFFERENCE}
    finished = find_jobs(folders)
    if on_other_images(finished):
        print(MORE_IMAGES, file=sys.stderr)
    for job in finished:
        for name in (job.attack, job.record.source, *job.record.targets, *job.record.defences):
            reserved |= {name, *parts_of(name)}
    for name in names:
        if name not in reserved:
            print(f"--names {name}: no attack, model or defence has this name.", file=sys.stderr)


def _sweep(word: str) -> str | dict[str, str]:
    """Parse `FOLDER` or `NAME=FOLDER`."""
    name, sign, folder = word.partition("=")
    return {name: folder} if sign and not Path(word).exists() else word


def new_name(word: str) -> tuple[str, str]:
    """Parse `NAME=NEW`: a name and its replacement."""
    name, sign, new = word.partition("=")
    if not (name and sign and new):
        raise argparse.ArgumentTypeError(f"{word}: write NAME=NEW, such as vgg_small=VGG-16.")
    return name, new


NEW_NAMES: Any = {"nargs": "+", "default": [], "type": new_name, "action": "extend"}
"""Keywords of an option that takes words `NAME=NEW` and may be repeated."""


def distinct(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return new names by name; refuse two for one name."""
    names = [name for name, _ in dict.fromkeys(pairs)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} has two new names. Choose one.")
    return dict(pairs)


def rankings(
    folder: Sweeps | Results, *more: Sweeps, of: str = "attack", related: bool = True
) -> pd.DataFrame:
    """Rank the attacks, or with `of="source"` the sources, in results or in finished sweeps.

    The result has the rows of `attacks.csv` or `sources.csv`. `related=False` leaves out pairs of
    models with the same weights, architecture or family. Other arguments and errors are as for
    `table`.
    """
    choose("of", of, ("attack", "source"))
    results = open_results(folder, *more, related=related)
    return results.rankings if of == "attack" else results.sources


def images_needed(
    difference: float,
    discordance: float | None = None,
    attacks: int | None = None,
    frame: Sweeps | Results | None = None,
) -> int:
    """Return how many images a ranking needs to decide a difference with a power of 80 %.

    Args:
        difference: Difference between the mean success of two attacks, in (0, 1].
        discordance: Mean squared difference between their success on an image, in [0, 1]. With one
            target it is the share of images that exactly one of the attacks fools. None: the
            median in `frame`.
        attacks: Number of attacks that are ranked together. None: the number in `frame`. For a
            gate of `compare` that excludes a fall, the number of its rows plus 1.
        frame: Results, or the folder of a sweep; the first ranking is used.

    Raises:
        ValueError: A number is missing or impossible.

    Examples:
        >>> images_needed(difference=0.03, discordance=0.2, attacks=36)
        4932
    """
    if isinstance(difference, str | Path | Results):
        raise ValueError("difference must be a number in (0, 1]. Pass results as frame=results.")
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
            "0 < difference ** 2 <= discordance <= 1 and attacks >= 2. Pass them, or results."
        )
    return images_for(difference, discordance or 0, attacks)
