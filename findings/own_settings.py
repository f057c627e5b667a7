"""Numbers of the findings about attacks at matched cost."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from findings.costs import COSTS, TABLE, unpacked
from src.analysis import LEVEL, MEAN_OF, rankings
from src.utils.model_names import ModelRef

SETTINGS = ("own", *map(str, COSTS))
TRANSFORMERS = ("vit_small",)
COLOURS = ["#7a9cc6", "#c2410c"]


def _is_ensemble(source: str) -> bool:
    return ModelRef.parse(source).is_ensemble


class Matched:
    """Rankings of all attacks at their own settings and at equal numbers of gradients.

    Attributes:
        table: The packed rows, see `findings.costs.pack`.
        ranked: `rankings` by setting, sources that are transformers left out.
        beside: The same with tests against `mi`.
        transformers: `rankings` by setting with transformers as sources.
        published: Published success of attacks in percent, with its gradients an image.
    """

    def __init__(self, published: pd.DataFrame) -> None:
        self.table = pd.read_parquet(TABLE)
        self.published = published.set_index("attack")
        self.ranked: dict[str, pd.DataFrame] = {}
        self.beside: dict[str, pd.DataFrame] = {}
        self.transformers: dict[str, pd.DataFrame] = {}
        for setting in SETTINGS:
            mine = self.table[self.table["setting"] == setting]
            transformers = mine["source"].isin(TRANSFORMERS)
            rows = unpacked(mine[~transformers])
            self.ranked[setting] = rankings(rows)
            self.beside[setting] = rankings(rows, against="mi")
            if transformers.any():
                found = rankings(unpacked(mine[transformers]))
                self.transformers[setting] = found.dropna(subset="rank").set_index("attack")

    def of(self, setting: str, *, targeted: bool = False, ensemble: bool = False) -> pd.DataFrame:
        """Return one ranking by attack, the mean over sources or that of the only source."""
        found = self.ranked[setting]
        found = found[(found["targeted"] == targeted) & (found["ensemble"] == ensemble)]
        mean = found["source"].str.startswith(MEAN_OF)
        found = found[mean == mean.max()]
        return found.dropna(subset="rank").set_index("attack")

    def against_mi(self, setting: str, better: bool) -> list[str]:
        """Return the attacks that fool more, or fewer, than `mi` of the same cost."""
        found = self.beside[setting]
        mean = found["source"].str.startswith(MEAN_OF)
        found = found[mean & ~found["targeted"]].set_index("attack")
        decided = found[found["p"] < LEVEL]
        more = decided["mean"] > found["mean"]["mi"]
        return list(decided.index[more if better else ~more])

    def gradients(self, attack: str, setting: str) -> float:
        """Return the gradients an image of an attack, the mean over its sources."""
        mine = self.table[(self.table["attack"] == attack) & (self.table["setting"] == setting)]
        mine = mine[~mine["source"].isin(TRANSFORMERS)]
        single = mine[~mine["source"].map(_is_ensemble) & ~mine["targeted"]]
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

    def correlation(
        self,
        means: pd.DataFrame,
        among: pd.DataFrame | None = None,
        minus: pd.DataFrame | None = None,
    ) -> pd.Series:
        """Return Spearman's rank correlation of the printed column `mean` with published success.

        Args:
            means: A ranking by attack, with its mean success in the column `mean`.
            among: Rankings whose attacks alone are used; None: all.
            minus: Another ranking, whose correlation over the same attacks is subtracted.

        Returns:
            `rho` with the ends of its 95 % interval, `rho_low` and `rho_high` (percentiles of a
            bootstrap over attacks), and the number of attacks, `n`.
        """
        both = self.published[["success"]].join(means["mean"], how="inner")
        both = both if among is None else both[both.index.isin(among.index)]
        both = both if minus is None else both.join(minus["mean"].rename("minus"), how="inner")
        values, size = both.to_numpy(), len(both)
        drawn = np.random.default_rng(0).integers(0, size, (9_999, size))
        ranks = rankdata(values[np.vstack([np.arange(size), drawn])], axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(ranks, axis=1)
        products = np.einsum("bi,bik->bk", ranks[..., 0], ranks[..., 1:])
        each = products / (lengths[:, :1] * lengths[:, 1:])
        rho = each[:, 0] - each[:, 1:].sum(axis=1)
        low, high = np.quantile(rho[1:], [0.025, 0.975])
        return pd.Series({"rho": rho[0], "rho_low": low, "rho_high": high, "n": size})

    def moved(self, setting: str) -> pd.DataFrame:
        """Return published and own ranks among the attacks that have both, most moved first."""
        both = self.published.join(self.of(setting)["mean"], how="inner")
        ranks = both[["success", "mean"]].rank(ascending=False, method="first").astype(int)
        ranks = ranks.rename(columns={"success": "published", "mean": "own"})
        moved = (ranks["published"] - ranks["own"]).abs()
        return ranks.assign(moved=moved).sort_values("moved", ascending=False, kind="stable")

    def to_transformer(self, setting: str) -> pd.DataFrame:
        """Return the ranking from convolutional networks to transformers alone."""
        table = self.table[(self.table["setting"] == setting) & ~self.table["targeted"]]
        ensemble = table["source"].map(_is_ensemble)
        other = ~table["source"].isin(TRANSFORMERS) & table["target"].isin(TRANSFORMERS)
        found = rankings(unpacked(table[~ensemble & other]))
        mean = found["source"].str.startswith(MEAN_OF) & found["rank"].notna()
        return found[mean].set_index("attack")

    def chart(self) -> alt.LayerChart:
        """Draw the mean success of attacks at equal cost, with its intervals, best first."""
        parts = []
        for cost in COSTS:
            ranked = self.of(str(cost)).reset_index()
            parts.append(ranked.assign(cost=f"{cost} gradients"))
        rows = pd.concat(parts, ignore_index=True)
        rows["first"] = rows["undecided"].map(
            {True: "not significantly behind", False: "significantly behind"}
        )
        order = list(self.rows.index)
        base = alt.Chart(rows).encode(
            y=alt.Y("attack:N", sort=order, title=None, axis=alt.Axis(labelLimit=200)),
            color=alt.Color("cost:N", title="cost per image", scale=alt.Scale(range=COLOURS)),
            yOffset=alt.YOffset("cost:N"),
        )
        share = alt.Axis(format="%", tickCount=6)
        lines = base.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("low:Q", axis=share, title="mean success on other networks, 95 % intervals"),
            x2="high:Q",
        )
        points = base.mark_point(filled=True, size=40, opacity=1).encode(
            x="mean:Q",
            shape=alt.Shape(
                "first:N",
                title="best at its cost",
                sort=["not significantly behind", "significantly behind"],
                scale=alt.Scale(range=["diamond", "circle"]),
            ),
        )
        return (lines + points).properties(width=420, height=alt.Step(7))
