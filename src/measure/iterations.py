"""Targets on the iterates of one run of an attack."""

from collections.abc import Callable, Sequence

import pyarrow as pa
from torch import Tensor

from src.data import Batch
from src.images.adversarial_source import AdversarialBatch
from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.predictions import prediction_rows

IteratedAttack = Callable[[Tensor, Batch, float, Sequence[int]], AdversarialBatch]
"""Clean images (N, 3, H, W) in [0, 1], their batch, a budget in [0, 1] units, and S numbers of
steps to the iterates after these, (S, N, 3, H, W)."""


class Iterations(Diagnostic):
    """Evaluate every target on iterates of the attack, which is run once more for them.

    Their gradients are not counted. The step is the attack's own: where it is a share of the
    budget over the number of steps, the tenth iterate of fifty is not the result of ten steps.

    Args:
        reference_eps_255: Budget of the run, in units of 1/255.
        iterations: Numbers of steps.
        step_255: Length of a step, in units of 1/255.
        attack: The attack that made the images of the grid; its iterates are not rounded.
    """

    table = "iterations"

    def __init__(
        self,
        reference_eps_255: float,
        iterations: Sequence[int],
        step_255: float,
        attack: IteratedAttack,
    ) -> None:
        count = len(iterations)
        levels = {"eps_255": [float(reference_eps_255)] * count, "iteration": list(iterations)}
        self.levels = pa.table({**levels, "step_255": [float(step_255)] * count})
        self.eps, self.iterations, self.attack = reference_eps_255 / 255, iterations, attack

    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return one row per image, target and iterate.

        The columns are `index`, `label`, `target_label`, `target`, `eps_255`, `iteration` (number
        of steps), `step_255` (their length), and those of a prediction.
        """
        index, labels = inputs.batch.index, inputs.batch.labels
        attacked = self.attack(inputs.clean, inputs.batch, self.eps, self.iterations)
        tables = [
            prediction_rows(
                name,
                self.levels.slice(number, 1),
                *(index, labels, network(images), attacked.target_labels),
            )
            for number, images in enumerate(attacked.images)
            for name, network in inputs.networks.items()
        ]
        return pa.concat_tables(tables).drop_columns(["draws", "draws_correct"])
