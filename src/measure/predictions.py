"""Predictions: of clean images, adversarial images, defended targets and controls."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ..artifacts.tables import PREDICTION_SCHEMA
from ..images.storage import AS_SAVED, AttackedImages
from ..utils.model_names import NO_DEFENCE, ModelRef
from ..utils.vocabulary import CONTROLS
from .attack_cost import AttackCost
from .prediction_rows import prediction_rows, with_cost
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest


class Predictions(Measurement):
    """Predictions of every target without a defence, one table per storage format."""

    name = "predictions"
    schema = PREDICTION_SCHEMA
    order = ("eps_255", "index")
    switched_by = None

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return requests of all images for each format, the primary one first."""
        settings = job.settings
        for storage in dict.fromkeys((settings.storage or AS_SAVED, *settings.variants)):
            yield from self.requests_for(job, storage, map(ModelRef.parse, settings.targets))

    def requests_for(
        self, job: Job, table: str, targets: Iterable[ModelRef], **facts: Any
    ) -> Iterator[RowRequest]:
        """Yield a table's requests of all images, one per target and budget."""
        for target in targets:
            for eps_255 in job.settings.budgets:
                yield RowRequest(table, job.images.indices, target, (eps_255,), **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        tables = dict[RowRequest, pa.Table]()
        place = attrgetter("table", "budgets")
        for (table, (eps_255,)), group in groupby(sorted(requests, key=place), place):
            for request, logits in self._logits(batch, table, eps_255, list(group)):
                tables[request] = prediction_rows(
                    request.target, batch.batch, logits, {"eps_255": eps_255}, batch.target_labels
                )
        return [tables[request] for request in requests]

    def _logits(
        self, batch: EvaluatedBatch, table: str, eps_255: float, requests: Sequence[RowRequest]
    ) -> Iterator[tuple[RowRequest, Tensor]]:
        """Yield the requests of a table and a budget with the logits of their targets."""
        others = {request.target: request for request in requests}
        if table == "float32":  # other tables need the logits of targets without a defence
            for request in requests:
                if request.target.defence == NO_DEFENCE:
                    yield others.pop(request.target), batch.logits(request.target, eps_255)
        if others:
            images = self.make(requests[0], batch.version(eps_255), batch)
            for target, logits in batch.classify_each(others, images):
                yield others[target], logits

    def make(self, request: RowRequest, version: AttackedImages, batch: EvaluatedBatch) -> Tensor:
        """Return the images of a request's table at a budget, float32 (N, 3, H, W) in [0, 1]."""
        return version.as_stored(request.table)

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the predictions with the cost of each row's image, if it is known."""
        cost = {}
        if AttackCost.name in tables:
            total = AttackCost().finish(AttackCost.name, tables, job)
            places = pc.index_in(tables[name]["index"], total["index"])
            cost = {column: total[column].take(places) for column in ("gradients", "forwards")}
        return with_cost(tables[name], cost)


class Clean(Measurement):
    """Predictions of every model for the clean images, also behind defences."""

    name = "clean images"
    schema = PREDICTION_SCHEMA
    switched_by = None

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return one request of all images per model, with and without its defences."""
        for pair in job.classifiers:
            yield RowRequest(self.name, job.images.indices, pair, attacked=False)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image, with budget 0."""
        targets = [request.target for request in requests]
        rows = {
            target: prediction_rows(target, batch.batch, logits, {"eps_255": 0.0})
            for target, logits in batch.classify_each(targets, batch.clean)
        }
        return [rows[target] for target in targets]

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the predictions with a cost of 0."""
        return with_cost(tables[name], {"gradients": 0, "forwards": 0})


class DefendedTargets(Predictions):
    """Predictions behind every defence, for the primary variant only, whose table they share."""

    name = "defended targets"

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return requests of all images for every target behind a defence."""
        targets = [target for target in job.settings.evaluated if target.defence != NO_DEFENCE]
        yield from self.requests_for(job, job.settings.storage or AS_SAVED, targets)


class Controls(Predictions):
    """Predictions of every target without a defence for each control, one table per control."""

    name = "controls"

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return requests of all images for each control.

        `shuffled` adds the perturbation of an image's partner, see `ImageDataset.partners`. If all
        images share one perturbation, it shuffles the pixels instead.
        """
        settings = job.settings
        if not settings.controls:  # plans read no images
            return
        storage, images = settings.storage or AS_SAVED, job.images
        facts: dict[str, dict[str, Any]] = {
            "noise": {"key_parts": (storage, settings.seed)},
            "shuffled": {"key_parts": (storage,), "partners": images.indices[images.partners]},
        }
        if settings.attack.about.universal:
            facts["shuffled"] = facts["noise"]
        for control in CONTROLS:
            targets = map(ModelRef.parse, settings.targets)
            yield from self.requests_for(job, control, targets, **facts[control])

    def make(self, request: RowRequest, version: AttackedImages, batch: EvaluatedBatch) -> Tensor:
        """Return a control's images in the storage format of the primary variant."""
        storage, rows = batch.settings.storage or AS_SAVED, None
        if request.partners is not None:
            index = batch.batch.index.cpu().numpy()
            partners = request.partners[np.searchsorted(request.index, index)]
            rows = torch.from_numpy(np.nonzero(index == partners[:, None])[1])
            assert len(rows) == len(index)  # batches hold neighbours together
        return version.control(request.table, storage, batch.settings.seed, rows)

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the predictions with their cost, which is 0 for noise."""
        if name == "noise":
            return with_cost(tables[name], {"gradients": 0, "forwards": 0})
        return super().finish(name, tables, job)
