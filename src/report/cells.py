"""Cells of a table by attack, source, target and defence, with marks for the first attacks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, ValidationError

from ..analysis import CLEAN, MEAN, MEAN_OF, clean_rows, rankings, with_cell_columns
from ..analysis.diagnostics import SIZES
from ..analysis.multiple_comparisons import FEWEST_FOR_WINNER
from ..analysis.quantities import QUANTITIES, Quantity
from ..analysis.ranking import GROUP
from ..analysis.transfer_rates import ANOTHER_TRAINING, TRANSFER, relation
from ..config.errors import refusal
from ..utils.checked_dataclass import checked
from ..utils.formats import format_cells
from ..utils.model_names import NO_DEFENCE, ModelRef
from ..utils.refusals import choose
from .results import Results
from .trainings import check_trainings, over_trainings
from .words import said

AXES = ("attack", "source", "target", "defence", "budget")
Axes = Annotated[Sequence[str], BeforeValidator(lambda x: (x,) if isinstance(x, str) else x)]
_DEFAULT_FIRST = sorted(QUANTITIES.values(), key=lambda quantity: quantity.value != "success")
COUNTS = "counts"
"""Name of the value that shows counts and their rate, as in the transfer matrix."""
VALUES = {quantity.value: quantity for quantity in _DEFAULT_FIRST if quantity.value}
VALUES[COUNTS] = Quantity("rate", "Counts ({counted} / counted = rate)", count="k", value=COUNTS)
"""The quantities that cells can show, by the name that users type."""
AVERAGE, DIFFERENCE = "average", "difference"
_ALONE = {"attack": "attack", "defence": "defence", "source": "source_defence", "budget": "budget"}
"""Columns that are never averaged, by the axis that each belongs to."""
_NEAR = 1e-9
_ENDS = [DIFFERENCE, f"{DIFFERENCE}_low", f"{DIFFERENCE}_high"]
_FOLDED = "has means over trainings: leave out differences and value=counts."
_FLAGS = ["best", "undecided", "untested", "few"]
_KIND = ["relation", "ensemble", "source_defence"]
"""Columns that all pairs of a mean share."""
_PLACE = ["group", "attack", "source", "target", "defence", *_KIND]


@checked
class TableSpec:
    """Contents and layout of a table: the keywords of `src.table`, which explains them.

    Raises:
        ValueError: An argument has an unknown value, or two arguments exclude each other.
    """

    rows: Axes = ("source", "attack")
    columns: Axes = ("target",)
    value: str = "success"
    eps_255: float | None = None
    protocol: str | None = None
    average: bool = True
    white_boxes: bool = True
    intervals: bool = False
    clean: bool = False
    differences: bool = False
    networks: bool = False
    related: bool = True
    defence: str | None = None
    names: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        chosen = {"rows": self.rows, "columns": self.columns, "value": [self.value]}
        for key, names in chosen.items():
            for name in names or [""]:
                choose(key, name, VALUES if key == "value" else AXES)
        if VALUES[self.value].fewest:  # white boxes have no value
            object.__setattr__(self, "white_boxes", False)
        pairs, ranked = {"source", "target"} <= {*self.keys}, "attack" in self.rows
        ranked &= self.value == "success"
        named = "target" in self.columns and {"source", "attack"} & {*self.rows}
        twice = ", ".join(name for name, count in Counter(self.keys).items() if count > 1)
        on_pairs = "value=counts needs source and target in rows or columns."
        clean = "clean needs source or attack in rows, target in columns, and value=accuracy or "
        differences = "differences needs attack in rows, value=success and average=True."
        budgets = "budget" in self.keys
        clean_once = self.clean and "budget" in self.columns
        once = self.value == "gradients" or clean_once
        without = "budget: leave out value=gradients and, with it in columns, clean."
        for reason in said(
            (f"{twice} is in rows and columns twice.", twice),
            (on_pairs, self.value == COUNTS and not pairs),
            (f"{clean}counts.", self.clean and not (named and self.value in (COUNTS, "accuracy"))),
            (differences, self.differences and not (ranked and self.average)),
            ("budget shows all budgets: leave out eps_255.", budgets and self.eps_255),
            (without, budgets and once),
            (f"networks {_FOLDED}", self.networks and (self.differences or self.value == COUNTS)),
        ):
            raise ValueError(reason)
        if self.networks:
            object.__setattr__(self, "intervals", True)

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Return the contents with these keywords; refuse others in one sentence."""
        try:
            return cls(**options)
        except ValidationError as error:
            raise ValueError(refusal(error)) from error

    @property
    def keys(self) -> tuple[str, ...]:
        """The axes of the rows and of the columns."""
        return (*self.rows, *self.columns)


def cells_of(results: Results, spec: TableSpec) -> tuple[TableSpec, pd.DataFrame, pd.DataFrame]:
    """Choose the cells of a table from the frame of results.

    Returns:
        The table, with defences in its rows if there are several; its pairs, which are rows of the
        frame; and one row per cell, see `_cells`: clean ones, pairs or means, averages and
        differences.

    Raises:
        ValueError: The jobs lack the budget, protocol, defence or value; or a cell would combine
            several attacks or several kinds of sources.
    """
    rows = _rows_at(results, spec)
    if spec.networks:
        if spec.clean:
            raise ValueError("networks and clean: each training has an accuracy. Leave one out.")
        check_trainings(results.jobs)
        rows = over_trainings(rows, VALUES[spec.value].column)
        if "source" not in spec.keys:  # cells are means over other networks
            rows = rows[rows["target"] != ANOTHER_TRAINING]
    if spec.defence is not None:
        rows = rows[rows["defence"] == choose("defence", spec.defence, rows["defence"].unique())]
    if "defence" not in spec.keys and rows["defence"].nunique() > 1:
        spec = replace(spec, rows=(*spec.rows, "defence"))
    if "attack" not in spec.keys and len(attacks := rows["attack"].unique()) > 1:
        raise ValueError(f"add attack to rows or columns: there are {', '.join(attacks)}.")
    pairs = rows[(rows["source"] != MEAN) & (rows["target"] != MEAN)]
    quantity, columns = VALUES[spec.value], [*spec.columns]
    if (quantity.column in SIZES or quantity.fewest) and pairs[quantity.column].isna().all():
        needs = "no pair has a value. It needs a source that is a target, too (no ensemble), and "
        needs += f"that is fooled on {quantity.fewest} images"
        needs = needs if quantity.fewest else "run the jobs with diagnostics=full"
        raise ValueError(f"value={spec.value}: {needs}.")
    parts = [_clean(results, pairs, spec)] if spec.clean else []
    parts.append(_cells(results, rows, spec, spec.keys))
    several = len(pairs[columns].drop_duplicates()) > 1 and spec.average and spec.value != COUNTS
    alone = [_ALONE[axis] for axis in columns if axis in _ALONE]
    if average := several and all(pairs[name].nunique() == 1 for name in alone):
        means = _cells(results, rows, spec, spec.rows)
        blank = dict.fromkeys(columns, "") | {columns[0]: AVERAGE}
        parts.append(means[~means["white"]].assign(**blank, least=np.nan, most=np.nan))
    if spec.differences:
        if not average:
            of = "differences are those of averages over columns of sources or targets."
            others = [axis for axis in columns if axis in ("defence", "budget")]
            way = f"Leave {' and '.join(others)} out of columns" if others else "Name several"
            raise ValueError(f"{of} {way}{', or set defence=none' * ('defence' in others)}.")
        parts.append(_differences(parts[-1], columns[0]))
    body = pd.concat(parts, ignore_index=True)
    body = body.assign(sd=body[seeds_of(body)].std(axis=1).round(12))
    return spec, pairs, body.assign(value=format_cells(body)) if spec.value == COUNTS else body


def seeds_of(cells: pd.DataFrame) -> list[str]:
    """Return the columns with the values for single seeds."""
    return [name for name in cells.columns.unique(0) if name.startswith("seed=")]


def _rows_at(results: Results, spec: TableSpec) -> pd.DataFrame:
    """Return the rows at the table's budget and under its protocol, in the order of the jobs."""
    rows = with_cell_columns(results.primary_rows[results.primary_rows["eps_255"] > 0])
    rows = rows.assign(budget=rows["eps_255"].map("{:g}/255".format))
    axes = ["protocol"] if "budget" in spec.keys else ["eps_255", "protocol"]
    places = rows[rows["reference"]].groupby("group")[axes].first()
    chosen = {"eps_255": spec.eps_255, "protocol": spec.protocol}
    places = places.assign(**{name: of for name, of in chosen.items() if of is not None})
    asked = places.loc[rows["group"]].set_axis(rows.index)
    at = rows[(rows[[*places]] == asked).all(axis=1)]
    jobs = rows[rows["source"] != MEAN].set_index(["group", "attack", "source"])
    lacking = jobs[~jobs.index.isin(at.set_index(jobs.index.names).index)]
    if len(lacking):
        (group, attack, source), rest = lacking.index[0], lacking.loc[[lacking.index[0]]]
        at_place = (f"{name}={value}" for name, value in places.loc[group].items())
        choices = [", ".join(map(str, rest[name].unique())) for name in ("eps_255", "protocol")]
        raise ValueError(
            f"{', '.join(at_place).replace('.0,', ',')}: {attack} on {source} has the "
            f"budgets {choices[0]} and the protocols {choices[1]}."
        )
    order = [(row[0].job.attack, row[0].job.record.source) for row in results.attacked]
    ranks = pd.MultiIndex.from_tuples(order).get_indexer(at.set_index(["attack", "source"]).index)
    return at.iloc[np.lexsort((ranks, at["eps_255"] * ("budget" in spec.keys)))]


def _cells(
    results: Results, rows: pd.DataFrame, spec: TableSpec, keys: Sequence[str]
) -> pd.DataFrame:
    """Return the rows that are the cells of these axes.

    These are means over pairs of different networks, or over white boxes if a cell has no others.
    Ensembles and defended sources are in a mean only if a cell has no single source.

    Further columns: `value`; `low` and `high` for a single pair; `white`, whether there are only
    white boxes; `least` and `most`, the range of image counts in all cells; `seed=N`, the value for
    each seed; `partial`, see `_partial`; and marks, see `_marked`.
    """
    names, quantity = [*keys], VALUES[spec.value]
    pairs, cells = rows[(rows["source"] != MEAN) & (rows["target"] != MEAN)], rows
    for axis in ("source", "target"):
        cells = cells[(cells[axis] != MEAN) == (axis in names)]
    for preferred in (cells["relation"] == TRANSFER, single_sources(cells)):
        best = preferred.loc[cells.index]
        some = best.groupby([cells[name] for name in names], sort=False).transform("any")
        cells = cells[best | ~some]
    if cells.duplicated(names).any():
        raise ValueError("add source to rows: a mean would be over several kinds of sources.")
    used = pairs.merge(cells[list(dict.fromkeys([*names, *_KIND]))])
    counted = used.loc[used[quantity.of] >= quantity.fewest, quantity.of]
    columns = {"value": "", "low": "_low", "high": "_high"}
    ends = {name: cells.get(quantity.column + end, np.nan) for name, end in columns.items()}
    cells = cells.assign(**ends, least=counted.min(), most=counted.max())
    cells = pairs[names].drop_duplicates().merge(cells, how="left", on=names)
    cells = _with_seeds(cells, results, quantity.column)
    white = cells["relation"].notna() & (cells["relation"] != TRANSFER)
    used = used[used[quantity.column].notna() & (used["relation"] == TRANSFER)]
    cells = cells.assign(white=white, partial=_partial(cells, used, names) & ~white)
    if "attack" in names and spec.value in ("success", "accuracy") and not spec.networks:
        return _marked(cells, results, spec, names)
    marks = dict.fromkeys(_FLAGS, False) | dict.fromkeys(_ENDS, np.nan)
    return cells.assign(**marks, depends_on="")


def single_sources(rows: pd.DataFrame) -> pd.Series:
    """Return which rows have single sources without a defence."""
    return ~rows["ensemble"] & (rows["source_defence"] == NO_DEFENCE)


def _with_seeds(cells: pd.DataFrame, results: Results, column: str) -> pd.DataFrame:
    """Add `seed=N`, the value for each seed of means over seeds."""
    means = cells[cells["seed"] == MEAN]
    place = [*_PLACE, "variant", "protocol", "eps_255"]
    rows = means[place].merge(results.frame[results.frame["seed"] != MEAN])
    if rows.empty:
        return cells
    values = with_cell_columns(rows).pivot(index=place, columns="seed", values=column)
    return cells.join(values.add_prefix("seed="), on=place)


def _partial(cells: pd.DataFrame, used: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Return which means over sources or targets lack one that another mean has.

    They lack no white box, and no ensemble unless there is nothing else. `used` are the pairs of
    different networks in the means.
    """
    axes = [axis for axis in ("source", "target") if axis not in names]
    if not axes:
        return pd.Series(False, cells.index)
    if "source" in axes and (single := single_sources(used)).any():
        used = used[single]
    whole = cells[[*names]].merge(used[axes].drop_duplicates(), how="cross")
    of_axes = [used.set_index(axis)[f"{axis}_network"] for axis in ("source", "target")]
    networks = pd.concat(of_axes).to_dict()
    sources, targets = (map(ModelRef.parse, whole[axis]) for axis in ("source", "target"))
    kinds = [relation(*pair, networks) for pair in zip(sources, targets, strict=True)]
    others = np.array([kind == TRANSFER for kind in kinds], bool)
    counts = [of.groupby([*names], sort=False).size() for of in (used, whole[others])]
    here, all_ = (count.reindex(pd.MultiIndex.from_frame(cells[[*names]])) for count in counts)
    return pd.Series(here.fillna(0).to_numpy() < all_.fillna(0).to_numpy(), cells.index)


def _marked(
    cells: pd.DataFrame, results: Results, spec: TableSpec, names: Sequence[str]
) -> pd.DataFrame:
    """Mark the `best` attacks, those `undecided` (not significantly weaker) and the `untested`.

    Best attacks over too few images for a winner are `few`, and `depends_on` is the ranking's.

    The marks, and the `difference` from the first with its simultaneous interval, are those of the
    ranking of the sources, the target and the defence that a cell names. What it does not rank has
    no marks: white boxes, means that lack a pair, and means over several ensembles. A ranking has
    no marks either if its means are over other images than the cells.
    """
    ranked = list[pd.DataFrame]()
    targets = [{"target": name} for name in cells["target"].unique()] if "target" in names else [{}]
    at = cells.dropna(subset="eps_255").set_index("budget")["eps_255"].to_dict()
    budgets = at.items() if "budget" in names else [("", spec.eps_255)]
    for where, (budget, eps_255) in product(targets, budgets):
        for group, outcomes in results.outcomes(eps_255, spec.protocol).items():
            of_group = rankings(outcomes.select(**where))
            ranked.append(of_group.assign(group=group, **where, budget=budget))
    marks = pd.concat(ranked)
    axes = (name for name in ("source", "target", "budget") if name in names)
    keys = ["group", *GROUP, "defence", *axes]
    of_means = marks["source"].str.startswith(MEAN_OF)
    alone = marks.groupby(keys)["source"].transform("nunique") == 1
    marks = marks[(~of_means if "source" in names else of_means | alone) & marks["rank"].notna()]
    if spec.value == "accuracy":  # tests are of success, which is not its complement
        marks = marks[~marks["targeted"].astype(bool)]
    rows = marks.groupby(keys)
    unlike = rows["mean"].transform("nunique") > 1
    tested = unlike & (rows["p"].transform("count") > 0)
    best = unlike & (marks["mean"] == rows["mean"].transform("max"))
    undecided = marks["undecided"].astype(bool) & tested & ~best
    few = best & (marks["images"] < FEWEST_FOR_WINNER)
    marks = marks.assign(best=best, undecided=undecided, untested=unlike & ~tested, few=few)
    marks = marks[["attack", *keys, "mean", "depends_on", *_FLAGS, *_ENDS]]
    defended = cells["source_defence"].notna() & (cells["source_defence"] != NO_DEFENCE)
    cells = cells.assign(source_defended=defended).merge(marks, how="left", on=["attack", *keys])
    values = cells["value"] if spec.value == "success" else 1 - cells["value"]
    other = (values - cells.pop("mean")).abs() > _NEAR
    other = other.groupby([cells[name] for name in keys], dropna=False).transform("any")
    cells[_ENDS + _FLAGS] = cells[_ENDS + _FLAGS].mask(other)
    return cells.assign(**{name: cells[name].eq(True) & ~cells["white"] for name in _FLAGS})


def _clean(results: Results, pairs: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Return the row of accuracies on all clean images, or one row per defence in the rows.

    Raises:
        ValueError: The jobs have different clean images.
    """
    rates, ends = results.select(), {"": "value", "_low": "low", "_high": "high"}
    rates = rates[(rates["source"] != MEAN) & (rates["target"] != MEAN)]
    rates = rates.assign(k=rates["still_correct"].round(9), n=rates["denominator"].round(9))
    columns = [*spec.columns, *(axis for axis in spec.rows if axis == "defence")]
    rows = clean_rows(rates, columns)
    if rows.empty:
        raise ValueError("clean needs jobs with the same clean images.")
    rows = rows.assign(**{end: rows[f"robust_accuracy{name}"] for name, end in ends.items()})
    marks = dict.fromkeys(("white", "partial", *_FLAGS), False)
    first, *others = (axis for axis in spec.rows if axis not in columns)
    place = dict.fromkeys(others, "") | {first: CLEAN}
    cells = rows[[*columns, *ends.values(), "k", "n"]].merge(pairs[columns].drop_duplicates())
    return cells.assign(**place, **marks, success_rate_sd=np.nan)


def _differences(means: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the column of differences between each averaged attack and the first."""
    cells = means.dropna(subset=DIFFERENCE).drop(columns=seeds_of(means))
    ends = dict(zip(("value", "low", "high"), (cells[name] for name in _ENDS), strict=True))
    marks = dict.fromkeys(("best", "undecided", "partial"), False)
    return cells.assign(**ends, **marks, **{column: DIFFERENCE})
