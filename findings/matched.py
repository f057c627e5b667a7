"""Numbers of the findings about attacks at matched cost."""

from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from findings.costs import COSTS, TABLE, unpacked
from src.analysis.ranking import SIGNIFICANT, rankings

SETTINGS = ("own", *map(str, COSTS))
TRANSFORMERS = ("vit_small",)


class Matched:
    """Rankings of all attacks at their own settings and at equal numbers of gradients.

    Attributes:
        table: The packed rows, see `findings.costs.pack`.
        ranked: `rankings` by setting.
        beside: The same with tests against `mi`.
        published: Published success of attacks in percent, with its gradients an image.
    """

    def __init__(self, published: pd.DataFrame) -> None:
        self.table = pd.read_parquet(TABLE)
        self.published = published.set_index("attack")
        self.ranked: dict[str, pd.DataFrame] = {}
        self.beside: dict[str, pd.DataFrame] = {}
        for setting in SETTINGS:
            rows = unpacked(self.table[self.table["setting"] == setting])
            self.ranked[setting] = rankings(rows)
            self.beside[setting] = rankings(rows, against="mi")

    def of(self, setting: str, source: str = "mean", kind: str = "untargeted") -> pd.DataFrame:
        """Return one ranking by attack, of a source or the mean over them."""
        found = self.ranked[setting]
        found = found[(found["kind"] == kind) & found["source"].str.startswith(source)]
        return found.set_index("attack")

    def against_mi(self, setting: str, better: bool) -> list[str]:
        """Return the attacks that fool more, or fewer, than `mi` of the same cost."""
        found = self.beside[setting]
        found = found[(found["kind"] == "untargeted") & found["source"].str.startswith("mean")]
        found = found.set_index("attack")
        decided = found[found["p_holm"] < SIGNIFICANT]
        more = decided["mean"] > found["mean"]["mi"]
        return list(decided.index[more if better else ~more])

    def gradients(self, attack: str, setting: str) -> float:
        """Return the gradients an image of an attack, the mean over its sources."""
        mine = self.table[(self.table["attack"] == attack) & (self.table["setting"] == setting)]
        single = mine[~mine["source"].str.contains("+", regex=False) & ~mine["targeted"]]
        return float(single.groupby("source")["gradients"].first().mean())

    @property
    def rows(self) -> pd.DataFrame:
        """A row per attack from single sources, the best at 100 gradients first."""
        found: dict[str, dict[str, Any]] = {}
        for setting in SETTINGS:
            for attack, row in self.of(setting).iterrows():
                mine = found.setdefault(str(attack), {})
                mine[setting] = {**row, "gradients": self.gradients(str(attack), setting)}
        table = pd.DataFrame.from_dict(found, orient="index").reindex(columns=list(SETTINGS))
        order = [max(v["mean"] for v in row if isinstance(v, dict)) for row in table.to_numpy()]
        hundred = [v["mean"] if isinstance(v, dict) else -1 for v in table[SETTINGS[-1]]]
        return table.assign(key=hundred, other=order).sort_values(
            ["key", "other"], ascending=False, kind="stable"
        )

    def correlation(self, setting: str) -> tuple[float, int]:
        """Return Spearman's rank correlation with published success, and the number of attacks."""
        both = self.published.join(self.of(setting)["mean"], how="inner")
        return float(spearmanr(both["success"], both["mean"]).statistic), len(both)

    def moved(self, setting: str) -> pd.DataFrame:
        """Return published and own ranks among the attacks that have both, most moved first."""
        both = self.published.join(self.of(setting)["mean"], how="inner")
        ranks = both[["success", "mean"]].rank(ascending=False, method="first").astype(int)
        ranks = ranks.rename(columns={"success": "published", "mean": "own"})
        moved = (ranks["published"] - ranks["own"]).abs()
        return ranks.assign(moved=moved).sort_values("moved", ascending=False, kind="stable")

    def across(self, setting: str, to_transformer: bool) -> pd.DataFrame:
        """Return the ranking from convolutional networks to transformers, or the other way."""
        table = self.table[(self.table["setting"] == setting) & ~self.table["targeted"]]
        table = table[~table["source"].str.contains("+", regex=False)]
        sources, targets = (table[key].isin(TRANSFORMERS) for key in ("source", "target"))
        rows = table[~sources & targets] if to_transformer else table[sources & ~targets]
        found = rankings(unpacked(rows))
        name = "mean" if to_transformer else TRANSFORMERS[0]
        return found[found["source"].str.startswith(name)].set_index("attack")
