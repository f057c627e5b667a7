"""The table of transfer: chosen rows, columns and values, with a caption that explains them."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ..analysis import CLEAN
from ..analysis.multiple_comparisons import FEWEST_TESTED
from ..artifacts.record import JobRecord
from ..utils.formats import span
from ..utils.model_names import renamed
from .cells import AVERAGE, DIFFERENCE, VALUES, TableSpec, cells_of, seeds_of, single_sources
from .grid import DAGGER, PARTIAL, Cell, Grid
from .published import add_published
from .results import Results

_MARKS = {"best": "bold", "undecided": "italic", "partial": "partial", "white": "white"}


def transfer_table(results: Results, spec: TableSpec) -> Grid:
    """Lay out values by attack, source, target and defence; see `TableSpec` for the options."""
    spec, pairs, body = cells_of(results, spec)
    published = list[str]()
    if spec.published:
        body, published = add_published(results, pairs, body, spec.keys)
    caption, legend = _caption(results, pairs, body, spec)
    for axis in spec.keys:
        new = body[axis].map(lambda name: renamed(name, spec.names or {}))
        if new.nunique() < body[axis].nunique():
            raise ValueError("names: two rows or columns would get the same new name.")
        body = body.assign(**{axis: pd.Categorical(new, new.unique())})
    rows, columns = _places(body.sort_values([*spec.rows]), spec.rows), _places(body, spec.columns)
    shown, cells = body if spec.white_boxes else body[~body["white"]], dict[Any, Cell]()
    groups = dict(tuple(shown.groupby([*spec.columns], observed=True)))
    for place in columns:
        its = groups.get(place, shown[:0])
        ends = _ends(its, spec.intervals or place[0] == DIFFERENCE)
        cells |= {(row, place): Cell(None, dict.fromkeys(ends)) for row in rows}
        for cell in its.to_dict("records"):
            cells[tuple(cell[axis] for axis in spec.rows), place] = _cell(cell, ends, spec)
    return Grid(
        [(axis, *[""] * (len(spec.columns) - 1)) for axis in spec.rows] + columns,
        [
            [*_names(row, above), *(cells[row, place] for place in columns)]
            for row, above in zip(rows, [(), *rows], strict=False)
        ],
        caption,
        legend,
        _details(results, pairs, spec) + published,
        range(len(spec.rows)),
    )


def _places(body: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the names along some axes, in the order of their first cells."""
    return [*body[[*axes]].drop_duplicates().itertuples(index=False, name=None)]


def _names(row: tuple[str, ...], above: tuple[str, ...]) -> list[Cell]:
    """Return the names of a row; one is empty if it repeats the name above it."""
    ends = range(1, len(row) + 1)
    return [Cell("" if row[:end] == above[:end] else row[end - 1], row[end - 1]) for end in ends]


def _ends(cells: pd.DataFrame, intervals: bool) -> dict[str, str]:
    """Return which numbers of a column a CSV has, by the words behind its head."""
    holds = {
        **dict.fromkeys(("low", "high"), intervals),
        **{name: cells[name].notna().any() for name in ("sd", *seeds_of(cells))},
        "verdict": "verdict" in cells and cells["verdict"].fillna("").ne("").any(),
        "partial": cells["partial"].eq(True).any(),
    }
    return {"": "value"} | {name: name for name, there in holds.items() if there}


def _cell(cell: Mapping[Hashable, Any], ends: Mapping[str, str], spec: TableSpec) -> Cell:
    form, signed = VALUES[spec.value].form, cell[spec.columns[0]] == DIFFERENCE

    def text(name: str) -> str:
        return (form.replace(":", ":+z") if signed else form).format(cell[name]).rstrip("%")

    marks = [mark for key, mark in _MARKS.items() if cell.get(key)]
    verdict = cell.get("verdict") or ""
    note, values = f"({verdict})" * bool(verdict), {end: cell[name] for end, name in ends.items()}
    if pd.isna(cell["value"]):
        return Cell("n/a", values, ["grey"] * bool(verdict or "white" in marks), "", note)
    shown, spread = cell["value"], ""
    if not isinstance(shown, str):  # counts are a text with their rate and its deviation
        shown = text("value")
        spread = "" if pd.isna(cell["sd"]) else f" \N{PLUS-MINUS SIGN} {text('sd')}"
    small = (spec.intervals or signed) and not pd.isna(cell["low"])
    interval = f"[{text('low')}, {text('high')}]" if small else ""
    return Cell(shown + spread, values, [*marks, *["grey"] * bool(verdict)], interval, note)


_SINGLE = {"attack": "under", "source": "from", "target": "on"}
"""Prepositions of a caption before what neither rows nor columns name."""
_OF_IMAGES = {name for name, quantity in VALUES.items() if quantity.of_predictions}
_PACKAGES = ("transferability", "torch", "torchvision", "timm", "transferattack")


def _caption(
    results: Results, pairs: pd.DataFrame, shown: pd.DataFrame, spec: TableSpec
) -> tuple[str, list[str]]:
    """Say what the `shown` cells are, and what the marks mean."""
    names, records = spec.names or {}, [job.record for job in results.jobs if job.attacked]
    average = names.get(AVERAGE, AVERAGE)
    budgets = _distinct(
        f"{eps:g}/255 ({norm})" for eps, norm in zip(pairs["eps_255"], pairs["norm"], strict=True)
    )
    of = _distinct(map(_set_of_images, records))
    least, most = shown["least"].min(), shown["most"].max()
    quantity = VALUES[spec.value]
    counted = f"{span((least, most))} counted per cell"
    counted += f" ({_distinct(pairs['protocol'])})" * (not quantity.fewest)
    title = quantity.title.format(counted=_distinct(pairs["counted"]))
    hidden = {axis: pairs[axis].unique() for axis in _SINGLE if axis not in spec.keys}
    alone = {axis: its[0] for axis, its in hidden.items() if len(its) == 1}
    single = "".join(f" {_SINGLE[axis]} {renamed(its, names)}" for axis, its in alone.items())
    first = f"{title}{single} at eps = {budgets}, {of}"
    of_images = spec.value in _OF_IMAGES
    averaged = [axis for axis, its in hidden.items() if len(its) > 1] * of_images
    average_shown = AVERAGE in set(shown[spec.columns[0]])
    over_sources = "source" not in (spec.rows if average_shown else spec.keys)
    marks = {
        "bold: the best attack": bool(shown["best"].any()),
        "italic: not significantly weaker (5 %)": bool(shown["undecided"].any()),
        f"below {FEWEST_TESTED} common images nothing is tested": (
            shown["untested"].eq(True).any()
        ),
        f"{DAGGER}: white boxes": spec.white_boxes and bool(shown["white"].any()),
        "without white boxes": not spec.white_boxes,
        "without related pairs": not spec.related,
        f"cells: means over {' and '.join(averaged)}s without white boxes": bool(averaged),
        f"{average}: over targets, each over its sources, without white boxes": average_shown,
        "means over sources: without ensembles and sources behind a defence": (
            over_sources and single_sources(pairs).nunique() > 1
        ),
        f"{names.get(DIFFERENCE, DIFFERENCE)}: from the first in the ranking, in points, "
        "simultaneous 95 % intervals": (DIFFERENCE in set(shown[spec.columns[0]])),
        f"n/a: source not evaluated, or fooled on fewer than {quantity.fewest} of these images": (
            quantity.fewest > 0 and bool(shown.loc[~shown["white"], "value"].isna().any())
        ),
        "in brackets: 95 % intervals": spec.intervals,
        f"{names.get(CLEAN, CLEAN)}: accuracy on all clean images": spec.clean,
        "\N{PLUS-MINUS SIGN}: standard deviation over the seeds": bool(shown["sd"].notna().any()),
        f"{PARTIAL}: mean over fewer sources or targets than others": bool(shown["partial"].any()),
    }
    first += f", {counted}" * of_images
    return first, [mark for mark, holds in marks.items() if holds]


def _details(results: Results, pairs: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Return what the numbers depend on, one line each: images, steps, weights, seeds, versions."""
    records = [job.record for job in results.jobs if job.attacked]
    formats = dict.fromkeys(f"{its.arithmetic}, saved as {its.storage}" for its in records)
    sizes: Any = pairs.groupby(["attack", "group"], sort=False)["rms_255"].mean().dropna()
    lines = {
        f"Images: {_distinct(map(_images, records))}": True,
        f"RMS change in 1/255: {_distinct(f'{k} {v:.2f}' for (k, _), v in sizes.items())}": (
            spec.value in _OF_IMAGES and len(sizes) > 1
        ),
        f"Steps: {_distinct(filter(None, map(_steps, records)))}": any(map(_steps, records)),
        f"Weights: {_distinct(model for record in records for model in _weights(record))}": True,
        f"Arithmetic: {'; '.join(formats)}": [*formats] != ["float32, saved as float32"],
        f"Seed {_distinct(str(its.seed) for its in records)}": True,
        _distinct(version for record in records for version in _versions(record)): True,
    }
    return [line for line, holds in lines.items() if holds]


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _set_of_images(record: JobRecord) -> str:
    of = f" of {record.dataset}" * (record.dataset != "images")  # tensors have no other name
    return f"{record.images} images{of}"


def _images(record: JobRecord) -> str:
    return f"{_set_of_images(record)} (digest {record.data})"


def _steps(record: JobRecord) -> str:
    """Return the attack with its number of steps and their size, as far as it states them."""
    stated = record.config["attack"]["settings"]
    if not (steps := stated.get("steps")):
        return ""
    size = f" x {stated.get('relative_step_size') or 1 / steps:.3g} eps"
    if fixed := stated.get("step_size_255"):
        size = f" x {fixed:g}/255"
    return f"{record.attack} {steps}{size if 'step_size_255' in stated else ''}"


def _weights(record: JobRecord) -> list[str]:
    """Return each model with the tag of its weights (if any) and their digest."""
    models = []
    for name, digest in record.weights.items():
        if name in record.config["model"]:  # an ensemble has no settings
            network = record.config["model"][name]["network"]
            tag = network.get("model_name") or network.get("weights")
            models.append(f"{name} ({f'{tag}, ' if tag else ''}{digest[:8]})")
    return models


def _versions(record: JobRecord) -> list[str]:
    versions = [f"{name} {record.versions[name]}" for name in _PACKAGES if name in record.versions]
    return [*versions, record.program[:19]]
