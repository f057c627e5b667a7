"""A measurement of one's own, for tests of jobs."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from src.measure import (
    FLOAT,
    INDEX,
    LABEL,
    EvaluatedBatch,
    Job,
    Measurement,
    ModelRef,
    RowRequest,
    column,
    image_rows,
)


class Changes(Measurement):
    """The largest change of a logit at the reference budget, of the source and every target."""

    schema = pa.schema([INDEX, LABEL, column("change", FLOAT, 0)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for each model."""
        budgets = (job.settings.reference,)
        for name in job.settings.models:
            model = ModelRef.parse(name)
            yield RowRequest(self.name, job.diagnosed.indices, model, budgets=budgets, passes=2)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for request in requests:
            clean = batch.classify(request.target, batch.clean).float()
            change = clean - batch.logits(request.target, *request.budgets).float()
            yield image_rows(batch.batch, change=change.abs().amax(dim=1))


OWN = {"changes": {"_target_": "tests.own_measurement.Changes"}}
"""The section `measurements` with it."""
