"""Rows of a job that are stored in the cache."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..cache.rows import Rows
from ..measure.protocol import RowRequest
from .stages import JobContext

_IDENTITY = ["key", "index", "image"]


def places(
    job: JobContext, requests: Iterable[RowRequest]
) -> dict[tuple[str, str], list[tuple[str, RowRequest]]]:
    """Return (key, request) pairs by place of the table in the cache.

    If a model has two names, the requests for both have the same key.
    """
    places: dict[tuple[str, str], list[tuple[str, RowRequest]]] = {}
    for request in requests:
        origin, key = job.place(request)
        places.setdefault((origin, request.table), []).append((key, request))
    return places


def read_rows(
    job: JobContext, requests: Iterable[RowRequest], cache: Rows
) -> dict[RowRequest, pa.Table]:
    """Return the stored rows by request, without empty ones; if streamed, key columns alone."""
    rows = dict[RowRequest, pa.Table]()
    for (origin, name), keys in places(job, requests).items():
        streamed = any(request.streamed for _, request in keys)
        table = cache.read(origin, name, _IDENTITY if streamed else None)
        if table is None:
            continue
        paired = any(request.paired for _, request in keys)
        table = table.filter(pa.array(job.images.holds(table["index"], table["image"], paired)))
        if paired:
            own = pc.utf8_slice_codeunits(table["image"], 0, 16)
            table = table.set_column(table.column_names.index("image"), "image", own)
        for key, request in keys:
            if len(part := table.filter(pc.equal(table["key"], key))):
                rows[request] = part.drop_columns("key")
    return rows


def find_missing(
    requests: Iterable[RowRequest], rows: Mapping[RowRequest, pa.Table]
) -> dict[RowRequest, np.ndarray]:
    """Return the indices of images without rows, int64 (n,), by request with missing rows."""
    missing = {
        request: np.setdiff1d(
            request.index, rows[request]["index"].to_numpy() if request in rows else []
        )
        for request in requests
    }
    return {request: index for request, index in missing.items() if len(index)}
