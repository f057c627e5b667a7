"""The board: stored attacks of a preset, ranked among themselves as `src.report.beside` ranks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from findings.costs import REPEATED
from src.analysis import Outcomes
from src.artifacts import FinishedJob, JobRecord, find_jobs
from src.report import at_reference, cost_of, rank_untuned, read_preset

TRANSFORMER = "vit_small"
"""Source from which attacks of more than 100 gradients per image did not run."""
EQUAL_COST = Path(__file__).parents[1] / "docs" / "results" / "equal-cost.card"
"""Attacks at 10 and at 100 gradients per image, in each of their ways (`at_equal_cost`)."""
CONVOLUTIONAL = ("vgg_small", "resnet_small")
"""Its sources."""
_Stored = list[tuple[str, float, Outcomes]]
"""Attack, gradients per image, and outcomes of stored jobs."""


@dataclass(frozen=True)
class Board:
    """Stored attacks with one kind of settings from some sources.

    Attributes:
        sources: Names of the sources.
        rows: One row per ranked attack, the best first: the columns of `rank_untuned`, `gradients`
            per image (NaN with a fit), and the mean success on each target by its name.
        lacking: Attacks without a rank, because they lack a source.
    """

    sources: tuple[str, ...]
    rows: pd.DataFrame
    lacking: tuple[str, ...]


class Boards:
    """The boards of a preset.

    Attributes:
        facts: The facts about the preset's card.
        first: The record of one of its jobs.
        targets: Names of the targets.
    """

    def __init__(self, preset: str) -> None:
        self.facts, jobs = read_preset(preset)
        self.first = jobs[0].record
        self.targets = self.first.targets
        self._stored: dict[tuple[str, str], _Stored] = defaultdict(list)
        self._way = dict[tuple[str, str], str]()
        for job in jobs:
            name, _, setting = job.record.label.partition(" at ")
            outcomes = at_reference(job.predictions, name, job.record, self.targets, self.first)
            place = setting.partition(" ")[0] or "own", job.record.source
            self._stored[place].append((name, cost_of(job), outcomes))
            self._way[name, place[0]] = way_of(job.record)
            job.forget()

    def board(self, setting: str, sources: Sequence[str]) -> Board:
        """Rank the attacks with own settings (`own`), or at a number of gradients per image."""
        stored = [its for source in sources for its in self._stored[setting, source]]
        parts = [outcomes for _, _, outcomes in stored]
        index = np.unique(np.concatenate([part.index for part in parts]))
        ranked = rank_untuned(parts, index, self.facts)
        costs = pd.Series([cost for _, cost, _ in stored], [name for name, _, _ in stored])
        ranked["gradients"] = ranked["attack"].map(costs.groupby(level=0).mean())
        for target in self.targets:
            of_target = [part.select(target=target) for part in parts]
            of_target = [part for part in of_target if part.evaluated.any()]
            means = rank_untuned(of_target, index, self.facts, ranked["attack"].iloc[0])
            ranked[target] = ranked["attack"].map(means.set_index("attack")["mean"])
        lacking = ranked.loc[ranked["rank"].isna(), "attack"]
        return Board(tuple(sources), ranked.dropna(subset="rank"), tuple(lacking))

    def all(self) -> dict[str, Board]:
        """Return the boards by their headings on the page."""
        sources = tuple(dict.fromkeys(source for _, source in self._stored))
        both = tuple(name for name in sources if name != TRANSFORMER)
        return {
            "At their own settings": self.board("own", sources),
            "At their own settings, from both convolutional networks": self.board("own", both),
        }

    def equal_cost(self, cost: int) -> pd.DataFrame:
        """Rank attacks at equal cost from `CONVOLUTIONAL`, each in the better of its ways.

        Returns:
            One row per attack, the best first: the columns of `rank_untuned`; `way`, its numbers of
            steps and of copies; and `steps` and `copies`, the means on the images for tuning of
            many steps and of many copies, NaN where there is one way.
        """
        ranked = self.board(str(cost), CONVOLUTIONAL).rows
        ways = tuned_ways(find_jobs([EQUAL_COST]), cost, self.first, self.facts)
        tuned = ways.groupby("attack")["mean"]
        means = tuned.agg(["first", "last"])[tuned.size() > 1].reindex(ranked["attack"])
        ranked["way"] = ranked["attack"].map(lambda name: self._way[name, str(cost)])
        ranked["steps"] = means["first"].fillna(ranked.set_index("attack")["mean_tuned"]).to_numpy()
        ranked["copies"] = means["last"].to_numpy()
        return ranked


def tuned_ways(
    jobs: Sequence[FinishedJob], cost: int, first: JobRecord, facts: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the ways of attacks to spend some gradients, that with more steps first.

    Args:
        jobs: Jobs of several ways, as in `EQUAL_COST`; those from `CONVOLUTIONAL` count.
        cost: Gradients per image.
        first: A record of the preset, with its targets and budget.
        facts: The facts about the preset, with the numbers of its images for tuning.

    Returns:
        `attack`, `way` and `mean`, the mean success on the images for tuning.
    """
    parts = dict[str, list[Outcomes]]()
    for job in jobs:
        title = job.record.label
        if f" at {cost} gradients: " in title and job.record.source in CONVOLUTIONAL:
            found = at_reference(job.predictions, title, job.record, first.targets, first)
            parts.setdefault(title, []).append(found)
        job.forget()
    if not parts:
        return pd.DataFrame(columns=["attack", "way", "mean"])
    joined = [part for its in parts.values() for part in its]
    means = rank_untuned(joined, joined[0].index, facts).set_index("attack")["mean_tuned"]
    rows = pd.Series([*parts]).str.split(f" at {cost} gradients: ", expand=True)
    rows = rows.set_axis(["attack", "way"], axis=1).assign(mean=means[[*parts]].to_numpy())
    steps = rows["way"].str.partition(" ")[0].astype(int)
    return rows.loc[steps.sort_values(ascending=False, kind="stable").index]


def way_of(record: JobRecord) -> str:
    """Return the number of an attack's steps, times those of its copies."""
    settings = record.config["attack"]["settings"]
    steps = settings.get("steps", settings.get("epoch"))  # TransferAttack's name
    return " x ".join(str(its) for its in (steps, *map(settings.get, REPEATED)) if its is not None)
