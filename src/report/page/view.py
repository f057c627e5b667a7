"""The rows of the page in the order of its rankings, the initial choice, and the menus."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from ...analysis import TRANSFER, estimates, with_cell_columns
from ...analysis.quantities import STATISTICS
from ...analysis.ranking import GROUP, MEAN_OF, by_mean
from ...utils.model_names import NO_DEFENCE
from ..charts.theme import MEAN
from ..results import Results
from ..verdicts import ranking_label

_COMMON = ["group", "dataset", "norm", "protocol"]
_STATISTICS = [statistic.column for statistic in STATISTICS if statistic.drawn]
_JOB, _PAIR = ["attack", "source"], ["attack", "source", "target"]


@dataclass(frozen=True)
class Choice:
    """The selection that is shown first.

    Attributes:
        source: Source; empty: the mean over all single sources.
        eps: Budget in units of 1/255.
    """

    attack: str = ""
    source: str = ""
    defence: str = NO_DEFENCE
    eps: float = 0.0
    protocol: str = ""


@dataclass(frozen=True)
class View:
    """The rows of all jobs in the order of the rankings, and the choices among them.

    Attributes:
        rates: The rows of `Results.shown` for pairs, with the columns of cells.
        means: The rows of means over single sources, as source `MEAN`; empty if no attack has
            several sources.
        rows: Both, of single targets.
        overall: The means over the targets that are other networks, of sources and of `MEAN`.
        ranking: One row per `defence`, budget, source or mean (`of`) and attack, by rank, and one
            per heading; `lacks` says why a row has no rank.
        choice: The cell that is shown first.
        pairs: Attack, source and target of all pairs, the best rank first.
        options: Known values of each key.
        apart: Sources that are in no mean: ensembles, and sources behind a defence.
    """

    rates: pd.DataFrame
    means: pd.DataFrame
    rows: pd.DataFrame
    overall: pd.DataFrame
    ranking: pd.DataFrame
    choice: Choice
    pairs: list[list[str]]
    options: dict[str, list[Any]]
    apart: set[str]

    @property
    def first_ranking(self) -> pd.DataFrame:
        """The ranked attacks of the choice."""
        first, rows = self.choice, self.ranking
        rows = rows[(rows["defence"] == first.defence) & (rows["eps_255"] == first.eps)]
        return rows[rows["of"] == (first.source or MEAN)].dropna(subset="mean")


def make_view(results: Results) -> View:
    """Order the rows of the attacked jobs; the first has the budget and protocol to show first."""
    record, shown = results.attacked[0][0].job.record, results.shown
    of_means = shown["source"] == estimates.MEAN
    rates = with_cell_columns(shown[~of_means & (shown["target"] != estimates.MEAN)])
    plain = rates["defence"] == NO_DEFENCE
    ensembles = rates["ensemble"]
    apart = {*rates.loc[ensembles | (rates["source_defence"] != NO_DEFENCE), "source"]}
    single = rates[~rates["source"].isin(apart)]
    several = (single.groupby("attack")["source"].nunique() > 1).any()
    means = shown[of_means & ~shown["ensemble"] & (shown["source_defence"] == NO_DEFENCE)]
    means = (means if several else means[:0]).assign(source=MEAN)
    of_targets = means[means["target"] != estimates.MEAN]
    rows = pd.concat([rates[plain], rates[~plain], of_targets], ignore_index=True)
    tried = sorted(_tried(rows), key=lambda eps: eps != record.reference)
    defence, *others = rates["source_defence"].unique()
    if others or not (rows["defence"] == defence).any():
        defence = NO_DEFENCE
    ranking = _ranking(rows, results.rankings, tried, apart)
    reference = ranking[(ranking["eps_255"] == record.reference) & (ranking["defence"] == defence)]
    first = pd.concat([reference, ranking])  # an attack may have other budgets alone
    order = [*filter(None, dict.fromkeys(first["attack"]))]
    overall = pd.concat([shown[~of_means], means])
    of_others = (overall["target"] == estimates.MEAN) & (overall["relation"] == TRANSFER)
    overall = overall[of_others].sort_values(
        "attack", key=lambda names: names.map(order.index), kind="stable"
    )
    at = (rows["eps_255"] == record.reference) & (rows["protocol"] == record.protocol)
    pairs = rows[at & (rows["defence"] == defence) & (rows["source"] != MEAN)]
    pairs = pairs.assign(
        own=pairs["relation"] != TRANSFER,
        ensemble=pairs["source"].isin(rates.loc[ensembles, "source"]),
        place=pairs["attack"].map(order.index),
    ).sort_values(
        ["own", "place", "ensemble", "success_rate"],
        ascending=[True, True, True, False],
        kind="stable",
    )
    if pairs.empty:
        raise ValueError(f"No row has the reference budget, {record.reference:g}/255.")
    best = pairs.iloc[0]
    choice = Choice(
        attack=best["attack"],
        source="" if best["attack"] in {*means["attack"]} else best["source"],
        defence=defence,
        eps=record.reference,
        protocol=record.protocol,
    )
    names, options = pairs[_PAIR].to_numpy().tolist(), _options(rows, order)
    return View(rates, means, rows, overall, ranking, choice, names, options, apart)


def over_sources(rankings: pd.DataFrame) -> pd.DataFrame:
    """Return the rankings over several sources, or of the only source that has other targets."""
    ranked = rankings[rankings["rank"].notna()]
    alone = ranked["source"].nunique() == 1
    return rankings if alone else rankings[rankings["source"].str.startswith(MEAN_OF)]


def _ranking(
    rows: pd.DataFrame, rankings: pd.DataFrame, tried: list[float], apart: set[str]
) -> pd.DataFrame:
    """Order the attacks behind each defence at each budget, over the sources and per source."""
    means = over_sources(rankings).assign(source=MEAN)
    rankings = pd.concat([means, rankings[~rankings["source"].str.startswith(MEAN_OF)]])
    parts = []
    for defence, eps in product(rows["defence"].unique(), tried):
        at = (rows["defence"] == defence) & (rows["eps_255"] == eps)
        jobs = rows.loc[at, _JOB].drop_duplicates()
        here = rankings[(rankings["eps_255"] == eps) & (rankings["defence"] == defence)]
        for of in sorted(jobs["source"].unique(), key=lambda name: name != MEAN):
            mine = jobs[jobs["source"].isin({MEAN, *apart} if of == MEAN else {of})]
            place = {"of": of, "defence": defence, "eps_255": eps}
            parts += [its.assign(**place) for its in _placed(here, mine)]
    texts = [*_JOB, "kind", "undecided", "heading"]
    table = pd.concat(parts, ignore_index=True).reindex(
        columns=[*texts, *_STATISTICS, "of", "defence", "eps_255"]
    )
    key = [*_JOB, "defence", "eps_255"]
    lacks = rankings.drop_duplicates(key)[[*key, "lacks"]]
    table = table.merge(lacks, how="left", on=key)
    texts.append("lacks")
    return table.assign(**table[texts].astype(object).where(table[texts].notna(), ""))


def _placed(rankings: pd.DataFrame, jobs: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the jobs by rank, then unranked jobs, with headings for several rankings."""
    parts = list(_parts(rankings, jobs))
    ranked = {job for _, part in parts for job in zip(*(part[key] for key in _JOB), strict=True)}
    left = [job not in ranked for job in zip(*(jobs[key] for key in _JOB), strict=True)]
    if any(left):
        parts.append(("not ranked", jobs[left]))
    for heading, part in parts:
        if len(parts) > 1:
            yield pd.DataFrame({"heading": [heading]})
        yield part


def _parts(rankings: pd.DataFrame, jobs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the heading and the rows of each ranking of the jobs, by decreasing mean."""
    if rankings.empty:
        return
    shown = [name for name in _COMMON[1:] if rankings[name].nunique() > 1]
    several = rankings["group"].nunique() > 1
    for _, rows in rankings.groupby([*_COMMON, *GROUP], sort=False):
        rows = by_mean(rows.merge(jobs).dropna(subset="rank"), "attack")
        if len(rows):
            ranking_name = str(ranking_label(rows.iloc[0]))
            heading = ", ".join([ranking_name, *(str(rows[name].iloc[0]) for name in shown)])
            heading += f", {rows['images'].max()} images" * several
            verdicts = _undecided(rows, ["source"])
            yield heading, rows.assign(kind=ranking_name, undecided=verdicts)


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
    keys, of_attack = ["eps_255", "attack", "target"], rankings.groupby("attack")
    first = rankings["defence"] == defence
    for name in ("group", *GROUP):
        first &= rankings[name] == of_attack[name].transform("first")
    rows = rankings[first & rankings["rank"].notna()]
    return rows.assign(undecided=_undecided(rows, keys))


def _options(rows: pd.DataFrame, order: list[str]) -> dict[str, list[Any]]:
    """Return the known values of each key of a selection, attacks by rank."""
    names = {key: list(rows[key].unique()) for key in ("target", "defence", "protocol")}
    sources = [name for name in rows["source"].unique() if name != MEAN]
    return {"attack": order, "source": sources, **names, "eps": _tried(rows)}


def _tried(rows: pd.DataFrame) -> list[float]:
    """Return the budgets above 0, smallest first."""
    return sorted(set(rows["eps_255"]) - {0.0})
