"""Each image's minimum adversarial budget, between the budgets of the grid."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from src.evaluation import Diagnostic, DiagnosticInput
from src.evaluation.predictions import TopPredictions, prediction_columns, top_predictions


class Bisection(Diagnostic):
    """Bracket each image's minimum adversarial budget by attacking it again, target by target.

    An image flips if the target, correct on the clean image, predicts another class than the
    true one. The bracket goes from the largest budget of the grid below the first one that flips,
    or 0, to that one, and is halved by attacks with its middle: it flips, so that the upper bound
    comes down, or it does not, and the lower one comes up. Whether an image flips need not be
    monotonous in the budget; what is found is one crossing inside the bracket.

    The attack is the job's own, its images unrounded. Its gradients are not counted.

    Args:
        targets: Names of the targets.
        halvings: How often the bracket is halved.
    """

    table = "flips"

    def __init__(self, targets: Sequence[str], halvings: int) -> None:
        super().__init__(targets)
        self.halvings = halvings

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        for number, name in enumerate(inputs.networks):
            self._bisect(inputs, number, name)

    def compute(self) -> pa.Table:
        """Return one row per image and target that flips at all, sorted by target and index.

        The columns are `index`, `label`, `target`, `below_eps_255` and `eps_255` (the bracket, in
        units of 1/255: the former does not flip, or is 0; the latter does), and the target's
        predictions at `eps_255`: `predicted`, `confidence`, `true_confidence`, `top5_classes` and
        `top5_confidences`.
        """
        whole, real = self.rows(2)
        return pa.table(
            {
                "index": whole[:, 1],
                "label": whole[:, 2],
                "target": self.target_names(whole[:, 0]),
                "below_eps_255": real[:, 0],
                "eps_255": real[:, 1],
                **prediction_columns(whole[:, 3:], real[:, 3:], real[:, 2]),
            }
        )

    def _bisect(self, inputs: DiagnosticInput, number: int, name: str) -> None:
        labels, logits, network = inputs.batch.labels, inputs.logits[name], inputs.networks[name]
        correct = top_predictions(name, network(inputs.clean), labels).predicted == labels
        grid = top_predictions(name, logits.flatten(0, 1), labels.repeat(len(logits)))
        flips = (grid.predicted.reshape(logits.shape[:2]) != labels) & correct
        rows = flips.any(dim=0).nonzero()[:, 0]
        tried = torch.tensor(inputs.budgets, dtype=torch.float64)[:, None]  # in any order
        high, first = tried.where(flips[:, rows].cpu(), torch.inf).min(dim=0)
        low = tried.where(tried < high, 0).amax(dim=0)
        at_first = first.to(rows.device) * len(labels) + rows  # their places in the whole grid
        found = TopPredictions(*(column[at_first] for column in grid))
        for _ in range(self.halvings if len(rows) else 0):
            middle = (low + high) / 2
            top = top_predictions(name, network(inputs.attack(rows, middle)), labels[rows])
            flipped = top.predicted != labels[rows]
            found = top.where(flipped, found)
            low = torch.where(flipped.cpu(), low, middle)
            high = torch.where(flipped.cpu(), middle, high)
        index = inputs.batch.index[rows]
        whole = [torch.full_like(index, number), index, labels[rows], found.classes]
        self.append(whole, [low, high, found.true, found.confidences])
