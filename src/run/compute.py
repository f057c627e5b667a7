"""Rows of requests, read from the cache or computed, and a job's adversarial images."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from ..cache.rows import Rows
from ..data import to_unit
from ..images.attacker import AdversarialSource, Attacker
from ..images.saved import SavedImagesSource
from ..images.storage import AttackedImages
from ..measure.attack_cost import AdversarialImages, AttackCost
from ..measure.protocol import Measurement, RowRequest
from ..utils.devices import is_out_of_memory
from ..utils.files import WriteError
from ..utils.processes import from_first_process, is_first_process, sum_of_processes
from .attack import make_attacker
from .stages import JobContext
from .stored_rows import find_missing, places, read_rows


def adversarial_source(
    job: JobContext, missing: Mapping[RowRequest, np.ndarray], cache: Rows
) -> AdversarialSource:
    """Return the source of adversarial images: a saved set, or the attack with its stored images.

    `missing` holds the images without rows, int64 (n,), by request.
    """
    if job.planned.saved is not None:
        return SavedImagesSource(job.planned.saved)
    new = {request.budgets[0]: request for request in missing if request.table == AttackCost.name}

    def stored(index: list[int], eps_255: float) -> Mapping[int, np.ndarray]:
        if eps_255 in new:
            index = np.setdiff1d(index, missing[new[eps_255]]).tolist()
        return stored_images(job, cache, index, eps_255)

    return make_attacker(job, stored)


def attacked_again(
    job: JobContext, missing: Mapping[RowRequest, np.ndarray], cache: Rows
) -> dict[RowRequest, np.ndarray]:
    """Return the images to attack again, by request of attack cost.

    Their cost is known, but their adversarial versions are needed and not stored.
    """
    rows = read_rows(job, AdversarialImages().requests(job, None), cache)
    stored = {request.budgets[0]: table["index"].to_numpy() for request, table in rows.items()}
    again, nothing = dict[RowRequest, np.ndarray](), np.array([], np.int64)
    for request in AttackCost().requests(job, None):
        (eps_255,) = request.budgets
        needing = [key for key in missing if eps_255 in key.budgets]
        new = [missing[key] for key in needing if key.table == AttackCost.name]
        wanted = np.concatenate([*(missing[key] for key in needing), nothing])
        known = np.concatenate([*new, stored.get(eps_255, nothing)])
        if len(index := np.setdiff1d(wanted, known)):
            again[request] = index
    return again


def stored_images(
    job: JobContext, cache: Rows, index: Sequence[int], eps_255: float
) -> dict[int, np.ndarray]:
    """Return the stored adversarial images for one budget, float32 (3, H, W), by index."""
    requests = AdversarialImages().requests(job, None)
    ((origin, key),) = (job.place(request) for request in requests if eps_255 in request.budgets)
    table = cache.select(origin, AdversarialImages.name, key, index) if len(index) else None
    if table is None:
        return {}
    table = table.filter(pa.array(job.images.holds(table["index"], table["image"])))
    side = job.images.image_size
    images = table["adversarial"].combine_chunks().flatten().to_numpy().reshape(-1, 3, side, side)
    return dict(zip(table["index"].to_pylist(), images, strict=True))


def adversarial_images(job: JobContext, cache: Rows, index: Sequence[int]) -> list[AttackedImages]:
    """Return the images at `index` with their adversarial versions, one batch per budget.

    Raises:
        ValueError: Another command has removed stored images.
    """
    batch = job.images[np.searchsorted(job.images.indices, index)]
    clean, budgets, norm = to_unit(batch.images), job.settings.budgets, job.settings.attack.norm
    if job.planned.saved is not None:
        versions = [*SavedImagesSource(job.planned.saved)(clean, batch, budgets).images]
    else:
        origins = [job.place(request)[0] for request in AdversarialImages().requests(job, None)]
        with ExitStack() as locks:
            with suppress(WriteError):  # a read-only cache
                locks.enter_context(cache.locked(origins))  # another command may compute them anew
            stored = [stored_images(job, cache, index, eps_255) for eps_255 in budgets]
        if not all({*index} <= images.keys() for images in stored):
            raise ValueError("Another command has removed images of this job. Start it again.")
        versions = [torch.from_numpy(np.stack([images[i] for i in index])) for images in stored]
    return [
        AttackedImages(clean, images, batch, eps, norm)
        for eps, images in zip(budgets, versions, strict=True)
    ]


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
            result.rows = {} if rerun else read_rows(job, requests, cache)
            incomplete = find_missing(requests, result.rows)
            if incomplete:
                locks.enter_context(cache.locked([job.place(request)[0] for request in incomplete]))
                for (origin, table), keys in places(job, incomplete).items() if rerun else ():
                    cache.discard(origin, table, [key for key, _ in keys])
                result.rows = read_rows(job, requests, cache)
        missing = _share(requests, find_missing(requests, result.rows))
        if not missing:
            return result
        from .lightning_module import CacheWriter  # slow to import
        from .predict import predict

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
