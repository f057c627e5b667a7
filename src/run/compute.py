"""Rows of cells: those in the cache, and those that are computed because it lacks them."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import torch

from src.cache.rows import Rows
from src.images.attacker import AdversarialSource
from src.measure.protocol import Cell, Measurement
from src.run.adversarial_images import adversarial_source
from src.run.lightning_module import CacheWriter
from src.run.predict import predict
from src.run.stages import Pass
from src.utils.processes import from_first_process, is_first_process

log = logging.getLogger(__name__)


def compute(
    job: Pass, cells: Mapping[Cell, Measurement], cache: Rows, *, attacked: bool
) -> tuple[dict[Cell, pa.Table], float, int]:
    """Return the rows of cells, the seconds that all took if none was stored, and the batch size.

    Only the first process gets rows.
    """
    keys, rows, seconds = {cell: job.key(cell) for cell in cells}, dict[Cell, pa.Table](), math.nan
    size = int(job.settings.trainer.batch_size)
    with ExitStack() as locks:
        if is_first_process():
            if job.settings.rerun:
                cache.discard(keys.values())
            rows = _read(cells, keys, cache)
            if incomplete := [keys[cell] for cell in _find_missing(cells, rows)]:
                locks.enter_context(cache.locked(incomplete))
                rows = _read(cells, keys, cache)
        missing = _share(cells, _find_missing(cells, rows))
        if not missing:
            return rows, seconds, 0
        whole = all(len(missing.get(cell, ())) == len(cell.index) for cell in cells)
        start, source = time.perf_counter(), None
        if attacked:
            source = adversarial_source(job, missing, cache)
            size = min(size, source.max_images or size)
        while missing:
            try:
                predict(job, source, cells, missing, CacheWriter(cache, keys, job.images), size)
            except torch.OutOfMemoryError as error:
                size = _halve(size, source, job.settings.trainer.distributed, error)
                succeeded = False
            else:
                succeeded = True
            if is_first_process():
                rows |= _read({cell: cells[cell] for cell in missing}, keys, cache)
                for cell in missing:
                    if not cell.large and cell in rows:
                        cache.replace(keys[cell], rows[cell])
            missing = _share(cells, _find_missing(cells, rows))
            if succeeded and missing:
                raise ValueError(
                    f"cache_dir={job.settings.cache_dir}: rows of {len(missing)} tables are lost; "
                    "all processes of a job need one folder."
                )
        return rows, time.perf_counter() - start if whole else math.nan, size


def _halve(
    size: int, source: AdversarialSource | None, distributed: bool, error: BaseException
) -> int:
    """Return half a batch size that needs more memory than there is."""
    if size == 1 or distributed:
        text = f"trainer.batch_size={size} needs more memory than the device has."
        raise ValueError(text) from error
    log.warning("Out of memory: going on with batches of %d images, not %d.", size // 2, size)
    if source is not None and source.max_batch:
        source.max_batch = max(1, source.max_batch // 2)
    return size // 2


def _read(
    cells: Mapping[Cell, Measurement], keys: Mapping[Cell, str], cache: Rows
) -> dict[Cell, pa.Table]:
    """Return the rows of cells that have some, of large ones the index alone."""
    tables = {cell: cache.read(keys[cell], ["index"] if cell.large else None) for cell in cells}
    return {cell: table for cell, table in tables.items() if table is not None}


def _find_missing(cells: Iterable[Cell], rows: Mapping[Cell, pa.Table]) -> dict[Cell, np.ndarray]:
    """Return the index of the images without rows by cell, where there are any."""
    missing = {
        cell: np.setdiff1d(cell.index, rows[cell]["index"].to_numpy() if cell in rows else [])
        for cell in cells
    }
    return {cell: index for cell, index in missing.items() if len(index)}


def _share(cells: Iterable[Cell], missing: Mapping[Cell, np.ndarray]) -> dict[Cell, np.ndarray]:
    """Return what the first process misses: a cell has the same place in all processes."""
    every = list(cells)
    places = {every.index(cell): index for cell, index in missing.items()}
    return {every[place]: index for place, index in from_first_process(places).items()}
