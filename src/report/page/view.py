"""The rows of the page in the order of its rankings, the initial choice, and the menus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from src.analysis import CLEAN, TRANSFER
from src.analysis.image_outcomes import GROUP
from src.analysis.quantities import QUANTITIES, STATISTICS
from src.report.charts.theme import CORRECT, FOOLED, MEAN
from src.report.charts.transfer_matrix import drawn_rows, word
from src.report.summary import Summary, primary_rates, ranking_label
from src.utils.model_names import NO_DEFENCE

_AVERAGED = [quantity.drawn for quantity in QUANTITIES.values() if quantity.averaged]
_COMMON = ["group", "dataset", "norm", "protocol"]
_STATISTICS = [statistic.column for statistic in STATISTICS if statistic.drawn]
_JOB = ["attack", "source"]


@dataclass(frozen=True)
class Choice:
    """What is shown first.

    Attributes:
        source: Source; empty: the mean over all single sources.
        target: Target; empty: all targets.
        eps: Budget in units of 1/255.
        shown: `FOOLED` or `CORRECT`.
    """

    attack: str = ""
    source: str = ""
    target: str = ""
    defence: str = NO_DEFENCE
    eps: float = 0.0
    protocol: str = ""
    shown: str = FOOLED


@dataclass(frozen=True)
class View:
    """The rows of all jobs in the order of the rankings, and the choices among them.

    Attributes:
        rows: The rows of `drawn_rows`, with means over single sources as source `MEAN`, and with
            the position of each attack in the ranking, `position` and `own_position`.
        ranking: One row per budget, attack and source or mean, and one per heading.
        sources: One row per budget, attack and ranked source, with its position `at`.
        choice: The cell that is shown first.
        pairs: Attack, source and target of all pairs, the best rank first.
        menus: Options (value, label) of each menu.
        apart: Sources that are in no mean: ensembles, and sources behind a defence.
    """

    rows: pd.DataFrame
    ranking: pd.DataFrame
    sources: pd.DataFrame
    choice: Choice
    pairs: list[list[str]]
    menus: dict[str, list[tuple[Any, str]]]
    apart: set[str]

    @property
    def of_choice(self) -> pd.DataFrame:
        """The rows of all attacks behind the chosen defence, under the chosen protocol."""
        rows = self.rows
        counted = (rows["protocol"] == self.choice.protocol) | (rows["source"] == CLEAN)
        return rows[counted & (rows["defence"] == self.choice.defence)]

    @property
    def cells(self) -> pd.DataFrame:
        """The pairs of the chosen attack at the chosen budget, and the row of clean images."""
        rows = self.of_choice
        here = (rows["eps_255"] == self.choice.eps) | (rows["source"] == CLEAN)
        return rows[here & (rows["attack"] == self.choice.attack) & (rows["source"] != MEAN)]

    @property
    def curves(self) -> pd.DataFrame:
        """The rows of the chosen attack and source, or of the mean over sources, at all budgets."""
        rows, source = self.of_choice, self.choice.source or MEAN
        rows = rows[(rows["attack"] == self.choice.attack) & (rows["source"] == source)]
        return rows[(source != MEAN) | (rows["relation"] == TRANSFER)]


def make_view(summary: Summary) -> View:
    """Order the rows of the attacked jobs; the first has the budget and protocol to show first."""
    record, rates = summary.attacked[0].job.record, primary_rates(summary.attacked)
    plain = rates["defence"] == NO_DEFENCE
    rows = drawn_rows(pd.concat([rates[plain], rates[~plain]]))
    ensembles = rates["ensemble"]
    apart = {*rates.loc[ensembles | (rates["source_defence"] != NO_DEFENCE), "source"]}
    rows = pd.concat([rows, _over_sources(rows, apart)], ignore_index=True)
    tried = sorted(set(rows["eps_255"]) - {0.0}, key=lambda eps: (eps != record.reference, eps))
    defence, *others = rates["source_defence"].unique()
    if others or not (rows["defence"] == defence).any():
        defence = NO_DEFENCE
    parts = [_ranking(rows, summary.rankings, eps, defence, apart) for eps in tried]
    ranking = pd.concat(parts, ignore_index=True)
    for name in ("position", "own_position"):
        places = ranking[ranking["heading"] == ""].dropna(subset=name)
        rows = rows.join(places.set_index([*_JOB, "eps_255"])[name], on=[*_JOB, "eps_255"])
    reference = ranking[ranking["eps_255"] == record.reference]
    at = (rows["eps_255"] == record.reference) & (rows["protocol"] == record.protocol)
    pairs = rows[at & (rows["defence"] == defence) & ~rows["source"].isin([MEAN, CLEAN])]
    pairs = pairs.assign(
        own=pairs["relation"] != TRANSFER,
        ensemble=pairs["source"].isin(rates.loc[ensembles, "source"]),
        place=pairs["attack"].map(reference.groupby("attack")["position"].min()),
    ).sort_values(
        ["own", "place", "ensemble", "success_rate"],
        ascending=[True, True, True, False],
        kind="stable",
    )
    best = pairs.iloc[0]
    several = (rows["source"] == MEAN).any()
    choice = Choice(
        attack=best["attack"],
        source="" if several else best["source"],
        defence=defence,
        eps=record.reference,
        protocol=record.protocol,
    )
    names = pairs[["attack", "source", "target"]].to_numpy().tolist()
    sources = ranked_sources(summary.sources, defence)
    return View(rows, ranking, sources, choice, names, _menus(rows, ranking, apart), apart)


def _over_sources(rows: pd.DataFrame, apart: set[str]) -> pd.DataFrame:
    """Average each attack over sources, except those `apart`; empty for a single source."""
    single = rows[~rows["source"].isin({CLEAN, *apart})]
    if single["source"].nunique() < 2:
        return rows.iloc[:0]
    keys = ["attack", "protocol", "target", "defence", "eps_255", "relation", "targeted"]
    aggregations = dict.fromkeys(_AVERAGED, "mean")
    return single.groupby(keys, sort=False, as_index=False).agg(aggregations).assign(source=MEAN)


def _ranking(
    rows: pd.DataFrame, rankings: pd.DataFrame, eps: float, defence: str, apart: set[str]
) -> pd.DataFrame:
    """Compute the positions of attacks at one budget, for the mean over sources and per source."""
    rankings = rankings[(rankings["eps_255"] == eps) & (rankings["defence"] == defence)]
    jobs = rows.loc[(rows["source"] != CLEAN) & (rows["eps_255"] == eps), _JOB].drop_duplicates()
    mean = jobs["source"] == MEAN
    in_mean = jobs
    if mean.any():
        in_mean = pd.concat([jobs[mean], jobs[jobs["source"].isin(apart)]]).drop_duplicates()
    parts = [placed(rankings, in_mean).rename(columns={"place": "position"})]
    for source in jobs.loc[~mean, "source"].unique():
        part = placed(rankings, jobs[jobs["source"] == source]).assign(source=source)
        parts.append(part.rename(columns={"place": "own_position"}))
    return pd.concat(parts).assign(eps_255=eps)


def placed(rankings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the jobs by rank, then unranked jobs, with headings for several rankings."""
    parts = list(_parts(rankings, jobs))
    ranked = pd.concat([part for _, part in parts]) if parts else jobs.iloc[:0]
    left = jobs.merge(ranked[_JOB], how="left", indicator=True)
    left = left[left["_merge"] == "left_only"][_JOB]
    if len(left):
        parts.append(("not ranked", left))
    frames = []
    for heading, part in parts:
        frames += [pd.DataFrame({"heading": [heading]})] * (len(parts) > 1) + [part]
    placed = pd.concat(frames, ignore_index=True)
    text_columns = [*_JOB, "kind", "undecided", "behind", "heading"]
    placed = placed.reindex(columns=[*text_columns, *_STATISTICS])
    for name in text_columns:
        missing = MEAN if name == "source" else ""
        placed[name] = placed[name].astype(object).fillna(missing)
    return placed.assign(place=range(1, len(placed) + 1))


def _parts(rankings: pd.DataFrame, jobs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the heading and the rows of each ranking of the jobs, by decreasing mean."""
    if rankings.empty:
        return
    rankings = rankings.assign(source=rankings["source"].mask(rankings["sources"] > 1, MEAN))
    shown = [name for name in _COMMON[1:] if rankings[name].nunique() > 1]
    several = rankings["group"].nunique() > 1
    for _, rows in rankings.groupby([*_COMMON, *GROUP], sort=False):
        rows = rows.merge(jobs).sort_values("mean", ascending=False, kind="stable")
        rows = rows.dropna(subset="rank")
        if len(rows):
            ranking_name = str(ranking_label(rows.iloc[0]))
            heading = ", ".join([ranking_name, *(str(rows[name].iloc[0]) for name in shown)])
            heading += f", {rows['images'].max()} images" * several
            columns: dict[str, Any] = {
                "kind": ranking_name,
                "undecided": _undecided(rows, ["source"]),
                "behind": rows.apply(_behind, axis=1),
            }
            yield heading, rows.assign(**columns)


def _behind(row: pd.Series) -> str:
    """Format the points behind the first with the simultaneous interval; empty for the first."""
    values = row[["difference", "difference_high", "difference_low"]].astype(float)
    by, low, high = (-100 * values).round(1) + 0.0  # no -0.0
    text = "" if np.isnan(by) else f"{by:.1f}"
    return text if np.isnan(low) else f"{text} [{low:.1f}, {high:.1f}]"


def _undecided(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Return `first`, `yes` or `no` for each row of a ranking; empty if nothing is tested."""
    peers = rows.groupby(keys)["undecided"]
    verdicts = rows["undecided"].map({True: "yes", False: "no"})
    verdicts = verdicts.mask((peers.transform("sum") == 1) & rows["undecided"], "first")
    return verdicts.mask(rows.groupby(keys)["p"].transform("count") == 0, "")


def ranked_sources(rankings: pd.DataFrame, defence: str) -> pd.DataFrame:
    """Return the sources of each attack by rank, in its first group, with their positions `at`."""
    if rankings.empty:
        return rankings
    keys, of_attack = ["eps_255", "attack"], rankings.groupby("attack")
    first = rankings["defence"] == defence
    for name in ("group", *GROUP):
        first &= rankings[name] == of_attack[name].transform("first")
    rows = rankings[first & rankings["rank"].notna()]
    rows = rows[[*keys, "source", *(name for name in _STATISTICS if name in rows), "undecided"]]
    return rows.assign(
        undecided=_undecided(rows, keys),
        behind=rows.apply(_behind, axis=1),
        at=rows.groupby(keys).cumcount() + 1,
    )


def _menus(
    rows: pd.DataFrame, ranking: pd.DataFrame, apart: set[str]
) -> dict[str, list[tuple[Any, str]]]:
    """Return the options of all menus, attacks and sources by rank."""
    attacked = rows[rows["source"] != CLEAN]
    names = {
        column: list(dict.fromkeys(attacked[column]))
        for column in ("source", "target", "defence", "protocol")
    }
    sources = [name for name in names["source"] if name != MEAN]
    by_rank = dict.fromkeys(name for name in ranking["attack"] if name)
    single = len({*sources} - apart)
    mean = [("", f"mean of {single} sources")] if len(sources) < len(names["source"]) else []
    tried = sorted(set(attacked["eps_255"]) - {0.0})
    targets = names["target"] if len(names["target"]) > 1 else []
    return {
        "attack": [(name, name) for name in by_rank],
        "source": [*mean, *((name, name) for name in sources)],
        "target": [("", "all"), *((name, name) for name in targets)],
        "defence": [(name, name) for name in names["defence"]],
        "eps": [(repr(eps).removesuffix(".0"), f"{eps:.6g}/255") for eps in tried],
        "protocol": [(name, name) for name in names["protocol"]],
        "shown": [(FOOLED, word(attacked)), (CORRECT, CORRECT)],
    }
