"""Predictions: of clean images, adversarial images and controls."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor

from ..artifacts.tables import PREDICTION_SCHEMA
from ..utils.model_names import ModelRef
from .prediction_rows import prediction_rows
from .protocol import EvaluatedBatch, Job, Measurement


class Predictions(Measurement):
    """Predictions for adversarial images in a format; in the primary one also behind defences.

    Args:
        name: The format, see `AttackedImages.as_stored`.
        primary: True: the format is the primary one.
    """

    schema = PREDICTION_SCHEMA
    order = ("eps_255", "index")
    each_budget = True

    def __init__(self, name: str, primary: bool = False) -> None:
        self.name, self.primary = name, primary

    def targets(self, job: Job) -> Sequence[ModelRef | None]:
        """Return all targets, in the primary format also behind defences."""
        return job.evaluated if self.primary else job.targets

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

    Args:
        name: `noise` or `shuffled`.
        storage: Format of the primary variant.
        seed: Seed of the noise.
        universal: True: all images share one perturbation.
    """

    def __init__(self, name: str, storage: str, seed: int, universal: bool) -> None:
        super().__init__(name)
        self.storage, self.seed = storage, seed
        self.paired = name == "shuffled" and not universal
        self.key_parts = (storage,) if self.paired else (storage, seed)

    def _make(self, batch: EvaluatedBatch) -> Tensor:
        """Return a control's images in the storage format of the primary variant."""
        rows, images = None, batch.job.images
        if self.paired:
            index = batch.batch.index.cpu().numpy()
            partners = images.indices[images.partners[images.indices.searchsorted(index)]]
            rows = torch.from_numpy((index == partners[:, None]).nonzero()[1])
            assert len(rows) == len(index)  # batches hold neighbours together
        return batch.version(*batch.budgets).control(self.name, self.storage, self.seed, rows)


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
