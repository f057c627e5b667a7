"""Adversarial images of a job: from the attack, a saved set or the cache."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from src.cache.rows import Rows
from src.data import to_unit
from src.images.attacker import AdversarialSource
from src.images.saved import SavedImagesSource
from src.images.storage import AttackedImages
from src.measure.adversarial_images import AdversarialImages
from src.measure.attack_cost import AttackCost
from src.measure.protocol import Cell
from src.run.attack import make_attacker
from src.run.stages import Pass
from src.run.stored_rows import read_rows
from src.utils.processes import is_first_process

log = logging.getLogger(__name__)


def adversarial_source(
    job: Pass, missing: Mapping[Cell, np.ndarray], cache: Rows
) -> AdversarialSource:
    """Return the producer of adversarial images: a saved set, or the attack with what it made."""
    if job.planned.saved is not None:
        return SavedImagesSource(job.planned.saved)
    new = {cell.budgets[0]: cell for cell in missing if cell.table == AttackCost.name}

    def stored(index: list[int], eps_255: float) -> Mapping[int, np.ndarray]:
        if eps_255 in new:
            index = np.setdiff1d(index, missing[new[eps_255]]).tolist()
        return stored_images(job, cache, index, eps_255)

    _log_what_is_made_again(job, missing, new.values(), cache)
    return make_attacker(job, stored)


def _log_what_is_made_again(
    job: Pass, missing: Mapping[Cell, np.ndarray], new: Iterable[Cell], cache: Rows
) -> None:
    """Log the number of images that were attacked before, and whose versions are not stored."""
    wanted = {number for cell, index in missing.items() if cell.budgets for number in index}
    known = wanted - {number for cell in new for number in missing[cell]}
    if known and is_first_process():
        stored = read_rows(job, AdversarialImages().cells(job, None), cache)
        there = [{*rows["index"].to_numpy()} for rows in stored.values()]
        if lacking := len(known - set.intersection(*there) if there else known):
            text = "%s: the adversarial versions of %d images are made again: store.images_mb=%g."
            log.info(text, job.settings.job, lacking, job.settings.store.images_mb)


def stored_images(
    job: Pass, cache: Rows, index: Sequence[int], eps_255: float
) -> dict[int, np.ndarray]:
    """Return the stored adversarial images of a budget, float32 (3, H, W), by index."""
    cells = AdversarialImages().cells(job, None)
    ((origin, key),) = (job.place(cell) for cell in cells if eps_255 in cell.budgets)
    table = cache.select(origin, AdversarialImages.name, key, index) if len(index) else None
    if table is None:
        return {}
    table = table.filter(pa.array(job.images.holds(table["index"], table["image"])))
    side = job.images.image_size
    images = table["adversarial"].combine_chunks().flatten().to_numpy().reshape(-1, 3, side, side)
    return dict(zip(table["index"].to_pylist(), images, strict=True))


def adversarial_images(job: Pass, cache: Rows, index: Sequence[int]) -> list[AttackedImages]:
    """Return some images of a job with their adversarial versions, a batch for each budget."""
    batch = job.images[np.searchsorted(job.images.indices, index)]
    clean, budgets, norm = to_unit(batch.images), job.settings.budgets, job.settings.attack.norm
    if job.planned.saved is not None:
        versions = [*SavedImagesSource(job.planned.saved)(clean, batch, budgets).images]
    else:
        stored = (stored_images(job, cache, index, eps_255) for eps_255 in budgets)
        versions = [torch.from_numpy(np.stack([each[i] for i in index])) for each in stored]
    return [
        AttackedImages(clean, images, batch, eps, norm)
        for eps, images in zip(budgets, versions, strict=True)
    ]
