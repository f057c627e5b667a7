"""Ranking of sources for an unseen target, for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..analysis.image_outcomes import image_outcomes, joined
from ..analysis.source_choice import (
    FEWEST_FOR_INTERVAL,
    Transfer,
    choices,
    profiles,
    transfer_of,
)
from ..artifacts.comparable import ALIKE, differences
from ..artifacts.frame_jobs import jobs_of
from ..artifacts.jobs import MORE_IMAGES
from ..utils.model_names import ModelRef
from ..utils.terminal import text_table
from .verdicts import share

INTERVALS = "95 % intervals are for new targets and new images."
FEW_TARGETS = f"Below {FEWEST_FOR_INTERVAL} targets there is no interval."


@dataclass(frozen=True)
class SourceChoice:
    """The transfer between models and the statistics computed from it.

    An attribute that is not listed is the result of the function of the same name.

    Attributes:
        spread: Root mean square difference in success (see `profiles`) between two trainings of one
            network; NaN if no network has two.
    """

    heading: str
    transfer: Transfer
    profiles: pd.DataFrame
    spread: float
    choices: pd.DataFrame


def choose_source(
    folders: Sequence[Path],
    attack: Sequence[str] | None = None,
    eps_255: float | None = None,
    related: bool = True,
) -> SourceChoice:
    """Rank the sources of the jobs in these folders for an unseen target.

    Args:
        folders: Folders of sweeps on the same images.
        attack: Attacks to use; None: all attacks that every source has.
        eps_255: Budget in 1/255; None: the first job's reference budget.
        related: False: leave out pairs of models that share weights, architecture or family.

    Raises:
        ValueError: There are too few models, or the jobs differ in more than seed and program.
    """
    jobs = [job for job in jobs_of(*folders, related=related) if job.attacked]
    jobs = [job for job in jobs if attack is None or {job.attack, job.row_title} & {*attack}]
    if not jobs:
        raise ValueError(f"the folders hold no jobs with {', '.join(attack or ['an attack'])}.")
    first = jobs[0].record
    rest = [name for name in ALIKE if name not in ("images", "model", "program's code", "seed")]
    ways = {MORE_IMAGES: ["images"], "Rename one of the networks.": ["model"]}
    for way, fields in (ways | {"Choose attacks that share it.": rest}).items():
        if unlike := differences(*(job.record for job in jobs), fields=fields):
            raise ValueError(f"the jobs differ in {', '.join(unlike)}. {way}")
    eps, parts = first.reference if eps_255 is None else eps_255, []
    for job in jobs:
        pair = job.record.source, job.record.targets
        outcomes = image_outcomes(job.defended, job.row_title, *pair, first.protocol)
        job.forget()
        if eps not in outcomes:
            raise ValueError(f"eps={eps:g}/255: {job.attack} from {pair[0]} lacks this budget.")
        parts.append(outcomes[eps])
    transfer = transfer_of(joined(parts))
    ranked = profiles(transfer)
    return SourceChoice(
        f"{', '.join(transfer.attacks)} on {first.dataset}, eps = {eps:g}/255, {first.protocol}"
        + ", without related pairs" * (not related),
        transfer,
        ranked,
        _spread(ranked),
        choices(transfer, first.seed),
    )


def _spread(ranked: pd.DataFrame) -> float:
    """Compute the root mean square difference between trainings of one network."""
    pairs = [
        first - second
        for _, its in ranked.groupby([ModelRef((name,)).architecture for name in ranked["source"]])[
            "success"
        ]
        for first, second in combinations(its, 2)
    ]
    return float(np.sqrt(np.mean(np.square(pairs)))) if pairs else np.nan


def source_tables(choice: SourceChoice) -> Group:
    """Lay out a choice of sources for the terminal."""
    mean = choice.choices.iloc[-1]
    lines = [
        f"chosen: {share(mean, 'success')}; at random: {share(mean, 'any')}; best on each target: "
        f"{share(mean, 'most')}",
        f"either of two sources: {share(mean, 'best_2')}"
        + f"; of three: {share(mean, 'best_3')}" * bool(choice.choices["candidates"].max() > 2),
        INTERVALS if np.isfinite(mean["success_low"]) else FEW_TARGETS,
    ]
    parts: list[RenderableType] = [
        Text(f"Which source for an unseen target: {choice.heading}", style="bold"),
        _ranking(choice),
        Text(spread_text(choice), style="italic"),
        Text("\nEach target in turn as the unseen target", style="bold"),
        _choices(choice.choices),
        Text("\n".join(lines), style="italic"),
    ]
    return Group(*parts)


def spread_text(choice: SourceChoice) -> str:
    """Return how many sources are as good as the best within luck, or why that is unknown."""
    if lacks := choice.profiles["lacks"].iloc[0]:
        return f"The sources are not ranked: add {lacks}."
    if np.isnan(choice.spread):
        return "Luck is unknown: no network has two trainings in this sweep (NAME, NAME_seed1)."
    first = choice.profiles["success"].iloc[0]
    alike = choice.profiles["success"] >= first - choice.spread
    return (
        "~: behind the first by less than two trainings of one network differ in their success on "
        f"others, {choice.spread:.1%} (root mean square): {int(alike.sum()) - 1} sources."
    )


def _ranking(choice: SourceChoice) -> Table:
    first, rows = choice.profiles["success"].iloc[0], []
    for place, row in enumerate(choice.profiles.to_dict("records")):
        mark = "~" if place and row["success"] >= first - choice.spread else " "
        shares = ["" if pd.isna(row[name]) else f"{row[name]:.1%}" for name in ("success", "own")]
        rows.append([row["source"], mark + shares[0], shares[1]])
    return text_table(["source", "on others", "on itself"], rows, ["source"])


def _choices(choices: pd.DataFrame) -> Table:
    rows = []
    for row in choices.fillna({"chosen": "", "best": ""}).to_dict("records"):
        success, most, by_chance = (f"{row[name]:.1%}" for name in ("success", "most", "any"))
        rows.append([row["target"], row["chosen"], success, row["best"], most, by_chance])
    columns = ["target", "chosen", "success", "best", "success", "random"]
    return text_table(columns, rows, ["target", "chosen", "best"])
