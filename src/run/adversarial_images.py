"""Adversarial images of a job: from the attack, a saved set or the cache."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
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

log = logging.getLogger(__name__)


def adversarial_source(
    job: Pass, missing: Mapping[Cell, np.ndarray], cache: Rows
) -> AdversarialSource:
    """Return the producer of adversarial images: a saved set, the cache, or the attack."""
    if job.planned.saved is not None:
        return SavedImagesSource(job.planned.saved)
    todo = np.unique(np.concatenate(list(missing.values())))
    new = [index for cell, index in missing.items() if cell.table == AttackCost.name]
    attacked = np.setdiff1d(todo, new[0] if new else [])
    stored = stored_images(job, cache, attacked.tolist())
    if lacking := len(attacked) - len(stored):
        text = "%s: the adversarial versions of %d images are made again: store.images_mb=%g."
        log.info(text, job.settings.job, lacking, job.settings.store.images_mb)
    return make_attacker(job, stored)


def stored_images(job: Pass, cache: Rows, index: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the stored ones of some adversarial images, float32 (K, 3, H, W), by index."""
    (cell,) = AdversarialImages().cells(job, None)
    table = cache.select(job.key(cell), index) if len(index) else None
    if not table:
        return {}
    side, budgets = job.images.image_size, len(job.settings.budgets)
    flat = table["adversarial"].combine_chunks().flatten().to_numpy()
    images = flat.reshape(len(table), budgets, 3, side, side)
    return dict(zip(table["index"].to_pylist(), images, strict=True))


def adversarial_images(job: Pass, cache: Rows, index: Sequence[int]) -> list[AttackedImages]:
    """Return some images of a job with their adversarial versions, a batch for each budget."""
    batch = job.images[np.searchsorted(job.images.indices, index)]
    clean = to_unit(batch.images)
    if job.planned.saved is not None:
        versions = SavedImagesSource(job.planned.saved)(clean, batch).images
    else:
        known = stored_images(job, cache, index)
        versions = torch.from_numpy(np.stack([known[number] for number in index], axis=1))
    norm = job.settings.attack.norm
    return [
        AttackedImages(clean, images, batch, eps, norm)
        for eps, images in zip(job.settings.budgets, versions, strict=True)
    ]
