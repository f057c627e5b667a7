"""Predictions for the iterates of one run of an attack."""

from functools import partial
from typing import Any

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
from ..config.settings import Settings
from .prediction_rows import predict
from .protocol import EvaluatedBatch, Measurement


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

    def budgets(self, settings: Settings) -> tuple[float, ...]:
        """Return none: the attack runs again."""
        return ()

    def key_parts(self, settings: Settings) -> Any:
        """Return the budget and the iterations."""
        return settings.reference, settings.diagnostics.iterations

    def passes(self, settings: Settings) -> int:
        """Return the number of iterates."""
        return len(settings.diagnostics.iterations)

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image and iterate."""
        settings, attacker = batch.settings, batch.attacker
        assert attacker is not None
        iterations, eps_255 = settings.diagnostics.iterations, settings.reference
        run = partial(attacker.iterates, batch.clean, batch.batch, eps_255 / 255, iterations)
        attacked = batch.once("iterates", run)
        level = {"eps_255": eps_255, "step_255": settings.step_255}
        levels = [level | {"iteration": iteration} for iteration in iterations]
        return predict(batch, levels, attacked.images, attacked.target_labels)
