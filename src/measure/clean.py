"""Predictions for the clean images."""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from ..artifacts.tables import PREDICTION_SCHEMA
from .prediction_rows import prediction_rows, with_cost
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest


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
