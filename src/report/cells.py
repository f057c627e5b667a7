"""Cells of a table by attack, source, target and defence, with marks for the best attacks."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from ..analysis import CLEAN, TRANSFER, clean_rows
from ..analysis.diagnostics import mean_visibility
from ..analysis.image_outcomes import GROUP, ImageOutcomes, image_outcomes, joined
from ..analysis.quantities import QUANTITIES, Quantity
from ..analysis.ranking import rankings
from ..analysis.transfer_rates import relation
from ..utils.checked_dataclass import checked
from ..utils.formats import format_cells
from ..utils.model_names import ModelRef
from .summary import JobSummary, differences, mean_over_seeds, primary_rates

AXES = ("attack", "source", "target", "defence")
_DEFAULT_FIRST = sorted(QUANTITIES.values(), key=lambda quantity: quantity.value != "success")
COUNTS = "counts"
"""Name of the value that shows counts and their rate, as in the transfer matrix."""
VALUES = {quantity.value: quantity for quantity in _DEFAULT_FIRST if quantity.value}
VALUES[COUNTS] = Quantity("rate", "Counts ({counted} / counted = rate)", count="k", value=COUNTS)
"""The quantities that cells can show, by the name that users type."""
FORMATS = ("latex", "markdown", "csv")
AVERAGE, DIFFERENCE = "average", "difference"
_NEAR = 1e-9
_ALONE = {"attack": "attack", "defence": "defence", "source": "source_defence"}
"""Columns that are never averaged, by the axis that each belongs to."""
_ENDS = [DIFFERENCE, f"{DIFFERENCE}_low", f"{DIFFERENCE}_high"]
_OF_TRIES = ("tries", "eps_255", "defence", "protocol", "names", "wide", "small", "to")


@checked
class TableSpec:
    """Contents and layout of a table: the keywords of `src.table`, which explains them.

    Raises:
        ValueError: An argument has an unknown value, or two arguments exclude each other.
    """

    rows: str | Sequence[str] = ("source", "attack")
    columns: str | Sequence[str] = ("target",)
    value: str = "success"
    eps_255: float | None = None
    protocol: str | None = None
    average: bool = True
    white_boxes: bool = True
    intervals: bool = False
    clean: bool = False
    differences: bool = False
    published: bool = False
    related: bool = True
    tries: bool = False
    defence: str | None = None
    names: Mapping[str, str] | None = None
    wide: bool = False
    small: bool = False
    to: str | None = None

    def __post_init__(self) -> None:
        for side in ("rows", "columns"):
            axes = getattr(self, side)
            object.__setattr__(self, side, (axes,) if isinstance(axes, str) else tuple(axes))
        for key, names, known in (
            ("rows", self.rows, AXES),
            ("columns", self.columns, AXES),
            ("value", [self.value], VALUES),
            ("to", [] if self.to is None else [self.to], FORMATS),
        ):
            if set(names) - set(known) or (key != "to" and not names):
                raise ValueError(f"{key}={','.join(names)}: choose from {', '.join(known)}.")
        if twice := ", ".join(key for key, count in Counter(self.keys).items() if count > 1):
            raise ValueError(f"{twice} is in rows and columns twice.")
        if VALUES[self.value].fewest:  # white boxes have no value
            object.__setattr__(self, "white_boxes", False)
        if self.value == COUNTS and not {"source", "target"} <= {*self.keys}:
            raise ValueError("value=counts needs source and target in rows or columns.")
        named = "target" in self.columns and {"source", "attack"} & {*self.rows}
        if self.clean and not (named and self.value in (COUNTS, "accuracy")):
            raise ValueError(
                "clean needs source or attack in rows, target in columns, and value=accuracy or "
                "counts."
            )
        paired = "attack" in self.rows and {"source", "target"} <= {*self.keys}
        if self.published and not (paired and self.value == "success"):
            raise ValueError(
                "published needs attack in rows, source and target in rows or columns, and "
                "value=success."
            )
        ranked = self.average and "attack" in self.rows and self.value == "success"
        if self.differences and not ranked:
            raise ValueError("differences needs attack in rows, value=success and average=True.")
        others = [its for its in fields(self) if its.name not in _OF_TRIES]
        if self.tries and any(getattr(self, its.name) != its.default for its in others):
            raise ValueError(f"tries takes only {', '.join(_OF_TRIES[1:])}.")

    @property
    def keys(self) -> tuple[str, ...]:
        """The axes of the rows and of the columns."""
        return (*self.rows, *self.columns)


@dataclass(frozen=True)
class TableCells:
    """The numbers of jobs at one budget and under one protocol, for a table.

    Attributes:
        pairs: One row per attack, source, target and defence, with the columns of rates and, if
            there are several seeds, `seed=N`: the value for each seed.
        outcomes: Outcomes per image, for each group of comparable jobs.
        clean: The rates on all clean images, one row per column of the table; empty unless shown.
        spec: The table.
    """

    pairs: pd.DataFrame
    outcomes: Sequence[ImageOutcomes]
    clean: pd.DataFrame
    spec: TableSpec

    def body(self) -> pd.DataFrame:
        """Compute all cells: clean ones, those of `table`, averages and differences."""
        rows, columns = self.spec.rows, [*self.spec.columns]
        average = self.spec.average and self.spec.value != COUNTS
        pairs = self.table(self.spec.keys)
        several = len(pairs[columns].drop_duplicates()) > 1
        alone = [_ALONE[axis] for axis in columns if axis in _ALONE]
        average &= several and all(self.pairs[name].nunique() == 1 for name in alone)
        parts = [self.clean, pairs] if len(self.clean) else [pairs]
        blank: dict[str, Any] = dict.fromkeys(columns, "") | {columns[0]: AVERAGE}
        blank |= dict.fromkeys(("least", "most"), np.nan)
        if average:
            means = self.table(rows)
            parts.append(means[~means["white"]].assign(**blank))
        if self.spec.differences:
            if not average:
                raise ValueError(
                    "differences are those of averages over columns of sources or targets."
                )
            parts.append(_differences(parts[-1], columns[0]))
        body = pd.concat(parts, ignore_index=True)
        body = body.assign(sd=body[seeds_of(body)].std(axis=1).round(12))
        return body.assign(value=body[COUNTS]) if self.spec.value == COUNTS else body

    def table(self, keys: Sequence[str]) -> pd.DataFrame:
        """Compute one row per cell of these axes: means over the pairs of different networks.

        The columns are `keys` and `value`; `low` and `high` for a single pair; `white`, whether
        there are only white boxes; `least` and `most`, the range of image counts; `seed=N`, the
        value for each seed; `partial`, whether the mean lacks sources or targets that another cell
        has; `best` and `undecided` (not significantly weaker) attacks, see `rankings`.

        Raises:
            ValueError: A cell would combine jobs that no ranking compares.
        """
        quantity, seeds = VALUES[self.spec.value], seeds_of(self.pairs)
        column = quantity.column
        if column not in self.pairs:
            raise ValueError(f"value={self.spec.value}: run the jobs with diagnostics=full.")
        if quantity.fewest and self.pairs[column].isna().all():
            raise ValueError(
                f"value={self.spec.value}: no pair has a value. It needs a source that is a "
                f"target, too (no ensemble), and that is fooled on {quantity.fewest} images."
            )
        names, used = list(keys), averaged_pairs(self.pairs, keys)
        mixed = used.groupby(names)["group"].transform("nunique") > 1
        if unlike := differences(used.loc[mixed, "group"]):
            ways = ("add source to rows", "leave out averages and differences (--no-average)")
            way = ways["source" in self.spec.keys]
            raise ValueError(f"{way}: a mean would combine jobs that differ in {unlike}.")
        ends = {f"{column}_{end}": end for end in ("low", "high")}
        counted = used[quantity.of].where(used[quantity.of] >= quantity.fewest)
        blank = {name: np.nan for name in ends if name not in used}
        wide = used.assign(**blank, denominator=counted)
        means = cell_means(wide, keys, [column, *seeds], [*ends, COUNTS])
        means = means.rename(columns={column: "value", **ends})
        cells = self.pairs[names].drop_duplicates().merge(means)
        known = used.assign(**used[seeds].notna())
        known = cells[names].join(known.groupby(names, sort=False)[seeds].all(), on=names)
        cells[seeds] = cells[seeds].where(known[seeds])  # a seed that lacks a pair has no mean
        used = used[used[column].notna()]
        return self.marked(with_partial(cells, used, keys), keys)

    def marked(self, cells: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
        """Mark the best of the comparable attacks in each group of cells that agree on `keys`.

        Add the `difference` from the first in the group's ranking with its simultaneous interval. A
        mean over targets is that of the ranking, which counts the same images for all attacks.
        """
        flags = dict.fromkeys(("best", "undecided", "untested"), False)
        cells = cells.assign(**flags, **dict.fromkeys(_ENDS, np.nan))
        if "attack" not in keys or self.spec.value not in ("success", "accuracy"):
            return cells
        sign, shared = 1 if self.spec.value == "success" else -1, [k for k in keys if k != "attack"]
        shown = cells[~cells["white"]]
        for place in shown[shared].drop_duplicates().to_dict("records") if shared else [{}]:
            group, done = _where(shown, place), set[int]()
            for outcomes in self.outcomes:
                ranked = rankings(
                    outcomes.select(**{str(key): name for key, name in place.items()})
                )
                for _, rows in ranked.groupby([*GROUP, "defence"], sort=False):
                    first = rows[rows["source"] == rows["source"].iloc[0]]  # the mean over sources
                    first = first[first["rank"].notna()]
                    its = group[group["attack"].isin(first["attack"]) & ~group.index.isin(done)]
                    if its.empty:
                        continue
                    row_of = first.set_index("attack").loc[its["attack"]]
                    means = row_of["mean"].to_numpy(np.float64)
                    if not first["targeted"].iloc[0]:
                        means = means if sign == 1 else 1 - means
                        if np.abs(its["value"] - means).max() > _NEAR:
                            continue  # the cells are of other pairs than the ranking
                    elif sign == -1:
                        continue  # tests are of success, which is not its complement
                    elif "target" not in keys:
                        cells.loc[its.index, "value"] = means
                    done |= {*its.index}  # ensembles, if there are single sources
                    cells.loc[its.index, _ENDS] = row_of[_ENDS].to_numpy()
                    values = sign * cells.loc[its.index, "value"]
                    if np.ptp(values) > _NEAR:
                        cells.loc[its.index[values > values.max() - _NEAR], "best"] = True
                        tested = first["p"].notna().any()
                        cells.loc[its.index, "untested"] = not tested
                        undecided = first.loc[first["undecided"] & tested, "attack"]
                        cells.loc[its.index[its["attack"].isin(undecided)], "undecided"] = True
        return cells.assign(undecided=cells["undecided"] & ~cells["best"])


def seeds_of(cells: pd.DataFrame) -> list[str]:
    """Return the columns with the values for single seeds."""
    return [name for name in cells.columns.unique(0) if name.startswith("seed=")]


def averaged_pairs(pairs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the pairs whose mean is a cell of these axes.

    These are the pairs of different networks, or all pairs if a cell has no others; ensembles only
    if a cell has no single source, because they are ranked apart.
    """
    for preferred in (pairs["relation"] == TRANSFER, ~pairs["ensemble"]):
        its = preferred.loc[pairs.index]
        some = its.groupby([pairs[key] for key in keys], sort=False).transform("any")
        pairs = pairs[its | ~some]
    return pairs


def cell_means(
    used: pd.DataFrame, keys: Sequence[str], columns: Sequence[str], of_one: Sequence[str]
) -> pd.DataFrame:
    """Average `averaged_pairs` over sources, then over targets, so that targets weigh equally.

    Returns:
        One row per cell: `keys`, the means of the `columns` over the pairs that have a value, the
        columns `of_one` if there is only one pair (else NaN), the number of `pairs`, `white`
        (whether there are only white boxes), and `least` and `most`, the range of image counts.
    """
    by_target = used.groupby(list(dict.fromkeys([*keys, "target"])), sort=False)
    means = by_target[[*columns]].mean().groupby(list(keys), sort=False).mean()
    cells = used.assign(white=used["relation"] != TRANSFER).groupby(list(keys), sort=False)
    counts = cells.agg(
        pairs=("white", "size"),
        white=("white", "all"),
        least=("denominator", "min"),
        most=("denominator", "max"),
    )
    one = cells[[*of_one]].first().where(counts["pairs"] == 1)
    return means.join(one).join(counts).reset_index()


def with_partial(cells: pd.DataFrame, used: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Add `partial`: whether a mean over sources or targets lacks one that another mean has.

    It lacks no white box, and no ensemble unless there is nothing else. `used` are the pairs that
    the means count, see `averaged_pairs`.
    """
    averaged = [axis for axis in ("source", "target") if axis not in keys]
    if "source" in averaged and not used["ensemble"].all():
        used = used[~used["ensemble"]]
    has = defaultdict[tuple[Any, ...], set[tuple[str, ...]]](set)
    counted = used[used["relation"] == TRANSFER]
    for row in counted[[*keys, *averaged]].itertuples(index=False, name=None):
        has[row[: len(keys)]].add(row[len(keys) :])
    every = set[tuple[str, ...]]().union(*has.values())

    def lacks(cell: tuple[Any, ...], names: tuple[str, ...]) -> bool:
        place = dict(zip([*keys, *averaged], [*cell, *names], strict=True))
        return relation(*map(ModelRef.parse, (place["source"], place["target"]))) == TRANSFER

    rows = cells[[*keys]].itertuples(index=False, name=None)
    partial = [any(lacks(cell, names) for names in every - has[cell]) for cell in rows]
    return cells.assign(partial=np.array(partial, bool) & ~cells["white"])


def _where(rows: pd.DataFrame, place: Mapping[Hashable, str]) -> pd.DataFrame:
    """Return the rows with these values in these columns."""
    for key, name in place.items():
        rows = rows[rows[key] == name]
    return rows


def cells_of(jobs: Sequence[JobSummary], spec: TableSpec) -> TableCells:
    """Collect the cells of attacked jobs.

    Raises:
        ValueError: The jobs lack the budget, protocol or defence; or a cell would combine several
            attacks or several defences of sources.
    """
    pairs, outcomes = [], defaultdict[str, list[ImageOutcomes]](list)
    for summary in jobs:
        parts = []
        for seed in summary.seeds or [summary]:
            parts.append(_at(seed, spec))
            record = seed.job.record
            eps = record.reference if spec.eps_255 is None else spec.eps_255
            protocol = spec.protocol or record.protocol
            names = (summary.job.attack, record.source, record.targets, protocol)
            outcomes[summary.group].append(image_outcomes(seed.job.defended, *names)[eps])
            seed.job.forget()
        rows = mean_over_seeds(pd.concat(parts)) if summary.seeds else parts[0]
        for seed, part in zip(summary.seeds, parts, strict=False):
            rows[f"seed={seed.job.record.seed}"] = part.get(VALUES[spec.value].column)
        pairs.append(rows)
    every, groups = pd.concat(pairs, ignore_index=True), list(map(joined, outcomes.values()))
    every[COUNTS] = format_cells(every)
    if spec.defence is not None:
        if spec.defence not in (known := list(every["defence"].unique())):
            raise ValueError(f"defence={spec.defence}: choose from {', '.join(known)}.")
        every = every[every["defence"] == spec.defence]
        groups = [outcome.select(defence=spec.defence) for outcome in groups]
    if "defence" not in spec.keys and every["defence"].nunique() > 1:
        spec = replace(spec, rows=(*spec.rows, "defence"))
    _check_means(every, spec.keys)
    clean = _clean(jobs, every, spec) if spec.clean else pd.DataFrame()
    return TableCells(every, groups, clean, spec)


def _clean(jobs: Sequence[JobSummary], pairs: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Return the row of accuracies on all clean images, or one row per defence in the rows.

    Raises:
        ValueError: The jobs have different clean images.
    """
    rates, ends = primary_rates(jobs), {"": "value", "_low": "low", "_high": "high"}
    rates = rates.assign(k=rates["still_correct"], n=rates["denominator"])
    columns = [*spec.columns, *(axis for axis in spec.rows if axis == "defence")]
    rows = clean_rows(rates, columns)
    if rows.empty:
        raise ValueError("clean needs jobs with the same clean images.")
    rows = rows.assign(**{end: rows[f"robust_accuracy{name}"] for name, end in ends.items()})
    rows[COUNTS] = format_cells(rows.assign(success_rate_sd=np.nan))
    marks = dict.fromkeys(("white", "partial", "best", "undecided"), False)
    first, *others = (axis for axis in spec.rows if axis not in columns)
    place = dict.fromkeys(others, "") | {first: CLEAN}
    cells = rows[[*columns, *ends.values(), COUNTS]].merge(pairs[columns].drop_duplicates())
    return cells.assign(**place, **marks)


def _check_means(pairs: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raise a `ValueError` if a cell combines several attacks or defended sources."""
    several = {"attack": list(pairs["attack"].unique())}
    several["source"] = [f"sources behind {name}" for name in pairs["source_defence"].unique()]
    for axis, names in several.items():
        if axis not in keys and len(names) > 1:
            raise ValueError(f"add {axis} to rows or columns: there are {', '.join(names)}.")


def _differences(means: pd.DataFrame, column: str) -> pd.DataFrame:
    """Compute the column of differences between each averaged attack and the first."""
    cells = means.dropna(subset=DIFFERENCE).drop(columns=seeds_of(means))
    ends = dict(zip(("value", "low", "high"), (cells[name] for name in _ENDS), strict=True))
    marks = dict.fromkeys(("best", "undecided", "partial"), False)
    return cells.assign(**ends, **marks, **{column: DIFFERENCE})


def _at(summary: JobSummary, spec: TableSpec) -> pd.DataFrame:
    """Return the rates of a job with one seed, and the size of its perturbations if known."""
    job, record = summary.job, summary.job.record
    eps = record.reference if spec.eps_255 is None else spec.eps_255
    counted, rates = spec.protocol or record.protocol, primary_rates([summary])
    rates = rates[rates["eps_255"] > 0]
    at = rates[(rates["eps_255"] == eps) & (rates["protocol"] == counted)]
    if at.empty:
        known = [", ".join(map(str, rates[key].unique())) for key in ("eps_255", "protocol")]
        raise ValueError(
            f"eps_255={eps:g}, protocol={counted}: {job.attack} on {record.source} has the "
            f"budgets {known[0]} and the protocols {known[1]}."
        )
    if "visibility" in job.files:
        at = at.merge(mean_visibility(job.table("visibility")).drop(columns="images"), on="eps_255")
    return at.reset_index(drop=True)
