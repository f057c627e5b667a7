"""Numbers of the findings about attacks at their own settings on small networks."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from findings.costs import TABLE, unpacked
from src.analysis import LEVEL, MEAN_OF, rankings
from src.utils.model_names import ModelRef

TRANSFORMERS = ("vit_small",)


def _is_ensemble(source: str) -> bool:
    return ModelRef.parse(source).is_ensemble


class OwnSettings:
    """Rankings of all attacks at their own settings.

    Attributes:
        table: The packed rows of attacks at own settings, see `findings.costs.pack`.
        ranked: `rankings`, sources that are transformers left out.
        beside: The same with tests against `mi`.
        transformers: `rankings` with transformers as sources.
        published: Published success of attacks in percent, with its gradients an image.
    """

    def __init__(self, published: pd.DataFrame) -> None:
        self.table = pd.read_parquet(TABLE)
        self.published = published.set_index("attack")
        from_transformer = self.table["source"].isin(TRANSFORMERS)
        rows = unpacked(self.table[~from_transformer])
        self.ranked, self.beside = rankings(rows), rankings(rows, against="mi")
        found = rankings(unpacked(self.table[from_transformer]))
        self.transformers = found.dropna(subset="rank").set_index("attack")

    def of(self, *, targeted: bool = False, ensemble: bool = False) -> pd.DataFrame:
        """Return one ranking by attack, the mean over sources or that of the only source."""
        found = self.ranked
        found = found[(found["targeted"] == targeted) & (found["ensemble"] == ensemble)]
        mean = found["source"].str.startswith(MEAN_OF)
        found = found[mean == mean.max()]
        return found.dropna(subset="rank").set_index("attack")

    def against_mi(self, better: bool) -> list[str]:
        """Return the attacks that fool more, or fewer, than `mi`."""
        found = self.beside
        mean = found["source"].str.startswith(MEAN_OF)
        found = found[mean & ~found["targeted"]].set_index("attack")
        decided = found[found["p"] < LEVEL]
        more = decided["mean"] > found["mean"]["mi"]
        return list(decided.index[more if better else ~more])

    def gradients(self, attack: str) -> float:
        """Return the gradients an image of an attack, the mean over its sources."""
        rows = self.table[(self.table["attack"] == attack) & ~self.table["targeted"]]
        rows = rows[~rows["source"].isin(TRANSFORMERS) & ~rows["source"].map(_is_ensemble)]
        return float(rows.groupby("source")["gradients"].first().mean())

    def correlation(
        self,
        means: pd.DataFrame,
        among: pd.DataFrame | None = None,
        minus: pd.DataFrame | None = None,
        given_cost: bool = False,
    ) -> pd.Series:
        """Return Spearman's rank correlation of the printed column `mean` with published success.

        Args:
            means: A ranking by attack, with its mean success in the column `mean`.
            among: Rankings whose attacks alone are used; None: all.
            minus: Another ranking, whose correlation over the same attacks is subtracted.
            given_cost: Whether to take the partial correlation, given the published gradients.

        Returns:
            `rho` with the ends of its 95 % interval, `rho_low` and `rho_high` (percentiles of a
            bootstrap over attacks), and the number of attacks, `n`.
        """
        both = self.published[["success"]].join(means["mean"], how="inner")
        both = both if among is None else both[both.index.isin(among.index)]
        both = both if minus is None else both.join(minus["mean"].rename("minus"), how="inner")
        both = both.join(self.published["gradients"]) if given_cost else both
        values, size = both.to_numpy(), len(both)
        drawn = np.random.default_rng(0).integers(0, size, (9_999, size))
        ranks = rankdata(values[np.vstack([np.arange(size), drawn])], axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        if given_cost:
            ranks, cost = ranks[..., :-1], ranks[..., -1:]
            shares = (cost * ranks).sum(axis=1, keepdims=True)
            ranks = ranks - cost * shares / np.square(cost).sum(axis=1, keepdims=True)
        lengths = np.linalg.norm(ranks, axis=1)
        products = np.einsum("bi,bik->bk", ranks[..., 0], ranks[..., 1:])
        each = products / (lengths[:, :1] * lengths[:, 1:])
        rho = each[:, 0] - each[:, 1:].sum(axis=1)
        low, high = np.quantile(rho[1:], [0.025, 0.975])
        return pd.Series({"rho": rho[0], "rho_low": low, "rho_high": high, "n": size})

    def to_transformer(self) -> pd.DataFrame:
        """Return the ranking from convolutional networks to transformers alone."""
        table = self.table[~self.table["targeted"]]
        ensemble = table["source"].map(_is_ensemble)
        other = ~table["source"].isin(TRANSFORMERS) & table["target"].isin(TRANSFORMERS)
        found = rankings(unpacked(table[~ensemble & other]))
        mean = found["source"].str.startswith(MEAN_OF) & found["rank"].notna()
        return found[mean].set_index("attack")
