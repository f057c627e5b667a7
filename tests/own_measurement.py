"""A measurement of one's own, for tests of jobs."""

import pyarrow as pa

from src.measure import (
    FLOAT,
    INDEX,
    LABEL,
    EvaluatedBatch,
    Job,
    Measurement,
    ModelRef,
    column,
    image_rows,
)


class Changes(Measurement):
    """The largest change of a logit at the reference budget, of the source and every target."""

    schema = pa.schema([INDEX, LABEL, column("change", FLOAT, 0)])

    def targets(self, job: Job) -> list[ModelRef | None]:
        """Return the source and every target."""
        return [*dict.fromkeys([job.source, *job.targets])]

    def budgets(self, job: Job) -> tuple[float, ...]:
        """Return the reference budget."""
        return (job.reference,)

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image."""
        change = batch.classify(batch.clean).float() - batch.logits(*batch.budgets).float()
        return image_rows(batch.batch, change=change.abs().amax(dim=1))


OWN = {"changes": {"_target_": "tests.own_measurement.Changes"}}
"""The section `measurements` with it."""
