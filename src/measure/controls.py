"""Predictions for controls: random-sign noise and shuffled perturbations."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from torch import Tensor

from ..config.sections import CONTROLS
from ..images.storage import AS_SAVED, AttackedImages
from ..utils.model_names import ModelRef
from .prediction_rows import with_cost
from .predictions import Predictions
from .protocol import EvaluatedBatch, Job, RowRequest


class Controls(Predictions):
    """Predictions of every target without a defence for each control, one table per control."""

    name = "controls"

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return requests of all images for each control.

        `shuffled` swaps the perturbations of images that the batches pair. If all images share one
        perturbation, it shuffles the pixels instead.
        """
        settings = job.settings
        storage = settings.storage or AS_SAVED
        pairs = (job.images.digest(), settings.dataset.seed)
        facts: dict[str, dict[str, Any]] = {
            "noise": {"key_parts": (storage, settings.seed)},
            "shuffled": {"key_parts": (storage, pairs), "needs_batch": True},
        }
        if settings.attack.about.universal:
            facts["shuffled"] = facts["noise"]
        for control in CONTROLS if settings.controls else ():
            targets = map(ModelRef.parse, settings.targets)
            yield from self.requests_for(job, control, targets, **facts[control])

    def make(self, table: str, version: AttackedImages, batch: EvaluatedBatch) -> Tensor:
        """Return a control's images in the storage format of the primary variant."""
        storage = batch.settings.storage or AS_SAVED
        universal = batch.settings.attack.about.universal
        return version.control(table, storage, batch.settings.seed, universal)

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the predictions with their cost, which is 0 for noise."""
        if name == "noise":
            return with_cost(tables[name], {"gradients": 0, "forwards": 0})
        return super().finish(name, tables, job)
