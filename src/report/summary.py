"""Summary of finished jobs: rates, excess, alarms, rankings and matrices.

CSV files, the terminal, MLflow and the report all show these numbers; none recomputes them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING

import pandas as pd

from ..analysis.diagnostics import excess_by_control
from ..analysis.image_outcomes import ImageOutcomes, image_outcomes, joined
from ..analysis.quantities import STATISTICS
from ..analysis.ranking import ATTACK_COLUMNS, SOURCE_COLUMNS, rankings, source_rankings
from ..analysis.sanity_checks import Alarm
from ..analysis.trajectories import trajectories
from ..analysis.transfer_rates import (
    behind_defences,
    rates_by_protocol,
    transfer_matrix,
    with_cell_columns,
)
from ..artifacts.comparable import groups_of, overlaps
from ..artifacts.jobs import FinishedJob, rows_of_seeds
from ..utils.model_names import NO_DEFENCE, ModelRef
from .beside import Ranks, beside

if TYPE_CHECKING:
    from .audit import Audit

_COMMON = ["group", "dataset", "norm", "eps_255", "protocol"]


@dataclass(frozen=True)
class Label:
    """A text for people; it has no methods of `str`, so that nothing reads its parts."""

    _text: str

    def __str__(self) -> str:
        return self._text


def ranking_label(ranked: pd.Series, goal: bool = True) -> Label:
    """Return the heading of a ranking from a row with the columns of `RankingGroup`.

    With `goal=False` the heading does not say whether the attacks are targeted.
    """
    words = {
        "targeted" if ranked["targeted"] else "untargeted": goal,
        "of ensembles": ranked["ensemble"],
        "behind a defence": ranked["source_defended"],
    }
    return Label(" ".join(word for word, holds in words.items() if holds))


@dataclass(frozen=True)
class JobSummary:
    """Statistics of one job, or of its seeds; the tables of a clean job are empty.

    Attributes:
        job: The job, or the first of several seeds.
        rates: Rates of every variant and `seed` under every protocol, the rows of `rates.csv`.
        excess: Excess of the primary variant over each control.
        alarms: Failed sanity checks.
        outcomes: `image_outcomes` under the job's own protocol and behind every defence, for all
            seeds.
        group: Key of comparable jobs: equal images, models, budget, protocol, arithmetic, seed and
            code. No mean has jobs of several groups; `differences` says why.
        cost: `gradients_per_image` and `forwards_per_image` (including the passes for gradients) at
            all budgets together, if known.
        seeds: One summary per seed; empty if there is only one seed.
    """

    job: FinishedJob
    rates: pd.DataFrame
    excess: pd.DataFrame
    alarms: Sequence[Alarm]
    outcomes: Mapping[float, ImageOutcomes] = field(default_factory=dict)
    group: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    seeds: Sequence["JobSummary"] = ()

    @property
    def runs(self) -> list[FinishedJob]:
        """The jobs of all seeds."""
        return [summary.job for summary in self.seeds or [self]]

    @cached_property
    def means(self) -> pd.DataFrame:
        """The rates averaged over the seeds, see `mean_over_seeds`."""
        return mean_over_seeds(self.rates) if self.seeds else self.rates

    @cached_property
    def drawn(self) -> pd.DataFrame:
        """The rates of every variant, with the columns by which charts distinguish rows."""
        record, table = self.job.record, with_cell_columns(self.means)
        counted = table["protocol"] == record.protocol
        return table.assign(
            primary=table["variant"] == record.storage,
            reference=counted & (table["eps_255"] == record.reference),
            group=self.group,
            gradients_per_image=self.cost.get("gradients_per_image", nan),
            forwards_per_image=self.cost.get("forwards_per_image", nan),
        )

    @property
    def primary(self) -> pd.DataFrame:
        """The mean rates of the primary variant under every protocol."""
        return self.means[self.means["variant"] == self.job.record.storage]

    @property
    def protocol_rates(self) -> pd.DataFrame:
        """The rates of the primary variant under the job's own protocol."""
        primary = self.primary
        return primary[primary["protocol"] == self.job.record.protocol]


@dataclass(frozen=True)
class Matrix:
    """The `transfer_matrix` (`cells`) and `behind_defences` of one attack at one budget."""

    attack: str
    heading: Label
    cells: pd.DataFrame
    defences: pd.DataFrame


@dataclass(frozen=True)
class Summary:
    """Statistics of several jobs, in the order of the jobs.

    Attributes:
        matrices: The matrix of each attack.
        ranks: The attacks among the stored attacks of a preset; empty: not asked for.
        audits: What an attacker can do to each target; empty: not asked for.
    """

    jobs: Sequence[JobSummary] = ()
    matrices: Sequence[Matrix] = ()
    ranks: Ranks = field(default_factory=Ranks)
    audits: Sequence["Audit"] = ()

    def ranked_beside(self, preset: str) -> "Summary":
        """Return the summary with `ranks`; see `beside`, also for errors."""
        jobs = [job for summary in self.attacked for job in summary.runs]
        return replace(self, ranks=beside(jobs, preset))

    @property
    def attacked(self) -> list[JobSummary]:
        """The jobs with adversarial images."""
        return [summary for summary in self.jobs if summary.job.attacked]

    @cached_property
    def groups(self) -> list[list[JobSummary]]:
        """The comparable jobs with adversarial images."""
        groups: dict[str, list[JobSummary]] = {}
        for summary in self.attacked:
            groups.setdefault(summary.group, []).append(summary)
        return list(groups.values())

    @cached_property
    def outcomes(self) -> list[ImageOutcomes]:
        """The outcomes of each group's first seeds at the reference budget, without defences."""
        return [
            joined([summary.outcomes[summary.job.record.reference] for summary in jobs])
            .select(defence=NO_DEFENCE)
            .of_first_seeds()
            for jobs in self.groups
        ]

    @cached_property
    def rankings(self) -> pd.DataFrame:
        """The `rankings` of attacks for each group and budget, the reference budget first.

        Leading columns: the number of the `group`, its `dataset`, `norm`, `eps_255`, `protocol`.
        Trailing columns: `gradients` per image at all budgets, and `fit_gradients`, the gradients
        of a fit per evaluated image; both are means over the sources.
        """
        parts = [_with_cost(jobs, rows) for jobs, rows in self._ranked(rankings)]
        costs = [entry.column for entry in STATISTICS if entry.cost]
        empty = pd.DataFrame(columns=[*_COMMON, *ATTACK_COLUMNS, *costs])
        return pd.concat(parts, ignore_index=True) if parts else empty

    @cached_property
    def sources(self) -> pd.DataFrame:
        """The `source_rankings` per group and budget, with the leading columns of `rankings`."""
        parts = [rows for _, rows in self._ranked(source_rankings)]
        empty = pd.DataFrame(columns=[*_COMMON, *SOURCE_COLUMNS])
        return pd.concat(parts, ignore_index=True) if parts else empty

    def _ranked(
        self, rank: Callable[[ImageOutcomes], pd.DataFrame]
    ) -> Iterator[tuple[list[JobSummary], pd.DataFrame]]:
        """Yield the jobs and the ranking for each group and budget."""
        for number, jobs in enumerate(self.groups, 1):
            first = jobs[0].job.record
            tried = sorted({eps for summary in jobs for eps in summary.outcomes})
            for eps in sorted(tried, key=lambda eps: eps != first.reference):
                rows = rank(
                    joined([summary.outcomes[eps] for summary in jobs if eps in summary.outcomes])
                )
                named = rows.assign(
                    group=number, dataset=first.dataset, norm=first.norm, eps_255=eps
                )
                named = named.assign(protocol=first.protocol)
                yield jobs, named[[*_COMMON, *rows]]


def summarise(jobs: Sequence[FinishedJob]) -> Summary:
    """Compute the statistics of jobs from their tables, reading the rows of one job at a time.

    Jobs that differ only in their seeds share one summary.

    Raises:
        ValueError: A file of a job is damaged.
    """
    summaries, rows = [], rows_of_seeds(jobs)
    for row, group in zip(rows, groups_of(row[0].record for row in rows), strict=True):
        parts = []
        for job in row:
            named = replace(job, shows_seed=job.shows_seed and len(row) == 1)
            parts.append(_summary(named, json.dumps(dict(group))))
            job.forget()
        summaries.append(_over_seeds(parts) if len(row) > 1 else parts[0])
    attacked = Summary(summaries).attacked
    return Summary(summaries, list(_matrices(attacked)))


def primary_rates(jobs: Sequence[JobSummary]) -> pd.DataFrame:
    """Return the rates of the jobs' primary variants, in the form that matrix and curves draw."""
    rates = pd.concat([summary.drawn for summary in jobs], ignore_index=True)
    return rates[rates["primary"]]


def described_images(job: FinishedJob) -> pd.DataFrame:
    """Return the `trajectories` of a job's images, with minimum budgets refined by bisection."""
    record = job.record
    pair = (record.source, record.targets)
    return trajectories(job.predictions, *pair, record.protocol, job.flips, record.norm)


def differences(groups: Iterable[str]) -> str:
    """Name the facts in which groups of jobs differ, with their values; empty for one group."""
    facts = pd.DataFrame([json.loads(group) for group in dict.fromkeys(groups)]).fillna("another")
    unlike = {name: its.astype(str).unique() for name, its in facts.items()}
    return ", ".join(f"{name} ({', '.join(its)})" for name, its in unlike.items() if len(its) > 1)


def mean_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the numbers of the seeds over rows with equal texts and budgets.

    The ends of intervals are averaged too: more seeds are not more images and do not narrow them.
    """
    rows = rows.drop(columns=["seed", "success_rate_sd"], errors="ignore")
    numbers = [name for name in rows.select_dtypes("number") if name != "eps_255"]
    groups = rows.groupby([name for name in rows if name not in numbers], sort=False, dropna=False)
    means = groups[numbers].mean().round(12)  # the mean of equal numbers is that number
    deviations = groups[["success_rate"]].std().round(12).add_suffix("_sd")
    return means.join(deviations).reset_index()[[*rows, *deviations]]


def _over_seeds(seeds: Sequence[JobSummary]) -> JobSummary:
    """Combine the seeds of a job; the excess and the cost are those of the first seed."""
    first = seeds[0]
    alarms = list(dict.fromkeys(alarm for summary in seeds for alarm in summary.alarms))
    rates = pd.concat([summary.rates for summary in seeds], ignore_index=True)
    outcomes = {eps: joined([summary.outcomes[eps] for summary in seeds]) for eps in first.outcomes}
    return replace(first, rates=rates, alarms=alarms, outcomes=outcomes, seeds=seeds)


def _with_cost(jobs: Sequence[JobSummary], ranked: pd.DataFrame) -> pd.DataFrame:
    """Add the gradients per image, and those of fits, for a source or averaged over sources.

    Ensembles and sources behind defences are in no average.
    """
    pairs = [*zip(ranked["attack"], ranked["source"], strict=True)]
    columns = {}
    for name, unknown in (("gradients", nan), ("fit_gradients", 0.0)):
        costs = pd.Series(
            {
                (summary.job.attack, summary.job.record.source): summary.cost.get(
                    f"{name}_per_image", unknown
                )
                for summary in jobs
            }
        ).sort_index()
        parsed = map(ModelRef.parse, costs.index.get_level_values(1))
        alone = costs[[not (its.is_ensemble or its.is_defended) for its in parsed]]
        means = alone.groupby(level=0).mean()
        columns[name] = [costs.get(pair, means.get(pair[0], nan)) for pair in pairs]
    return ranked.assign(**columns)


def _summary(job: FinishedJob, group: str) -> JobSummary:
    record, alarms = job.record, job.alarms
    if not job.attacked:
        return JobSummary(job, pd.DataFrame(), pd.DataFrame(), alarms, group=group)
    variants, pair = job.variants(), (record.source, record.targets)
    rates = rates_by_protocol(variants, *pair, job.attack, record.norm)
    rates.insert(list(rates).index("norm") + 1, "arithmetic", record.arithmetic)
    rates.insert(list(rates).index("source_defence") + 1, "seed", record.seed)
    shared = {target: overlaps(record, record.source, target) for target in record.targets}
    rates.insert(
        list(rates).index("defence") + 1, "overlap", rates["target"].map(shared).map(", ".join)
    )
    excess = excess_by_control(variants, record.storage, *pair, record.protocol)
    attacked = job.predictions[job.predictions["eps_255"] > 0]
    means = attacked[["gradients", "forwards"]].mean().dropna()
    cost = {f"{name}_per_image": float(value) for name, value in means.items()}
    if record.fit_gradients:
        fit = {"": record.fit_gradients, "_per_image": record.fit_gradients / record.images}
        cost |= {f"fit_gradients{name}": value for name, value in fit.items()}
    outcomes = image_outcomes(job.defended, job.attack, *pair, record.protocol)
    return JobSummary(job, rates, excess, alarms, outcomes, group, cost)


def _matrices(jobs: Sequence[JobSummary]) -> Iterator[Matrix]:
    """Yield one matrix per set of images, attack, reference budget and protocol."""
    groups: dict[tuple[str, str, float, str], list[JobSummary]] = {}
    for summary in jobs:
        record = summary.job.record
        key = (record.data, summary.job.attack, record.reference, record.protocol)
        groups.setdefault(key, []).append(summary)
    images = {(its.record.dataset, its.record.data) for its in (summary.job for summary in jobs)}
    named = Counter(name for name, _ in images)
    for (data, attack, eps, protocol), members in groups.items():
        rates = pd.concat([member.primary for member in members], ignore_index=True)
        plain = rates[rates["defence"] == NO_DEFENCE]
        dataset = members[0].job.record.dataset
        dataset += f" ({data[:6]})" if named[dataset] > 1 else ""
        heading = f"{attack} on {dataset}, eps = {eps:g}/255"
        arithmetic = " / ".join(dict.fromkeys(member.job.record.formats for member in members))
        ends = [f"protocol: {protocol}", *([arithmetic] if arithmetic != "float32" else [])]
        yield Matrix(
            attack,
            Label(", ".join([heading, *ends])),
            transfer_matrix(plain, eps, protocol),
            behind_defences(primary_rates(members), eps, protocol)
            if len(plain) < len(rates) and len({member.group for member in members}) == 1
            else pd.DataFrame(),
        )
