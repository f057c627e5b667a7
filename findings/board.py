"""The board: stored attacks of a preset, ranked among themselves as `src.report.beside` ranks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from findings.costs import COSTS
from src.analysis import Outcomes, joined, rankings
from src.artifacts import find_jobs
from src.report import at_reference, cost_of, rank_untuned, read_preset

TRANSFORMER = "vit_small"
"""Source from which attacks of more than 100 gradients per image did not run."""
SPENT = Path(__file__).parents[1] / "docs" / "results" / "spent.card"
"""Attacks with copies at 100 gradients per image, spent on steps and on copies."""
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
        for job in jobs:
            name, _, setting = job.record.label.partition(" at ")
            outcomes = at_reference(job.predictions, name, job.record, self.targets, self.first)
            place = setting.partition(" ")[0] or "own", job.record.source
            self._stored[place].append((name, cost_of(job), outcomes))
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
            **{f"At {cost} gradients per image": self.board(str(cost), sources) for cost in COSTS},
        }

    def spent(self) -> pd.DataFrame:
        """Return the means of both ways to spend 100 gradients on the images for tuning.

        One row per attack, the best first: `attack`, and for each way `steps`, `copies` its `mean`,
        `low` and `high` with the way as a prefix, NaN if no number takes as many gradients or
        the other way has the same settings; and the `best` mean.
        """
        parts, ways = list[Outcomes](), dict[str, tuple[str, str]]()
        for job in find_jobs([SPENT]):
            label, record = job.record.label, job.record
            ways[label] = record.attack, "copies" if "spend=copies" in label else "steps"
            parts.append(at_reference(job.predictions, label, record, self.targets, self.first))
            job.forget()
        ranked = rankings(joined(parts))
        ranked = ranked[ranked["source"] == ranked["source"].iloc[0]]
        ranked["of"], ranked["way"] = zip(*ranked["attack"].map(ways), strict=True)
        table = ranked.pivot(index="of", columns="way", values=["mean", "low", "high"])
        table.columns = [f"{way}_{value}" for value, way in table.columns]
        table["best"] = table[["steps_mean", "copies_mean"]].max(axis=1)
        table = table.sort_values("best", ascending=False)
        return table.rename_axis("attack").reset_index()
