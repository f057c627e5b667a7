"""The smallest budget that flips each image, between the budgets of the grid."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from src.diagnostics.diagnostic import (
    Diagnostic,
    DiagnosticInput,
    TopPredictions,
    answers,
    lists,
    numbered,
)


class Bisection(Diagnostic):
    """Narrow down each image's smallest flipping budget by attacking it again, target by target.

    An image flips if the target, right on the clean image, answers with another class than the
    true one. The bracket goes from the largest budget of the grid below the first one that flips,
    or 0, to that one, and is halved by attacks with its middle: it flips, so that the upper bound
    comes down, or it does not, and the lower one comes up. Whether an image flips need not be
    monotonous in the budget; what is found is one crossing inside the bracket.

    The attack is the job's own, its images unrounded. It counts in no figure of the job.

    Args:
        targets: Names of the targets.
        halvings: How often the bracket is halved.
    """

    table = "flips"

    def __init__(self, targets: Sequence[str], halvings: int) -> None:
        super().__init__(targets)
        self.halvings = halvings

    def update(self, seen: DiagnosticInput) -> None:
        """Look at one batch."""
        for number, (name, network) in enumerate(seen.networks.items()):
            self._look(seen, number, name, network)

    def compute(self) -> pa.Table:
        """Return one row per image and target that flips at all, sorted by target and index.

        The columns are `index`, `label`, `target`, `below_eps_255` and `eps_255` (the bracket, in
        units of 1/255: the former does not flip, or is 0; the latter does), and what the target
        says at `eps_255`: `predicted`, `confidence`, `true_confidence`, `top5_classes` and
        `top5_confidences`.
        """
        whole, real = self.rows(2)
        classes, confidences = whole[:, 3:], real[:, 3:].astype(np.float32)
        return pa.table(
            {
                "index": whole[:, 1],
                "label": whole[:, 2],
                "target": pa.array(self.names(whole[:, 0]), pa.string()),
                "below_eps_255": real[:, 0],
                "eps_255": real[:, 1],
                "predicted": classes[:, 0],
                "confidence": confidences[:, 0],
                "true_confidence": real[:, 2].astype(np.float32),
                "top5_classes": lists(classes.astype(np.int32)),
                "top5_confidences": lists(confidences),
            }
        )

    def _look(self, seen: DiagnosticInput, number: int, name: str, network: nn.Module) -> None:
        labels, logits = seen.batch.labels, seen.logits[name]
        right = answers(name, network(seen.clean), labels).predicted == labels
        grid = answers(name, logits.flatten(0, 1), labels.repeat(len(logits)))
        flips = (grid.predicted.reshape(logits.shape[:2]) != labels) & right
        rows = flips.any(dim=0).nonzero()[:, 0]
        low, high, first = _brackets(flips[:, rows], seen.budgets)
        at_first = first.to(rows.device) * len(labels) + rows  # their places in the whole grid
        found = TopPredictions(*(column[at_first] for column in grid))
        for _ in range(self.halvings if len(rows) else 0):
            middle = (low + high) / 2
            said = answers(name, network(seen.attack(rows, middle)), labels[rows])
            flipped = said.predicted != labels[rows]
            found = said.where(flipped, found)
            low, high = _halved(low, high, middle, flipped.cpu())
        index = seen.batch.index[rows]
        whole = [numbered(number, index), index, labels[rows], found.classes]
        self.keep(whole, [low, high, found.true, found.confidences])


def _brackets(flips: Tensor, budgets: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each image the bounds about its first flip, and the place of that in the grid.

    Args:
        flips: Whether image n flips at budget k, bool (K, M), at one budget at least.
        budgets: In units of 1/255.

    Returns:
        float64 (M,), twice, and int64 (M,), on the CPU.
    """
    tried = torch.tensor(budgets, dtype=torch.float64)[:, None]
    high, first = tried.where(flips.cpu(), torch.inf).min(dim=0)
    low = tried.where(tried < high, 0).amax(dim=0)
    return low, high, first


def _halved(low: Tensor, high: Tensor, middle: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
    """Return the half of each bracket whose upper end flips and whose lower end does not."""
    return torch.where(flips, low, middle), torch.where(flips, middle, high)
