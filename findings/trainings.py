"""Numbers of the findings on several trainings of each network."""

from dataclasses import replace
from functools import cached_property

import pandas as pd

from findings.numbers import Sweep
from src import table
from src.analysis import MEAN, TRANSFER, network_rankings
from src.report import Grid, results_of


class Trainings(Sweep):
    """Attacks from several trainings of each network, shown to all of them, in one card."""

    @cached_property
    def networks(self) -> pd.DataFrame:
        """Rows of `network_rankings`, of one `attack` and budget `eps_255` each.

        `images` is the number of images that all trainings classify correctly.
        """
        parts = []
        for attack in self.attacks():
            results = results_of([job for job in self.jobs if job.attack == attack])
            for eps in results.jobs[0].record.budgets[1:]:
                (outcomes,) = results.outcomes(eps).values()
                images = outcomes.counted.all(axis=(0, 1)).sum()
                place = {"attack": attack, "eps_255": eps, "images": images}
                parts.append(network_rankings(outcomes).assign(**place))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per attack, budget, source network and other target network.

        The `least` and the `most` success of a pair of trainings; their `range`; and `width`, the
        mean width of the pairs' 95 % intervals over images.
        """
        rows = self.results.frame
        rows = rows[rows["primary"] & (rows["eps_255"] > 0)]
        alone = (rows["source"] != MEAN) & (rows["target"] != MEAN)
        rows = rows[alone & (rows["relation"] == TRANSFER) & (rows["protocol"] == "joint")]
        rows = rows.assign(width=rows["success_rate_high"] - rows["success_rate_low"])
        of = rows.groupby(["attack", "eps_255", "source_network", "target_network"], sort=False)
        cells = of["success_rate"].agg(least="min", most="max", pairs="size")
        return cells.assign(range=cells["most"] - cells["least"], width=of["width"].mean())

    def folded(self, eps: float) -> str:
        """Lay out the success of source networks on target networks at one budget."""
        grid = table(self.results, networks=True, eps_255=eps)
        assert isinstance(grid, Grid)
        return replace(grid, caption="", notes=[]).markdown().strip()
