"""Adversarial images of a job: from the attack, a saved set or the cache."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from ..cache.rows import Rows
from ..data import to_unit
from ..images.attacker import AdversarialSource
from ..images.saved import SavedImagesSource
from ..images.storage import AttackedImages
from ..measure.adversarial_images import AdversarialImages
from ..measure.attack_cost import AttackCost
from ..measure.protocol import RowRequest
from .attack import make_attacker
from .stages import JobContext
from .stored_rows import read_rows


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
    """Return the images at `index` with their adversarial versions, one batch per budget."""
    batch = job.images[np.searchsorted(job.images.indices, index)]
    clean, budgets, norm = to_unit(batch.images), job.settings.budgets, job.settings.attack.norm
    if job.planned.saved is not None:
        versions = [*SavedImagesSource(job.planned.saved)(clean, batch, budgets).images]
    else:
        stored = (stored_images(job, cache, index, eps_255) for eps_255 in budgets)
        versions = [torch.from_numpy(np.stack([images[i] for i in index])) for images in stored]
    return [
        AttackedImages(clean, images, batch, eps, norm)
        for eps, images in zip(budgets, versions, strict=True)
    ]
