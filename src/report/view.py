"""Contents of page and figures: rows, attacks by rank, the first selection, and menus."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..analysis import TRANSFER, estimates, with_cell_columns
from ..analysis.intervals import FEWEST_IMAGES
from ..analysis.quantities import STATISTICS
from ..analysis.ranking import GROUP, MEAN_OF
from ..utils.model_names import NO_DEFENCE
from .charts.theme import MEAN
from .images_text import images_text
from .results import Results
from .words import Answer, answer, counted, pair_answer, said, source_answer

_JOB, _PLACE = ["attack", "source"], ["defence", "eps_255"]
_STATISTICS = [statistic.column for statistic in STATISTICS if statistic.on_page]


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
    """The rows of results that screens show, and choices among them.

    Attributes:
        rows: The rows of `Results.primary_rows` with the columns of cells. Means over sources are
            those over single sources, as source `MEAN`, and only if an attack has several.
        ranking: One row per `defence`, budget, source or mean (`of`) and attack, by rank. Rows of
            one ranking have one `part`, and a `heading` if there are several; `lacks` says why a
            row has no rank.
        choice: The cell that is shown first.
        pairs: Attack, source and target of all pairs, the best rank first.
        options: Names and budgets to choose from, by axis; attacks by rank.
    """

    rows: pd.DataFrame
    ranking: pd.DataFrame
    choice: Choice
    pairs: list[list[str]]
    options: dict[str, list[Any]]

    @property
    def overall(self) -> pd.DataFrame:
        """The means over targets that are other networks, attacks by rank."""
        rows, attacks = self.rows, self.options["attack"]
        rows = rows[(rows["target"] == estimates.MEAN) & (rows["relation"] == TRANSFER)]
        return rows.sort_values("attack", key=lambda x: x.map(attacks.index), kind="stable")

    @property
    def first_ranking(self) -> pd.DataFrame:
        """The ranked attacks of the choice."""
        first, rows = self.choice, self.ranking
        rows = rows[(rows["defence"] == first.defence) & (rows["eps_255"] == first.eps)]
        return rows[rows["of"] == (first.source or MEAN)].dropna(subset="mean")


def view_of(results: Results) -> View:
    """Choose and order the rows; the first job has the budget and protocol to show first."""
    record, rows = results.attacked[0][0].job.record, with_cell_columns(results.primary_rows)
    of_sources = rows["source"] == estimates.MEAN
    single = ~rows["ensemble"] & (rows["source_defence"] == NO_DEFENCE)
    sources = rows[single & ~of_sources].groupby("attack")["source"].nunique()
    several = bool((sources > 1).any())
    rows = rows[~of_sources | (single & several)]
    rows = rows.assign(source=rows["source"].replace(estimates.MEAN, MEAN))
    pairs = pairs_of(rows)
    pairs = pairs.sort_values("defence", key=lambda names: names != NO_DEFENCE, kind="stable")
    options = {key: [*pairs[key].unique()] for key in ("source", "target", "defence", "protocol")}
    defence, *others = rows["source_defence"].unique()
    if others or defence not in options["defence"]:
        defence = NO_DEFENCE
    ranking = _ranking(rows, results.rankings, options["defence"], record.reference)
    reference = ranking[(ranking["eps_255"] == record.reference) & (ranking["defence"] == defence)]
    first = pd.concat([reference, ranking])  # an attack may have other budgets alone
    order = options["attack"] = [*dict.fromkeys(first["attack"])]
    options["eps"] = sorted({*rows["eps_255"]} - {0.0})
    at = (pairs["eps_255"] == record.reference) & (pairs["protocol"] == record.protocol)
    pairs = pairs[at & (pairs["defence"] == defence)]
    if pairs.empty:
        raise ValueError(f"No row has the reference budget, {record.reference:g}/255.")
    keys = {"own": pairs["relation"] != TRANSFER, "at": pairs["attack"].map(order.index)}
    keys |= {"several": pairs["ensemble"], "rate": -pairs["success_rate"]}
    pairs = pairs.assign(**keys).sort_values([*keys])
    attack, source = pairs[_JOB].iloc[0]
    means = rows[rows["source"] == MEAN]
    source = source if attack not in {*means["attack"]} else ""
    choice = Choice(attack, source, defence, record.reference, record.protocol)
    return View(rows, ranking, choice, pairs[[*_JOB, "target"]].to_numpy().tolist(), options)


def answer_of(results: Results, view: View) -> Answer:
    """State which attack, or source, transfers best, by how much, and if the tests decide it.

    The answer is that of the choice: at the reference budget.
    """
    first, rows = view.choice, ranked_first(results, view.choice)
    where = f" at {first.eps:g}/255" + f" behind {first.defence}" * (first.defence != NO_DEFENCE)
    if rows.empty or rows["images"].max() < FEWEST_IMAGES:
        keys = [*_JOB, "target", *_PLACE, "protocol"]
        pair = pd.Series([*view.pairs[0], first.defence, first.eps, first.protocol], keys)
        return pair_answer(_alike(view.rows, pair, keys).iloc[0], where)
    row, jobs = rows.iloc[0], (row_[0].job for row_ in results.attacked)
    job = next(job for job in jobs if job.attack == row["attack"])
    details = [*counted(row, job.record.images), *filter(None, [images_text([job])])]
    if len(rows) > 1:
        source = f" from {first.source}" * bool(first.source)
        return answer(rows, "attack", source + where, details)
    sources = _alike(results.sources, row, ["group", *GROUP, *_PLACE, "attack"])
    return source_answer(row, sources, where, details)


def ranked_first(results: Results, first: Choice) -> pd.DataFrame:
    """Return the ranking of attacks, with the columns of `rankings`, that a choice is of."""
    rows = results.rankings
    rows = rows[rows["source"] == first.source] if first.source else over_sources(rows)
    rows = rows[(rows["eps_255"] == first.eps) & (rows["defence"] == first.defence)]
    rows = rows[rows["rank"].notna()]
    return _alike(rows, rows.iloc[0], ["group", *GROUP]) if len(rows) else rows


def _alike(rows: pd.DataFrame, row: pd.Series, keys: list[str]) -> pd.DataFrame:
    """Return the rows that have a row's values in some columns."""
    return rows[(rows[keys] == row[keys]).all(axis=1)]


def pairs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are no means over sources or targets."""
    return rows[~rows["source"].isin([MEAN, estimates.MEAN]) & (rows["target"] != estimates.MEAN)]


def over_sources(rankings: pd.DataFrame) -> pd.DataFrame:
    """Return the rankings over sources; of a group that ranks for one source alone, that one's."""
    groups = rankings["source"].where(rankings["rank"].notna()).groupby(rankings["group"])
    over = rankings["source"].str.startswith(MEAN_OF)
    return rankings[over | (groups.transform("nunique") == 1)]


def _ranking(
    rows: pd.DataFrame, rankings: pd.DataFrame, defences: list[str], reference: float
) -> pd.DataFrame:
    """Order the attacks behind each defence at each budget, over the sources and per source.

    Ensembles and sources behind a defence are in no mean; their rankings follow that of the mean.
    """
    alone = rankings[~rankings["source"].str.startswith(MEAN_OF)]
    ranks = pd.concat([over_sources(rankings).assign(source=MEAN), alone])
    jobs = rows.loc[rows["eps_255"] > 0, [*_JOB, *_PLACE, "ensemble", "source_defence"]]
    jobs = jobs.drop_duplicates([*_JOB, *_PLACE])
    apart = jobs[jobs.pop("ensemble") | (jobs.pop("source_defence") != NO_DEFENCE)]
    apart = apart.merge(jobs.loc[jobs["source"] == MEAN, _PLACE].drop_duplicates())
    jobs = pd.concat([jobs.assign(of=jobs["source"]), apart.assign(of=MEAN)])
    joint = jobs.merge(ranks, how="left", on=[*_JOB, *_PLACE])
    ranked, others = joint[joint["rank"].notna()], joint[joint["rank"].isna()]
    parts = ranked.groupby([ranked["of"] != ranked["source"], "group", *GROUP])
    ranked = ranked.assign(part=parts.ngroup(), kind=[*map(_kind, ranked.to_dict("records"))])
    tied = undecided(ranked, [*_PLACE, "of", "part", "source"])
    ranked = ranked.assign(heading=_headings(ranked), undecided=tied)
    others = others[[*jobs, "lacks"]].assign(part=len(ranked), kind="", heading="not ranked")
    table = pd.concat([ranked, others])
    several = table.groupby([*_PLACE, "of"])["part"].transform("nunique") > 1
    table["heading"] = table["heading"].where(several, "")
    table = table.assign(undecided=table["undecided"].eq(True), lacks=table["lacks"].fillna(""))
    keys = {"defence": table["defence"].map(defences.index), "other": table["eps_255"] != reference}
    keys |= {"eps": table["eps_255"], "single": table["of"] != MEAN, "of": table["of"]}
    keys |= {"part": table["part"], "mean": -table["mean"].fillna(0).round(9)}
    keys |= {"name": table["attack"].where(table["rank"].notna(), "")}
    order = pd.DataFrame(keys).sort_values([*keys]).index
    marks = ["kind", "undecided", "heading"]
    return table.loc[order, [*_JOB, *marks, *_STATISTICS, "of", *_PLACE, "lacks", "part"]]


def _kind(row: Mapping[Any, Any]) -> str:
    """Return a heading from the columns of `RankingGroup`."""
    goal = "targeted" if row["targeted"] else "untargeted"
    more = said(("of ensembles", row["ensemble"]), ("behind a defence", row["source_defended"]))
    return " ".join([goal, *more])


def _headings(ranked: pd.DataFrame) -> pd.Series:
    """Return the heading of each row's ranking: what tells it from others at the same place."""
    here, headings = ranked.groupby(_PLACE), ranked["kind"].astype(str)
    for name in ("dataset", "norm", "protocol"):
        several = here[name].transform("nunique") > 1
        headings = headings + (", " + ranked[name]).where(several, "")
    images = ranked.groupby([*_PLACE, "of", "part"])["images"].transform("max")
    counts = ", " + images.map("{:g}".format) + " images"
    return headings + counts.where(here["group"].transform("nunique") > 1, "")


def undecided(ranked: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Return which rows of rankings tests cannot tell from the first; none without tests."""
    tested = ranked.groupby(keys)["p"].transform("count") > 0
    return ranked["undecided"].astype(bool) & tested
