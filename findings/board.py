"""The board: stored attacks of a preset, ranked among themselves as `src.report.beside` ranks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from findings.costs import COPIES
from src.analysis import Outcomes
from src.artifacts import JobRecord, find_jobs
from src.report import at_reference, cost_of, rank_untuned, read_preset

TRANSFORMER = "vit_small"
"""Source from which attacks of more than 100 gradients per image did not run."""
EQUAL_COST = Path(__file__).parents[1] / "docs" / "results" / "equal-cost.card"
"""Attacks at 10 and at 100 gradients per image, those with copies in two ways."""
CONVOLUTIONAL = ("vgg_small", "resnet_small")
"""Its sources."""
NEAR = 0.1
"""Largest relative difference of a cost from the number that attacks are brought to."""
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
        self._without_copies = set[str]()
        for job in jobs:
            name, _, setting = job.record.label.partition(" at ")
            outcomes = at_reference(job.predictions, name, job.record, self.targets, self.first)
            place = setting.partition(" ")[0] or "own", job.record.source
            self._stored[place].append((name, cost_of(job), outcomes))
            if not {*COPIES} & {*job.record.config["attack"]["settings"]}:
                self._without_copies.add(name)
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
        """Rank attacks at equal cost, each in the better of two ways to spend it.

        An attack with copies takes many steps of one copy, or few steps of many. The way with the
        higher mean on the images for tuning is ranked, on the other images. Attacks without copies
        that `EQUAL_COST` lacks are the preset's, with steps of the same length.

        Returns:
            One row per attack, the best first: the columns of `rank_untuned`; `way`, its numbers of
            steps and of copies; and `steps` and `copies`, the means on the images for tuning of
            many steps and of many copies, NaN where there is one way.
        """
        parts: dict[str, list[Outcomes]] = defaultdict(list)
        of, steps = dict[str, str](), dict[str, int]()
        for job in find_jobs([EQUAL_COST]):
            record = job.record
            if record.images == self.first.images and abs(cost_of(job) / cost - 1) <= NEAR:
                name, way = record.attack.removeprefix("transferattack."), _way(record)
                title = f"{name}: {way}"
                outcomes = at_reference(job.predictions, title, record, self.targets, self.first)
                parts[title].append(outcomes)
                of[title], steps[title] = name, int(way.partition(" ")[0])
            job.forget()
        for source in CONVOLUTIONAL:
            for name, _, outcomes in self._stored[str(cost), source]:
                if name in self._without_copies - {*of.values()} or name in parts:
                    parts[name].append(outcomes)
                    of[name], steps[name] = name, cost
        whole = [one for its in parts.values() if len(its) == len(CONVOLUTIONAL) for one in its]
        index = whole[0].index
        ways = rank_untuned(whole, index, self.facts).set_index("attack")["mean_tuned"]
        frame = pd.DataFrame({"of": of, "steps": steps, "mean": ways}).dropna()
        frame = frame.sort_values("steps", ascending=False)
        better = frame.sort_values("mean").groupby("of")["mean"].idxmax()
        chosen = [one for title in better for one in parts[title]]
        ranked = rank_untuned(chosen, index, self.facts).dropna(subset="rank")
        both = frame.groupby("of")["mean"].agg(["first", "last", "size"])
        both["last"] = both["last"].where(both["size"] > 1)
        ranked["way"] = ranked["attack"].str.partition(": ")[2]
        ranked["attack"] = ranked["attack"].map(of)
        ranked[["steps", "copies"]] = both[["first", "last"]].loc[ranked["attack"]].to_numpy()
        return ranked


def _way(record: JobRecord) -> str:
    """Return the number of an attack's steps, times those of its copies."""
    settings = record.config["attack"]["settings"]
    steps = settings.get("steps", settings.get("epoch"))  # TransferAttack's name
    return " x ".join(str(its) for its in (steps, *map(settings.get, COPIES)) if its is not None)
