"""Predictions: of clean images, adversarial images and controls."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor

from ..artifacts.tables import PREDICTION_SCHEMA
from ..config.settings import Settings
from ..images.storage import AS_SAVED
from ..utils.model_names import ModelRef
from .prediction_rows import prediction_rows
from .protocol import EvaluatedBatch, Job, Measurement


class Predictions(Measurement):
    """Predictions for adversarial images in a format; in the primary one also behind defences."""

    schema = PREDICTION_SCHEMA
    order = ("eps_255", "index")
    each_budget = True
    switched_by = None

    def __init__(self, name: str) -> None:
        self.name = name

    def targets(self, job: Job) -> Sequence[ModelRef | None]:
        """Return all targets, in the primary format also behind defences."""
        primary = job.settings.storage or AS_SAVED
        return job.settings.evaluated if self.name == primary else super().targets(job)

    def images(self, job: Job) -> Any:
        """Return all images."""
        return job.images.indices

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image."""
        (eps_255,), target = batch.budgets, cast(ModelRef, batch.target)
        if self.name == "float32" and not target.is_defended:  # other tables need these logits
            logits = batch.logits(eps_255)
        else:
            logits = batch.classify(batch.once("images", partial(self._make, batch)))
        level = {"eps_255": eps_255}
        return prediction_rows(target, batch.batch, logits, level, batch.target_labels)

    def _make(self, batch: EvaluatedBatch) -> Tensor:
        """Return the images of this table, float32 (N, 3, H, W) in [0, 1]."""
        return batch.version(*batch.budgets).as_stored(self.name)


class Control(Predictions):
    """Predictions of every target without a defence for images made without an attack.

    `shuffled` adds the perturbation of an image's partner, see `ImageDataset.partners`. If all
    images share one perturbation, it shuffles the pixels instead.
    """

    def __init__(self, name: str, universal: bool) -> None:
        super().__init__(name)
        self.paired = name == "shuffled" and not universal

    def key_parts(self, settings: Settings) -> Any:
        """Return the format, and the seed of the noise."""
        storage = settings.storage or AS_SAVED
        return (storage,) if self.paired else (storage, settings.seed)

    def _make(self, batch: EvaluatedBatch) -> Tensor:
        """Return a control's images in the storage format of the primary variant."""
        rows, images = None, batch.job.images
        if self.paired:
            index = batch.batch.index.cpu().numpy()
            partners = images.indices[images.partners[images.indices.searchsorted(index)]]
            rows = torch.from_numpy((index == partners[:, None]).nonzero()[1])
            assert len(rows) == len(index)  # batches hold neighbours together
        storage, seed = batch.settings.storage or AS_SAVED, batch.settings.seed
        return batch.version(*batch.budgets).control(self.name, storage, seed, rows)


class Clean(Predictions):
    """Predictions of every model for the clean images, also behind defences."""

    attacked = False
    each_budget = False

    def targets(self, job: Job) -> Sequence[ModelRef | None]:
        """Return all models, with and without their defences."""
        return job.classifiers

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image, with budget 0."""
        target = cast(ModelRef, batch.target)
        logits = batch.classify(batch.clean)
        return prediction_rows(target, batch.batch, logits, {"eps_255": 0.0})
