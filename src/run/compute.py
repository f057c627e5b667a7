"""Rows of cells: those in the cache, and those that are computed because it lacks them."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from src.cache.rows import Rows
from src.images.attacker import AdversarialSource, Attacker
from src.measure.protocol import Cell, Measurement
from src.run.adversarial_images import adversarial_source, attacked_again
from src.run.lightning_module import CacheWriter
from src.run.predict import predict
from src.run.stages import Pass
from src.run.stored_rows import find_missing, places, read_rows
from src.utils.processes import from_first_process, is_first_process, sum_of_processes

log = logging.getLogger(__name__)


@dataclass
class Computed:
    """Rows of cells, which the first process alone has.

    Attributes:
        seconds: Seconds that all rows took; NaN where some were stored.
        batch_size: Images in a batch; 0 where all rows were stored.
        gradients: Number of gradients that were taken now.
    """

    rows: dict[Cell, pa.Table] = field(default_factory=dict)
    seconds: float = math.nan
    batch_size: int = 0
    gradients: int = 0


def compute(
    job: Pass, cells: Mapping[Cell, Measurement], cache: Rows, *, attacked: bool
) -> Computed:
    """Return the rows of cells, of which those that are not stored are computed."""
    result, size = Computed(), int(job.settings.trainer.batch_size)
    with ExitStack() as locks:
        if is_first_process():
            if job.settings.rerun:
                for (origin, table), keys in places(job, cells).items():
                    cache.discard(origin, table, [key for key, _ in keys])
            result.rows = read_rows(job, cells, cache)
            if incomplete := find_missing(cells, result.rows):
                locks.enter_context(cache.locked([job.place(cell)[0] for cell in incomplete]))
                result.rows = read_rows(job, cells, cache)
        missing = _share(cells, find_missing(cells, result.rows))
        if not missing:
            return result
        whole = all(len(missing.get(cell, ())) == len(cell.index) for cell in cells)
        start, source, again = time.perf_counter(), None, dict[Cell, np.ndarray]()
        if attacked:
            source = adversarial_source(job, missing, cache)
            again = attacked_again(job, missing, cache)
            _log_images(job, again)
            size = min(size, source.max_images or size)
        while missing:
            try:
                predict(job, source, cells, missing, again, CacheWriter(cache, job), size)
            except torch.OutOfMemoryError as error:
                size = _halve(size, source, job.settings.trainer.distributed, error)
                succeeded = False
            else:
                succeeded = True
            if is_first_process():
                for (origin, table), keys in places(job, missing).items():
                    if not any(cell.large for _, cell in keys):
                        cache.merge(origin, table)
                result.rows |= read_rows(job, missing, cache)
            missing = _share(cells, find_missing(cells, result.rows))
            if succeeded and missing:
                raise ValueError(
                    f"cache_dir={job.settings.cache_dir}: rows of {len(missing)} tables are lost; "
                    "all processes of a job need one folder."
                )
    result.seconds = time.perf_counter() - start if whole else math.nan
    result.batch_size = size
    result.gradients = sum_of_processes(source.gradients if isinstance(source, Attacker) else 0)
    return result


def _log_images(job: Pass, again: Mapping[Cell, np.ndarray]) -> None:
    """Log the number of images that are attacked again."""
    if again and is_first_process():
        count = len(np.unique(np.concatenate([*again.values()])))
        text = "%s: the adversarial versions of %d images are made again: store.images_mb=%g."
        log.info(text, job.settings.job, count, job.settings.store.images_mb)


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


def _share(cells: Iterable[Cell], missing: Mapping[Cell, np.ndarray]) -> dict[Cell, np.ndarray]:
    """Return what the first process misses: a cell has the same number in all processes."""
    every = list(cells)
    numbers = {every.index(cell): index for cell, index in missing.items()}
    return {every[number]: index for number, index in from_first_process(numbers).items()}
