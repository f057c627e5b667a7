"""Predictions for the iterates of one run of an attack."""

from collections.abc import Sequence
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
from .prediction_rows import predict
from .protocol import EvaluatedBatch, Job, Measurement


class Iterations(Measurement):
    """Predictions of every target for iterates of the attack at the reference budget.

    The attack runs once more for them; its gradients are not counted as cost. `step_255` is the
    attack's step size in units of 1/255. If the step size depends on the number of steps, the tenth
    iterate of fifty is not the result of an attack with ten steps.

    Args:
        iterations: Numbers of the iterates, from 1.
        eps_255: The reference budget, in units of 1/255.
        step_255: The attack's step size at this budget.
    """

    name = "iterations"
    steps = (column("iteration", INTEGER, 1), column("step_255", FLOAT, 0))
    schema = pa.schema([INDEX, LABEL, TARGET_LABEL, EPS_255, *steps, *PREDICTED])
    order = ("eps_255", "iteration", "index")

    def __init__(self, iterations: Sequence[int], eps_255: float, step_255: float) -> None:
        self.iterations, self.eps_255, self.step_255 = iterations, eps_255, step_255
        self.key_parts, self.passes = (eps_255, iterations), len(iterations)

    def budgets(self, job: Job) -> tuple[float, ...]:
        """Return none: the attack runs again."""
        return ()

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image and iterate."""
        assert batch.attacker is not None
        inputs = batch.clean, batch.batch, self.eps_255 / 255, self.iterations
        attacked = batch.once("iterates", partial(batch.attacker.iterates, *inputs))
        level = {"eps_255": self.eps_255, "step_255": self.step_255}
        levels = [level | {"iteration": iteration} for iteration in self.iterations]
        return predict(batch, levels, attacked.images, attacked.target_labels)
