"""Numbers of the findings on six ImageNet networks."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from findings.numbers import Sweep
from findings.paired_tests import both_ways, holm, paired_tests
from src.analysis import MEAN, MEAN_OF, TRANSFER

BANDS = ["low", "mid", "high"]
"""Bands of frequencies."""
FAMILY = "same family"
"""What rates say of a source and a target that are sizes or versions of one architecture."""


class Networks(Sweep):
    """Attacks from three of six networks on photographs, in one card.

    Attributes:
        targets: The six networks.
        sources: Those that were attacked.
        budgets: Budgets above 0, in units of 1/255.
        size: Number of images.
    """

    def __init__(self, card: Path) -> None:
        super().__init__(card)
        first = self.jobs[0].record
        self.targets = first.targets
        self.sources = list(dict.fromkeys(job.record.source for job in self.jobs))
        self.budgets = [eps for eps in first.budgets if eps]
        self.size = first.images

    @cached_property
    def means(self) -> pd.DataFrame:
        """The mean success of each attack over the sources, by `eps_255` and `attack`."""
        rows = self.results.rankings
        rows = rows[rows["source"].str.startswith(MEAN_OF)].dropna(subset="mean")
        return rows.set_index(["eps_255", "attack"]).sort_index()

    @cached_property
    def clean(self) -> pd.DataFrame:
        """The rates of each network's clean predictions, with 95 % intervals, `low` to `high`."""
        rates = self.results.rates
        rates = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)]
        rows = rates.drop_duplicates("target").set_index("target").loc[list(self.targets)]
        return rows.rename(columns=lambda name: name.replace("robust_accuracy_", "")).reset_index()

    @cached_property
    def steps(self) -> pd.DataFrame:
        """FGSM against BIM: `paired_tests` of every pair and budget, `p_holm` over all of them."""
        rows = []
        for eps in self.budgets:
            (every,) = self.results.outcomes(eps).values()
            tests = both_ways(paired_tests(every))
            pairs = (tests["first"] == "fgsm") & (tests["second"] == "bim")
            others = tests["source"] != tests["target"]
            rows.append(tests[pairs & others].assign(eps_255=eps))
        table = pd.concat(rows, ignore_index=True)
        return table.assign(p_holm=holm(table["p"]))

    def decided(
        self, eps: float, *, related: bool | None = None, level: float = 0.05
    ) -> tuple[int, int, int]:
        """Count the pairs on which FGSM and BIM differ at one budget, with p < 0.05.

        Args:
            eps: The budget in units of 1/255.
            related: Count pairs of one family alone, or other pairs alone; None: all.
            level: Limit of p; more than 1: count every difference.

        Returns:
            Pairs on which FGSM fools more images, on which it fools fewer, and all pairs.
        """
        its = self.steps[self.steps["eps_255"] == eps]
        if related is not None:
            pairs = zip(its["source"], its["target"], strict=True)
            its = its[[self.related(*pair) == related for pair in pairs]]
        signs = np.sign(its["difference"]) * (its["p_holm"] < level)
        return int((signs > 0).sum()), int((signs < 0).sum()), len(its)

    @cached_property
    def kin(self) -> pd.DataFrame:
        """Mean success on the source's `relatives`, of its family, and on `strangers`.

        One row per attack, source with relatives, and budget.
        """
        rates = self.results.rates
        rates = rates[(rates["relation"] == TRANSFER) & (rates["protocol"] == "joint")]
        rates = rates[(rates["variant"] == "float32") & (rates["eps_255"] > 0)]
        same = rates["overlap"].str.contains(FAMILY)
        kinds = same.map({True: "relatives", False: "strangers"}).rename("kind")
        place = [rates["attack"], rates["source"], rates["eps_255"], kinds]
        return rates.groupby(place)["success_rate"].mean().unstack().dropna().reset_index()

    def on_targets(self, attack: str, variant: str = "float32") -> pd.DataFrame:
        """Mean success of an attack, or of its control, over sources other than the target.

        Args:
            attack: Name of the attack.
            variant: `noise` or `shuffled`; `float32`: the attack itself.

        Returns:
            One row per target, in their order, and one column per budget.
        """
        rows = self.results.frame
        rows = rows[(rows["source"] == MEAN) & (rows["relation"] == TRANSFER)]
        rows = rows[(rows["attack"] == attack) & (rows["protocol"] == "joint")]
        rows = rows[rows["variant"] == variant]
        means = rows.pivot(index="target", columns="eps_255", values="success_rate")
        return means.loc[[*self.targets]]

    def effects_beside(self, finer: "Networks") -> pd.DataFrame:
        """Test on other networks whether confident images are harder to manipulate.

        Args:
            finer: A sweep with more budgets, which replaces the attacks that it has.

        Returns:
            The report's `effects`, a row per attack, source and other target.
        """
        parts = finer.tables["effects"], self.tables["effects"]
        rows = pd.concat(parts, ignore_index=True).drop_duplicates(["attack", "source", "target"])
        return rows[rows["source"] != rows["target"]]

    def step(self, source: str, target: str, eps: float) -> pd.Series:
        """Return the row of `steps` of a pair and budget."""
        its = self.steps
        rows = its[(its["source"] == source) & (its["target"] == target) & (its["eps_255"] == eps)]
        return rows.iloc[0]

    def control(self, variant: str, source: str, target: str, eps: float) -> int:
        """Return how many of a pair's images a control of FGSM fools, `noise` or `shuffled`."""
        pair = {"attack": "fgsm", "source": source, "target": target, "protocol": "joint"}
        return int(self.row("rates", **pair, variant=variant, eps_255=eps)["success"])

    def own(self, attack: str, source: str, eps: float) -> pd.Series:
        """Return a source's rates on its own images, of all images."""
        pair = {"attack": attack, "source": source, "target": source, "protocol": "all"}
        return self.row("rates", **pair, eps_255=eps, variant="float32")

    def cost(self, attack: str) -> float:
        """Return an attack's gradients per image and budget."""
        return float(self.results.rankings.set_index("attack")["gradients"][attack].iloc[0])

    def related(self, source: str, target: str) -> bool:
        """Return True if two networks are of one family."""
        rates = self.results.rates
        rows = rates[(rates["source"] == source) & (rates["target"] == target)]
        return FAMILY in rows["overlap"].iloc[0]


def frequencies(filtered: pd.DataFrame) -> pd.DataFrame:
    """Return success of filtered perturbations on other networks beyond that of filtered noise.

    Args:
        filtered: The report's table `filtered`.

    Returns:
        A row per `source`, `attack` and `target`, and the columns `low`, `mid` and `high`.
    """
    rows = filtered[filtered["source"] != filtered["target"]]
    return rows.set_index(["source", "attack", "target", "band"])["excess"].unstack()[BANDS]
