"""Results of finished jobs: one frame with every rate and mean, rankings, and alarms.

Tables, terminal, page, figures and trackers show these numbers; none computes them again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.diagnostics import excess_by_control, mean_visibility
from ..analysis.estimates import MEAN, contributions, intervals, mean_weights, weighted_means
from ..analysis.intervals import FEWEST_IMAGES, wilson_interval
from ..analysis.outcomes import (
    Mask,
    Outcomes,
    evaluated_pairs,
    job_outcomes,
    joined,
    outcomes_by_budget,
    under,
)
from ..analysis.quantities import COUNTED, QUANTITIES, STATISTICS
from ..analysis.ranking import ATTACK_COLUMNS, SOURCE_COLUMNS, rankings, source_rankings
from ..analysis.trajectories import trajectories
from ..analysis.transfer_rates import rates_of
from ..artifacts.comparable import Group, groups_of, networks_of, overlaps, training_of
from ..artifacts.finished_job import FinishedJob
from ..artifacts.jobs import find_jobs, name_jobs, rows_of_seeds, without_related
from ..artifacts.sweep_folders import Sweeps, named_folders
from ..artifacts.tables import Alarm
from ..utils.model_names import ModelRef
from ..utils.refusals import choose
from .beside import Ranks

if TYPE_CHECKING:
    from .audit import Audit

_KIND = ["attack", "relation", "ensemble", "source_defence"]
_BLOCK, _PLACE = [*_KIND, "defence"], ["variant", "protocol", "eps_255"]
"""Columns over which no mean is taken."""
_FIRST = ["variant", "attack", "source", "norm", "arithmetic", "protocol", "target", "defence"]
_FIRST += ["overlap", "eps_255", "relation", "ensemble", "source_defence", "seed"]
"""The first columns of `rates.csv`."""
_OF_JOB = ["gradients_per_image", "forwards_per_image", "rms_255", "psnr", "ssim"]
_SAME = ("eps_255", "group")
_RATES = ("success_rate", "robust_accuracy")
_COMMON = ["group", "dataset", "norm", "eps_255", "protocol"]

_NAMES = ("attack", "source", "target", "defence", "norm", "protocol", "variant")
_NUMBERS = ("eps_255", "index", "label", "target_label", "predicted", "confidence")
_COUNTS = ("draws", "draws_correct", "gradients", "forwards")
COLUMNS = (*_NAMES, *_NUMBERS, "true_confidence", *_COUNTS)
"""Columns of predictions."""

Place = tuple[str, str, float]
"""A variant, a protocol and a budget."""


@dataclass(frozen=True)
class JobResults:
    """Results of one job.

    Attributes:
        rates: Rates of every variant under every protocol, the rows of `rates.csv`.
        excess: Excess of the primary variant over each control.
        alarms: Failed sanity checks.
        cost: `gradients_per_image` and `forwards_per_image` (including the passes for gradients) at
            all budgets together, and gradients of a fit, if known.
        sizes: `mean_visibility`; empty if it was not measured.
        outcomes: Outcomes per image by variant, protocol and budget.
    """

    job: FinishedJob
    rates: pd.DataFrame
    excess: pd.DataFrame
    alarms: Sequence[Alarm]
    cost: Mapping[str, float] = field(default_factory=dict)
    sizes: pd.DataFrame = field(default_factory=pd.DataFrame)
    outcomes: Mapping[Place, Outcomes] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Results:
    """Results of several jobs; indexing it, and columns of `predictions` by name, read these.

    Attributes:
        rows: The jobs in order; jobs that differ only in their seeds are one row.
        groups: Key of the comparable jobs of each row; only these are averaged and ranked together.
        ranks: The attacks among the stored attacks of a preset; empty: not asked for.
        audits: What an attacker can do to each target; empty: not asked for.
    """

    rows: Sequence[Sequence[JobResults]] = ()
    groups: Sequence[Group] = ()
    ranks: Ranks = field(default_factory=Ranks)
    audits: Sequence["Audit"] = ()

    @property
    def jobs(self) -> list[FinishedJob]:
        """All jobs."""
        return [result.job for row in self.rows for result in row]

    @cached_property
    def attacked(self) -> list[Sequence[JobResults]]:
        """The rows with adversarial images."""
        return [row for row in self.rows if row[0].job.attacked]

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(job.attack or "clean images" for job in self.jobs))
        return f"<Results of {len(self.jobs)} jobs: {names}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        first: Any = self.table() if self.attacked else self.predictions.head()
        return str(first._repr_html_())

    def __getitem__(self, key: Any) -> Any:
        return self.predictions[key]

    def __getattr__(self, name: str) -> Any:
        if name in COLUMNS:
            return self.predictions[name]
        raise AttributeError(f"Results have no {name!r}; results.predictions is a data frame.")

    def table(self, **options: Any) -> Any:
        """Lay out a table; see `src.table` for the options."""
        from .named_tables import table  # which lays out results

        return table(self, **options)

    def figure(self, name: str, *image: int | str, **options: Any) -> Any:
        """Draw a chart, such as `matrix` or `curves`; see `src.figure` for names and options."""
        from .figure import FIGURES

        kind = choose("figure", name.replace("_", "-"), FIGURES)
        return FIGURES[kind](*image, self, **options)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """All predictions, as described for `load_sweep`."""
        parts = [part for row in self.rows for job in row for part in _parts(job.job, len(row) > 1)]
        rows = pd.concat(parts, ignore_index=True)
        models = pd.CategoricalDtype(sorted({*rows["source"].unique(), *rows["target"].unique()}))
        dtypes = dict.fromkeys(_NAMES, "category") | dict.fromkeys(("source", "target"), models)
        return rows[[*COLUMNS]].astype(dtypes)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The rates of all pairs and seeds: the rows of all files `rates.csv`."""
        parts = [job.rates for row in self.attacked for job in row]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rates and means, one row each.

        The keys are `group` (number of the comparable jobs), `attack`, `source`, `target`,
        `defence`, `variant`, `norm`, `protocol`, `seed` and `eps_255`. `source_training` and
        `target_training` are the seed or file of a model's weights; `source_network` and
        `target_network` are the networks that the models are trainings of. A source, target or seed
        `mean` stands for the mean over them:

        - over sources or targets, of pairs with one `relation`, without ensembles among single
          sources, and for each defence of the sources; over both, targets weigh equally;
        - at the budgets that all sources of the attack at its reference budget have;
        - over the seeds of one recipe.

        Further columns are those of `rates.csv`; the number of `pairs`, `sources` and `targets` of
        a mean, `images` (counted in any of its pairs), `least` and `most` (counted in a pair);
        whether the variant is `primary`, and budget and protocol are the job's `reference`; costs
        and sizes.
        """
        parts = list[pd.DataFrame]()
        for number, rows in enumerate(self._grouped, 1):
            results = [(place, job) for place, row in enumerate(rows) for job in row]
            pairs = pd.concat([_pairs(job, row, number) for row, job in results], ignore_index=True)
            parts += [pairs, _means(pairs, [job for _, job in results])]
        if not parts:
            return pd.DataFrame()
        frame = pd.concat(parts, ignore_index=True)
        several = (frame["seed"] == MEAN).any()
        return frame.assign(success_rate_sd=_over_seeds(frame) if several else nan)

    @cached_property
    def over_seeds(self) -> pd.DataFrame:
        """The rows of `frame`; of several seeds their mean alone, or else the first of them."""
        rows = self.frame
        if rows.empty:
            return rows
        order = np.argsort((rows["seed"] != MEAN).to_numpy(), kind="stable")
        places = ["group", "source", "target", *_BLOCK, *_PLACE]
        return rows.iloc[order].drop_duplicates(places).sort_index()

    @cached_property
    def primary_rows(self) -> pd.DataFrame:
        """The rows of `over_seeds` for the primary variants."""
        return self.over_seeds[self.over_seeds["primary"]] if self.attacked else self.frame

    @cached_property
    def signature(self) -> str:
        """What the success at the reference budget is of, in one line; empty without an attack."""
        from .signature import signature_of  # which reads results

        return signature_of(self, self.pairs(reference=True)) if self.attacked else ""

    def select(self, **where: Any) -> pd.DataFrame:
        """Return the rows of `primary_rows` with these values in columns; lists choose several."""
        chosen = self.primary_rows
        for name, value in where.items():
            chosen = chosen[chosen[name].isin(value if isinstance(value, list) else [value])]
        return chosen

    def pairs(self, **where: Any) -> pd.DataFrame:
        """Return the selected rows that are no means over sources or targets."""
        rows = self.select(**where)
        return rows[(rows["source"] != MEAN) & (rows["target"] != MEAN)]

    def outcomes(
        self, eps_255: float | None = None, protocol: str | None = None
    ) -> dict[int, Outcomes]:
        """Return the outcomes by number of the group, of groups that have the budget.

        Args:
            eps_255: Budget in units of 1/255; None: the jobs' reference budget.
            protocol: Protocol; None: the jobs' own.
        """
        outcomes = dict[int, Outcomes]()
        for number, rows in enumerate(self._grouped, 1):
            record = rows[0][0].job.record
            eps = record.reference if eps_255 is None else eps_255
            place = record.storage, protocol or record.protocol, eps
            parts = [job.outcomes[place] for row in rows for job in row if place in job.outcomes]
            outcomes |= {number: joined(parts)} if parts else {}
        return outcomes

    @cached_property
    def _grouped(self) -> list[list[Sequence[JobResults]]]:
        groups = dict[Group, list[Sequence[JobResults]]]()
        for row, group in zip(self.rows, self.groups, strict=True):
            if row[0].job.attacked:
                groups.setdefault(group, []).append(row)
        return [*groups.values()]

    @cached_property
    def rankings(self) -> pd.DataFrame:
        """The `rankings` of attacks for each group and budget, the reference budget first.

        Leading columns: the number of the `group`, its `dataset`, `norm`, `eps_255`, `protocol`.
        Trailing columns: `gradients` per image at all budgets, and `fit_gradients`, the gradients
        of a fit per evaluated image; both are means over the sources.
        """
        columns = [*ATTACK_COLUMNS, *(entry.column for entry in STATISTICS if entry.cost)]
        return self._ranked(lambda jobs, part: _with_cost(jobs, rankings(part)), columns)

    @cached_property
    def sources(self) -> pd.DataFrame:
        """The `source_rankings` per group and budget, with the leading columns of `rankings`."""
        return self._ranked(lambda _, part: source_rankings(part), SOURCE_COLUMNS)

    def _ranked(
        self, rank: Callable[[list[JobResults], Outcomes], pd.DataFrame], columns: Sequence[str]
    ) -> pd.DataFrame:
        """Return the rankings for each group and budget, from its jobs and their outcomes."""
        parts = list[pd.DataFrame]()
        for number, rows in enumerate(self._grouped, 1):
            jobs, first = [job for row in rows for job in row], rows[0][0].job.record
            tried = sorted({eps for job in jobs for *_, eps in job.outcomes} - {0.0})
            for eps in sorted(tried, key=lambda eps: eps != first.reference):
                place = first.storage, first.protocol, eps
                outcomes = joined([job.outcomes[place] for job in jobs if place in job.outcomes])
                common: Any = number, first.dataset, first.norm, eps, first.protocol
                ranked = rank(jobs, outcomes).assign(**dict(zip(_COMMON, common, strict=True)))
                parts.append(ranked[[*_COMMON, *columns]])
        empty = pd.DataFrame(columns=[*_COMMON, *columns])
        return pd.concat(parts, ignore_index=True) if parts else empty


def open_results(
    folder: "Sweeps | Results", *more: "Sweeps | Results", related: bool = True
) -> Results:
    """Return the results of the jobs in folders of sweeps, or those that are passed.

    Arguments and errors are as for `open_jobs`.
    """
    if isinstance(folder, Results) and related is True and not more:
        return folder
    return results_of(open_jobs(folder, *more, related=related))


def open_jobs(*folders: "Sweeps | Results", related: bool = True) -> list[FinishedJob]:
    """Return the jobs in folders of sweeps, or those of results.

    With `related=False` pairs of related models are left out.

    Raises:
        ValueError: As in `load_sweep`; or an argument cannot be used.
    """
    choose("related", related, (True, False))
    loaded = [item for item in folders if isinstance(item, Results)]
    sweeps = [item for item in folders if not isinstance(item, Results)]
    if loaded and len(folders) > 1:
        raise ValueError("Pass one result of load_sweep or transfer, or only folders.")
    jobs = loaded[0].jobs if loaded else find_jobs(named_folders(*sweeps))
    return jobs if related else without_related(jobs)


def results_of(jobs: Sequence[FinishedJob]) -> Results:
    """Compute the results of jobs from their tables, reading the rows of one job at a time.

    Raises:
        ValueError: A file of a job is damaged, or a model has the name of a mean.
    """
    if named := next((job for job in jobs if MEAN in job.record.weights), None):
        raise ValueError(f"{named.folder}: a model is named {MEAN}, as means are. Rename it.")
    rows = rows_of_seeds(jobs)
    groups = groups_of(seeds[0].record for seeds in rows)
    results = [[_read(replace(job, shows_seed=False)) for job in seeds] for seeds in rows]
    return Results(results, groups)


def titled_anew(rows: Sequence[Sequence[JobResults]]) -> list[list[JobResults]]:
    """Return rows of results with the titles that tell these jobs apart."""
    named = iter(name_jobs([result.job for row in rows for result in row]))
    return [[_titled(result, next(named).title) for result in row] for row in rows]


def _titled(result: JobResults, title: str) -> JobResults:
    """Return the results of a job under another title."""
    job = replace(result.job, title=title)
    jobs = [(job.attack, job.record.source)]
    outcomes = {place: replace(part, jobs=jobs) for place, part in result.outcomes.items()}
    return replace(result, job=job, rates=result.rates.assign(attack=job.attack), outcomes=outcomes)


def described_images(job: FinishedJob) -> pd.DataFrame:
    """Return the `trajectories` of a job's images."""
    record = job.record
    pair = (record.source, record.targets)
    return trajectories(job.predictions, *pair, record.protocol, record.norm)


def _read(job: FinishedJob) -> JobResults:
    """Read a job's tables, and compute its rates, outcomes and costs."""
    record, alarms = job.record, job.alarms
    if not job.attacked:
        return JobResults(job, pd.DataFrame(), pd.DataFrame(), alarms)
    variants, parts, bits = job.variants(), list[dict[str, NDArray[Any]]](), {}
    for variant, predictions in variants.items():
        pairs = evaluated_pairs(predictions, record.targets)
        whole = job_outcomes(predictions, record.source, pairs, "all", networks_of(record))
        for protocol in whole.protocols:
            counted = under(whole, protocol)
            columns = rates_of(counted)
            names = {"variant": variant, "protocol": protocol}
            n = len(columns["target"])
            parts.append(columns | {name: np.full(n, text, object) for name, text in names.items()})
            for eps, outcome in outcomes_by_budget(counted, job.attack).items():
                bits[variant, protocol, eps] = outcome
    # One frame, since each takes milliseconds.
    rates = pd.DataFrame({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
    shared = {name: ", ".join(overlaps(record, record.source, name)) for name in record.targets}
    fixed: dict[str, Any] = {"attack": job.attack, "source": record.source, "norm": record.norm}
    fixed |= {"arithmetic": record.arithmetic, "seed": record.seed}
    rates = rates.assign(**fixed, overlap=rates["target"].map(shared))
    rates = rates[[*dict.fromkeys([*_FIRST, *rates])]]
    pair = record.source, record.targets
    excess = excess_by_control(variants, record.storage, *pair, record.protocol)
    attacked = job.predictions[job.predictions["eps_255"] > 0]
    means = attacked[["gradients", "forwards"]].mean().dropna()
    cost = {f"{name}_per_image": float(value) for name, value in means.items()}
    if record.fit_gradients != 0:
        fit = nan if record.fit_gradients is None else record.fit_gradients
        cost |= {"fit_gradients": fit, "fit_gradients_per_image": fit / record.images}
    sizes = mean_visibility(job.table("visibility")) if "visibility" in job.tables else None
    job.forget()
    return JobResults(job, rates, excess, alarms, cost, pd.DataFrame(sizes), bits)


def _parts(job: FinishedJob, one_of_seeds: bool) -> Iterator[pd.DataFrame]:
    """Yield the predictions of each variant of a job, with columns that identify the job."""
    record, seed = job.record, f" seed={job.record.seed}" * one_of_seeds
    names = {"attack": job.attack + seed, "source": record.source}
    names |= {"norm": record.norm, "protocol": record.protocol}
    for variant, table in job.variants().items():
        rows = table.assign(**names, variant=variant)
        yield rows.astype(dict.fromkeys(("target_label", "draws_correct"), "Int64"))
    job.forget()


def _pairs(result: JobResults, row: int, group: int) -> pd.DataFrame:
    """Return a job's rows of the frame for its pairs; `row` tells recipes apart."""
    record, rates = result.job.record, result.rates
    n = rates["denominator"]
    columns: dict[str, Any] = dict.fromkeys(("pairs", "sources", "targets"), 1)
    columns |= dict.fromkeys(("images", "least", "most"), n)
    ends = wilson_interval(rates["confidence"] * n, n)
    columns |= dict(zip(("confidence_low", "confidence_high"), ends, strict=True))
    counted = rates["protocol"] == record.protocol
    primary = rates["variant"] == record.storage
    columns |= {"primary": primary, "reference": counted & (rates["eps_255"] == record.reference)}
    columns |= {name: nan for name in _OF_JOB} | dict(result.cost)
    trainings = {name: training_of(record, name) for name in record.weights}
    for name, of in (("training", trainings), ("network", networks_of(record))):
        columns[f"source_{name}"] = of.get(record.source_model.model, "")
        columns[f"target_{name}"] = rates["target"].map(of).fillna("")
    rows = rates.assign(group=group, row=row, **columns)
    if len(result.sizes):
        sizes = result.sizes.set_index("eps_255").reindex(rates["eps_255"])
        rows = rows.assign(**{name: sizes[name].to_numpy() for name in ("rms_255", "psnr", "ssim")})
    return rows


def _means(pairs: pd.DataFrame, results: Sequence[JobResults]) -> pd.DataFrame:
    """Return the rows of means over the pairs of comparable jobs."""
    parts = list[dict[str, NDArray[Any]]]()
    jobs = pairs.groupby(["row", "seed"], sort=False).ngroup().to_numpy()
    shared = _shared(pairs, results[0].job.record.reference)
    columns = {name: pairs[name].to_numpy() for name in pairs}
    cache = dict[Any, Any]()
    places: Any = pairs.groupby(_PLACE, sort=False).indices
    for place, rows in places.items():
        used = sorted({*jobs[rows]})
        outcomes = joined([results[job].outcomes[place] for job in used])
        targets = {pair.columns: number for number, pair in enumerate(outcomes.targets)}
        block = pairs.iloc[rows]
        blocks: Any = block.groupby(_BLOCK, sort=False).indices
        for at in (rows[name] for name in blocks.values()):
            several = len({*columns["seed"][at]}) > 1
            at = at[columns["denominator"][at] > 0]
            if len(at):
                named = zip(columns["target"][at], columns["defence"][at], strict=True)
                of_targets = np.array([targets[pair] for pair in named])
                at_ = np.searchsorted(used, jobs[at]), of_targets
                chosen = {str(name): column[at] for name, column in columns.items()}
                parts.append(_mean_rows(chosen, shared[at], several, outcomes, at_, cache))
    if not (parts := [part for part in parts if len(part["source"])]):
        return pairs[:0]
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _shared(pairs: pd.DataFrame, reference: float) -> Mask:
    """Return which pairs are in means over sources: those of the same sources at each budget.

    The sources are those of the attack at its reference budget, or else at the budget with most of
    them; the budgets are those that all of these sources have.
    """
    shared = pd.Series(False, pairs.index)
    for _, rows in pairs.groupby([*_KIND, "variant", "protocol"], sort=False):
        sources = rows[rows["eps_255"] > 0].groupby("eps_255")["source"].agg(set)
        chosen = sources.get(reference) or max(sources, key=len)
        budgets = {0.0, *sources.index[[chosen <= names for names in sources]]}
        shared[rows.index] = rows["eps_255"].isin(budgets) & rows["source"].isin(chosen)
    return shared.to_numpy()


def _mean_rows(
    pairs: Mapping[str, NDArray[Any]],
    shared: Mask,
    over_seeds: bool,
    outcomes: Outcomes,
    places: tuple[NDArray[np.intp], NDArray[np.intp]],
    cache: dict[Any, Any],
) -> dict[str, NDArray[Any]]:
    """Return the columns of the means over some pairs, at these places of job and target.

    `known` keeps the weights, which are the same for most attacks and budgets.
    """
    keys = pairs["source"], pairs["target"], pairs["seed"]
    alike = (*map(tuple, keys), shared.tobytes(), over_seeds)
    if alike not in cache:
        cache[alike] = mean_weights(*keys, shared, over_seeds)
    names, weights = cache[alike]
    both = keys[0] + "\n" + keys[1]
    numbers = {
        name: np.count_nonzero((weights > 0) @ (key[:, None] == np.unique(key)), axis=1)
        for name, key in (("pairs", both), ("sources", keys[0]), ("targets", keys[1]))
    }
    single = numbers["pairs"] == 1
    scores = np.stack([outcomes.fooled[places], outcomes.correct[places]])
    values, largest = contributions(scores, outcomes.counted[places], weights)
    rates = intervals(values, largest, single)
    same = {name for name, column in pairs.items() if column.dtype.kind in "Ob"} | {*_SAME}
    columns = {
        name: np.full(len(names), column[0] if name in same else nan)
        for name, column in pairs.items()
    }
    for name in QUANTITIES.keys() & pairs.keys():
        columns[name] = weighted_means(weights, pairs[name], *keys)
    for name, column in zip(("source", "target", "seed"), zip(*names, strict=True), strict=True):
        columns[name] = np.array(column, object)
    for name in COUNTED & pairs.keys():
        columns[name] = np.where(single, columns[name], nan)
    for at, name in enumerate(_RATES):
        columns[name] = np.where(single, columns[name], rates["mean"][at])
        columns |= {f"{name}_{end}": rates[end][at] for end in ("low", "high")}
    images, n = rates["images"], np.where(weights > 0, pairs["denominator"], nan)
    size = np.where(single | (images >= FEWEST_IMAGES), images, 0)
    ends = wilson_interval(columns["confidence"] * size, size)
    columns |= dict(zip(("confidence_low", "confidence_high"), ends, strict=True))
    columns |= {**numbers, "images": images, "overlap": np.full(len(names), "", object)}
    for name in ("source_training", "target_training", "source_network", "target_network"):
        axis = name.partition("_")[0]
        texts = dict(zip(pairs[axis], pairs[name], strict=True)) | {MEAN: ""}
        columns[name] = np.array([texts[model] for model in columns[axis]], object)
    return columns | {"least": np.nanmin(n, axis=1), "most": np.nanmax(n, axis=1)}


def _over_seeds(frame: pd.DataFrame) -> pd.Series:
    """Return the standard deviation of success over the seeds for means over seeds, else NaN."""
    mean, keys = frame["seed"] == MEAN, ["group", "source", "target", *_BLOCK, *_PLACE]
    rates = frame["success_rate"].where(~mean)
    spread = rates.groupby([frame[key] for key in keys], sort=False).transform("std")
    return spread.where(mean).round(12)


def _with_cost(jobs: Sequence[JobResults], ranked: pd.DataFrame) -> pd.DataFrame:
    """Add the gradients per image, and those of fits, for a source or averaged over sources.

    Ensembles and sources behind defences are in no average.
    """
    columns = {}
    for name, unknown in (("gradients", nan), ("fit_gradients", 0.0)):
        costs = {
            (job.job.attack, job.job.record.source): job.cost.get(f"{name}_per_image", unknown)
            for job in jobs
        }
        sources = [ModelRef.parse(name) for _, name in costs]
        alone = [not (source.is_ensemble or source.is_defended) for source in sources]
        means = pd.Series(costs)[alone].groupby(level=0).mean()
        pairs = zip(ranked["attack"], ranked["source"], strict=True)
        columns[name] = [costs.get(pair, means.get(pair[0], nan)) for pair in pairs]
    return ranked.assign(**columns)
