"""The table of transfer: chosen rows, columns and values, with a caption that explains them."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pandas as pd

from ..analysis import CLEAN
from ..analysis.multiple_comparisons import FEWEST_FOR_WINNER, FEWEST_TESTED
from ..analysis.transfer_rates import ANOTHER_TRAINING, TRANSFER
from ..artifacts.record import JobRecord
from ..utils.formats import span
from ..utils.model_names import renamed
from .cells import AVERAGE, DIFFERENCE, VALUES, TableSpec, cells_of, seeds_of, single_sources
from .grid import DAGGER, PARTIAL, Cell, Grid
from .results import Results
from .signature import signature_of
from .words import dependence, said

_MARKS = {"best": "bold", "undecided": "italic", "partial": "partial", "white": "white"}


def transfer_table(results: Results, spec: TableSpec) -> Grid:
    """Lay out values by attack, source, target and defence; see `TableSpec` for the options."""
    spec, pairs, body = cells_of(results, spec)
    caption, legend = _caption(results, pairs, body, spec)
    for axis in spec.keys:
        new = body[axis].map(lambda name: renamed(name, spec.names or {}))
        if new.nunique() < body[axis].nunique():
            raise ValueError("names: two rows or columns would get the same new name.")
        body = body.assign(**{axis: new})
    in_order = body.sort_values([*spec.rows], key=lambda names: pd.factorize(names)[0])
    rows, columns = _places(in_order, spec.rows), _places(body, spec.columns)
    cells: list[list[Any]] = [[*_names(*pair)] for pair in zip(rows, [(), *rows], strict=False)]
    rows_, heads = body[~body["white"] | spec.white_boxes], pd.DataFrame(rows, columns=[*spec.rows])
    data = [heads]
    for place in columns:
        column = heads.merge(rows_[(rows_[[*spec.columns]] == [*place]).all(axis=1)], how="left")
        ends = _ends(column, spec.intervals or place[0] == DIFFERENCE)
        names = [" ".join(filter(None, (*place, end))).removesuffix(" value") for end in ends]
        data.append(column[ends].set_axis(names, axis=1))
        for row, cell in zip(cells, column.to_dict("records"), strict=True):
            row.append(_cell(cell, spec))
    above = [(axis, *[""] * (len(spec.columns) - 1)) for axis in spec.rows] + columns
    notes = _details(results, pairs, spec)
    left, values = range(len(spec.rows)), pd.concat(data, axis=1)
    pairs = pairs[spec.white_boxes | (pairs["relation"] == TRANSFER)]
    line = signature_of(results, pairs, spec.value)
    return Grid(above, cells, caption, legend, notes, left, values, line)


def _places(body: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the names along some axes, in the order of their first cells."""
    return [*body[[*axes]].drop_duplicates().itertuples(index=False, name=None)]


def _names(row: tuple[str, ...], above: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of a row; one is empty if it repeats the name above it."""
    for end, name in enumerate(row, 1):
        yield "" if row[:end] == above[:end] else name


def _ends(cells: pd.DataFrame, intervals: bool) -> list[str]:
    """Return which numbers of a column a CSV has."""
    return said(
        ("value", True),
        *((end, intervals) for end in ("low", "high")),
        *((name, cells[name].notna().any()) for name in ("sd", *seeds_of(cells))),
        ("partial", cells["partial"].eq(True).any()),
    )


def _cell(cell: Mapping[Hashable, Any], spec: TableSpec) -> Cell:
    """Return a cell; one that no row of the body fills has no `white`."""
    if pd.isna(cell["white"]):
        return Cell(None)
    form, signed = VALUES[spec.value].form, cell[spec.columns[0]] == DIFFERENCE

    def text(name: str) -> str:
        return (form.replace(":", ":+z") if signed else form).format(cell[name]).rstrip("%")

    marks = [mark for key, mark in _MARKS.items() if cell.get(key)]
    if pd.isna(cell["value"]):
        return Cell("n/a", ["grey"] * ("white" in marks))
    value, spread = cell["value"], ""
    if not isinstance(value, str):  # counts are a text with their rate and its deviation
        value = text("value")
        spread = "" if pd.isna(cell["sd"]) else f" \N{PLUS-MINUS SIGN} {text('sd')}"
    small = (spec.intervals or signed) and not pd.isna(cell["low"])
    interval = f"[{text('low')}, {text('high')}]" if small else ""
    return Cell(value + spread, marks, interval)


def _leads(cells: pd.DataFrame, spec: TableSpec, names: Mapping[str, str]) -> Iterator[str]:
    """Say of each best attack whose lead depends on one target that it leads on average."""
    depends = cells["best"].eq(True) & cells["depends_on"].fillna("").ne("")
    for row in cells[depends].to_dict("records"):
        source = f" from {renamed(row['source'], names)}" * ("source" in spec.keys)
        targets = ", ".join(renamed(name, names) for name in row["depends_on"].split(", "))
        attack = renamed(row["attack"], names)
        yield f"{attack}{source} leads on average; {dependence(targets)}"


_SINGLE = {"attack": "under", "source": "from", "target": "on"}
"""Prepositions of a caption before what neither rows nor columns name."""
_OF_IMAGES = {name for name, quantity in VALUES.items() if quantity.of_predictions}
_PACKAGES = ("torch", "torchvision", "timm", "transferattack")


def _caption(
    results: Results, pairs: pd.DataFrame, cells: pd.DataFrame, spec: TableSpec
) -> tuple[str, list[str]]:
    """Say what the `shown` cells are, and what the marks mean."""
    names, records = spec.names or {}, [job.record for job in results.jobs if job.attacked]
    average, difference, clean = (names.get(name, name) for name in (AVERAGE, DIFFERENCE, CLEAN))
    places = zip(pairs["eps_255"], pairs["norm"], strict=True)
    budgets = _distinct(f"{eps:g}/255 ({norm})" for eps, norm in places)
    quantity, of_images = VALUES[spec.value], spec.value in _OF_IMAGES
    counted = f"{span((cells['least'].min(), cells['most'].max()))} counted per cell"
    counted += f" ({_distinct(pairs['protocol'])})" * (not quantity.fewest)
    title = quantity.title.format(counted=_distinct(pairs["counted"]))
    hidden = {axis: pairs[axis].unique() for axis in _SINGLE if axis not in spec.keys}
    alone = {axis: of[0] for axis, of in hidden.items() if len(of) == 1}
    single = "".join(f" {_SINGLE[axis]} {renamed(name, names)}" for axis, name in alone.items())
    first = f"{title}{single} at eps = {budgets}, {_distinct(map(_set_of_images, records))}"
    averaged = " and ".join(axis for axis in hidden if axis not in alone) * of_images
    columns, marks = {*cells[spec.columns[0]]}, cells[[*_MARKS, "untested", "few"]].any()
    over_sources = "source" not in (spec.rows if AVERAGE in columns else spec.keys)
    unknown = quantity.fewest > 0 and cells.loc[~cells["white"], "value"].isna().any()
    apart = over_sources and single_sources(pairs).nunique() > 1
    over = "over targets, each over its sources, without white boxes"
    minus = "from the first in the ranking, in points, simultaneous 95 % intervals"
    few = f"source not evaluated, or fooled on fewer than {quantity.fewest} of these images"
    trained = " and other trainings of the source" * (ANOTHER_TRAINING in {*pairs["relation"]})
    legend = said(
        ("bold: the highest success, none where all are equal", marks["best"]),
        (f"below {FEWEST_FOR_WINNER} images bold names no winner (fixed floor)", marks["few"]),
        *((text, True) for text in dict.fromkeys(_leads(cells, spec, names))),
        ("italic: not significantly weaker (5 %)", marks["undecided"]),
        (f"below {FEWEST_TESTED} common images nothing is tested", marks["untested"]),
        (f"{DAGGER}: white boxes{trained}", spec.white_boxes and marks["white"]),
        ("without white boxes", not spec.white_boxes),
        ("without related pairs", not spec.related),
        (f"cells: means over {averaged}s without white boxes", averaged),
        (f"{average}: {over}{trained}", AVERAGE in columns),
        ("means over sources: without ensembles and sources behind a defence", apart),
        (f"{difference}: {minus}", DIFFERENCE in columns),
        (f"n/a: {few}", unknown),
        ("in brackets: 95 % intervals", spec.intervals and not spec.networks),
        ("means over trainings, in brackets the range of their pairs", spec.networks),
        (f"{clean}: accuracy on all clean images", spec.clean),
        ("\N{PLUS-MINUS SIGN}: standard deviation over the seeds", cells["sd"].notna().any()),
        (f"{PARTIAL}: mean over fewer sources or targets than others", marks["partial"]),
    )
    return first + f", {counted}" * of_images, legend


def _details(results: Results, pairs: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Return what the signature does not name: sizes of perturbations, and libraries."""
    records = [job.record for job in results.jobs if job.attacked]
    sizes: Any = pairs.groupby(["attack", "group"], sort=False)["rms_255"].mean().dropna()
    one_budget = spec.value in _OF_IMAGES and "budget" not in spec.keys
    visible = _distinct(f"{attack} {size:.2f}" for (attack, _), size in sizes.items())
    return said(
        (f"RMS change in 1/255: {visible}", one_budget and len(sizes) > 1),
        (_distinct(chain.from_iterable(map(_versions, records))), True),
    )


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _set_of_images(record: JobRecord) -> str:
    of = f" of {record.dataset}" * (record.dataset != "images")  # tensors have no other name
    return f"{record.images} images{of}"


def _versions(record: JobRecord) -> list[str]:
    versions = [f"{name} {record.versions[name]}" for name in _PACKAGES if name in record.versions]
    return [*versions, record.program[:19]]
