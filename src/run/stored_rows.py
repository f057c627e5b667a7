"""Rows of a job that the cache holds."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from src.cache.rows import Rows
from src.measure.protocol import Cell
from src.run.stages import Pass

_IDENTITY = ["key", "index", "image"]


def places(job: Pass, cells: Iterable[Cell]) -> dict[tuple[str, str], list[tuple[str, Cell]]]:
    """Return the cells with their keys, for each place of a table in the cache.

    Cells of two names for one model have the same key.
    """
    places: dict[tuple[str, str], list[tuple[str, Cell]]] = {}
    for cell in cells:
        origin, key = job.place(cell)
        places.setdefault((origin, cell.table), []).append((key, cell))
    return places


def read_rows(job: Pass, cells: Iterable[Cell], cache: Rows) -> dict[Cell, pa.Table]:
    """Return the rows of the job's images by cell, where there are any; of large ones the names."""
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
    """Return the index of the images without rows by cell, where there are any."""
    missing = {
        cell: np.setdiff1d(cell.index, rows[cell]["index"].to_numpy() if cell in rows else [])
        for cell in cells
    }
    return {cell: index for cell, index in missing.items() if len(index)}
