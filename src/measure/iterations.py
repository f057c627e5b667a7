"""Predictions for the iterates of one run of an attack."""

from collections.abc import Iterable, Sequence
from functools import partial

import pyarrow as pa

from ..artifacts.tables import (
    EPS_255,
    FLOAT,
    INDEX,
    INTEGER,
    LABEL,
    PREDICTED,
    TARGET_LABEL,
    column,
)
from ..images.attacker import Attacker
from ..utils.model_names import ModelRef
from .prediction_rows import predict
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest


class Iterations(Measurement):
    """Predictions of every target for iterates of the attack at the reference budget.

    The attack runs once more for them; its gradients are not counted as cost. `step_255` is the
    attack's step size in units of 1/255. If the step size depends on the number of steps, the tenth
    iterate of fifty is not the result of an attack with ten steps.
    """

    name = "iterations"
    switched_by = "iterations"
    steps = (column("iteration", INTEGER, 1), column("step_255", FLOAT, 0))
    schema = pa.schema([INDEX, LABEL, TARGET_LABEL, EPS_255, *steps, *PREDICTED])
    order = ("eps_255", "iteration", "index")

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for each target without a defence."""
        settings = job.settings
        iterations = settings.diagnostics.iterations
        for target in map(ModelRef.parse, settings.targets if iterations else ()):
            key_parts = (settings.reference, iterations)
            count = len(iterations)
            yield RowRequest(
                self.name, job.diagnosed.indices, target, key_parts=key_parts, passes=count
            )

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image and iterate."""
        settings, attacker = batch.settings, batch.source
        assert isinstance(attacker, Attacker)
        iterations, eps_255 = settings.diagnostics.iterations, settings.reference
        attacked = attacker.iterates(batch.clean, batch.batch, eps_255 / 255, iterations)
        level = {"eps_255": eps_255, "step_255": settings.step_255}
        versions = (
            (level | {"iteration": iteration}, partial(batch.classify, images=images))
            for iteration, images in zip(iterations, attacked.images, strict=True)
        )
        return predict(batch, requests, versions, attacked.target_labels)
