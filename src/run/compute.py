"""Rows of requests: read from the cache, and computed where they are missing."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ..cache.rows import Rows
from ..images.attacker import AdversarialSource, Attacker
from ..measure.protocol import Measurement, RowRequest
from ..utils.devices import is_out_of_memory
from ..utils.processes import from_first_process, is_first_process, sum_of_processes
from .adversarial_images import adversarial_source, attacked_again
from .lightning_module import CacheWriter
from .predict import predict
from .stages import JobContext
from .stored_rows import find_missing, find_work, places, read_rows

log = logging.getLogger(__name__)


@dataclass
class Computed:
    """Rows of requests; only the first process has them.

    Attributes:
        seconds: Seconds to compute all rows; NaN if some were stored.
        batch_size: Images per batch; 0 if all rows were stored.
        gradients: Number of gradients computed in this run.
        kernels: Names of kernels in this run that are not deterministic.
    """

    rows: dict[RowRequest, pa.Table] = field(default_factory=dict)
    seconds: float = math.nan
    batch_size: int = 0
    gradients: int = 0
    kernels: set[str] = field(default_factory=set)


def compute(
    job: JobContext,
    requests: Mapping[RowRequest, Measurement],
    cache: Rows,
    *,
    attacked: bool,
    rerun: bool,
) -> Computed:
    """Return the rows of requests; compute those that are not stored or, with `rerun`, all."""
    result, size = Computed(), int(job.settings.trainer.batch_size)
    with ExitStack() as locks:
        if is_first_process():
            if rerun:
                for (origin, table), keys in places(job, requests).items():
                    cache.discard(origin, table, [key for key, _ in keys])
            result.rows, incomplete = find_work(job, requests, cache, rerun)
            if incomplete:
                locks.enter_context(cache.locked([job.place(request)[0] for request in incomplete]))
                result.rows = read_rows(job, requests, cache)
        missing = _share(requests, find_missing(requests, result.rows))
        if not missing:
            return result
        none_stored = all(
            len(missing.get(request, ())) == len(request.index) for request in requests
        )
        start, source, again = time.perf_counter(), None, dict[RowRequest, np.ndarray]()
        if attacked:
            source = adversarial_source(job, missing, cache)
            again = attacked_again(job, missing, cache)
            _log_images(job, again)
            size = min(size, source.max_images or size)
        while missing:
            try:
                writer = CacheWriter(cache, job)
                predict(job, source, requests, missing, again, writer, size, result.kernels)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                size = _halve(size, source, error)
                succeeded = False
            else:
                succeeded = True
            if is_first_process():
                for (origin, table), keys in places(job, missing).items():
                    if not any(request.streamed for _, request in keys):
                        cache.merge(origin, table)
                result.rows |= read_rows(job, missing, cache)
            missing = _share(requests, find_missing(requests, result.rows))
            if succeeded and missing:
                raise ValueError(
                    f"cache.dir={job.settings.cache.dir}: rows of {len(missing)} tables are "
                    "missing. All processes of a job need the same folder."
                )
    result.seconds = time.perf_counter() - start if none_stored else math.nan
    result.batch_size = size
    result.gradients = sum_of_processes(source.gradients if isinstance(source, Attacker) else 0)
    return result


def _log_images(job: JobContext, again: Mapping[RowRequest, np.ndarray]) -> None:
    """Log the number of images that are attacked again."""
    if again and is_first_process():
        count = len(np.unique(np.concatenate([*again.values()])))
        text = "%s: attacking %d images again, as they are not stored (cache.images_mb=%g)."
        log.info(text, job.settings.job, count, job.settings.cache.images_mb)


def _halve(size: int, source: AdversarialSource | None, error: BaseException) -> int:
    """Return half the batch size after an out-of-memory error; refuse if it cannot be halved."""
    apart = source is None or source.images_apart
    if size == 1 or not apart:  # other batches would be other rows
        text = f"trainer.batch_size={size} needs more memory than the device has. Lower it."
        raise ValueError(text) from error
    log.warning("Out of memory: continuing with batches of %d images, not %d.", size // 2, size)
    if source is not None and source.max_batch:
        source.max_batch = max(1, source.max_batch // 2)
    return size // 2


def _share(
    requests: Iterable[RowRequest], missing: Mapping[RowRequest, np.ndarray]
) -> dict[RowRequest, np.ndarray]:
    """Return the missing images of the first process; requests have the same order in all."""
    every = list(requests)
    numbers = {every.index(request): index for request, index in missing.items()}
    return {every[number]: index for number, index in from_first_process(numbers).items()}
