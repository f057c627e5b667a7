"""Rows of a job that are stored in the cache."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from src.cache.rows import Rows
from src.measure.protocol import Cell
from src.run.stages import JobContext

_IDENTITY = ["key", "index", "image"]


def places(job: JobContext, cells: Iterable[Cell]) -> dict[tuple[str, str], list[tuple[str, Cell]]]:
    """Return (key, cell) pairs by place of the table in the cache.

    If a model has two names, the cells for both have the same key.
    """
    places: dict[tuple[str, str], list[tuple[str, Cell]]] = {}
    for cell in cells:
        origin, key = job.place(cell)
        places.setdefault((origin, cell.table), []).append((key, cell))
    return places


def read_rows(job: JobContext, cells: Iterable[Cell], cache: Rows) -> dict[Cell, pa.Table]:
    """Return the stored rows by cell, without empty cells; for large tables only key columns."""
    rows = dict[Cell, pa.Table]()
    for (origin, name), keys in places(job, cells).items():
        large = any(cell.large for _, cell in keys)
        table = cache.read(origin, name, _IDENTITY if large else None)
        if table is None:
            continue
        table = table.filter(pa.array(job.images.holds(table["index"], table["image"])))
        for key, cell in keys:
            if len(part := table.filter(pc.equal(table["key"], key))):
                rows[cell] = part.drop_columns("key")
    return rows


def find_missing(cells: Iterable[Cell], rows: Mapping[Cell, pa.Table]) -> dict[Cell, np.ndarray]:
    """Return the indices of images without rows, int64 (n,), by cell; complete cells are absent."""
    missing = {
        cell: np.setdiff1d(cell.index, rows[cell]["index"].to_numpy() if cell in rows else [])
        for cell in cells
    }
    return {cell: index for cell, index in missing.items() if len(index)}
