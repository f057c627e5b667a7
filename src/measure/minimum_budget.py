"""Minimum adversarial budgets of images, between the budgets of the grid."""

import pyarrow as pa
import torch
from torch import Tensor

from ..artifacts.tables import FLOAT, INDEX, LABEL, PREDICTED, column
from ..images.attacker import AttackError
from ..utils.model_names import ModelRef
from .prediction_rows import prediction_columns, to_numpy, top_predictions
from .protocol import EvaluatedBatch, Measurement


class MinimumBudget(Measurement):
    """Bracket around each image's minimum adversarial budget, from further attacks per target.

    A budget flips an image if the target, correct on the clean image, predicts a wrong class. The
    bracket starts as the first budget of the grid that flips the image and the largest one below
    it, or 0. Each attack with the bracket's middle halves it. Flips need not be monotonic in the
    budget: the result is one crossing.

    The bracket, in units of 1/255, is `below_eps_255` (no flip, or 0) and `eps_255` (flips). The
    predictions are those at `eps_255`. If an image never flips, `eps_255` is null and the other
    columns are those of the largest budget.

    Args:
        halvings: Number of attacks per target.
    """

    name = "flips"
    bracket = (column("below_eps_255", FLOAT, 0, 255), column("eps_255", FLOAT, 0, 255, null=True))
    schema = pa.schema([INDEX, LABEL, *bracket, *PREDICTED])

    correct_only = True

    def __init__(self, halvings: int) -> None:
        self.key_parts = self.passes = self.attacks = halvings

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image that the target classifies correctly."""
        try:
            return _bisect(batch, self.attacks)
        except AttackError as error:
            way = "Bisection passes budgets of shape (K, N); switch it off: diagnostics.bisection=0"
            raise AttackError(f"{error} {way}.") from error.__cause__


def _bisect(batch: EvaluatedBatch, halvings: int) -> pa.Table:
    """Return the rows of a batch of images that its target classifies correctly."""
    assert batch.attacker is not None and batch.target is not None
    index, labels, target = batch.batch.index, batch.batch.labels, batch.target
    grid = torch.stack([batch.logits(eps_255) for eps_255 in batch.budgets])
    flips = torch.stack([_flips(target, logits, labels) for logits in grid])
    tried = torch.tensor(batch.budgets, dtype=torch.float64)[:, None]  # in any order
    high, first = tried.where(flips, torch.inf).min(dim=0)
    low, ever = tried.where(tried < high, 0).amax(dim=0), flips.any(dim=0)
    logits = grid[first.where(ever, tried.argmax()), torch.arange(len(labels))]
    rows = ever.nonzero()[:, 0]
    part = batch.select(to_numpy(index[rows]))
    for _ in range(halvings if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        budgets = middle[None].to(part.clean) / 255
        (images,) = batch.attacker.perturbed(part.clean, part.batch, budgets)
        attacked = batch.classify(images)
        flipped = _flips(target, attacked, part.batch.labels)
        high[rows[flipped]] = middle[flipped]
        low[rows[~flipped]] = middle[~flipped]
        logits[rows[flipped]] = attacked[flipped]
    return pa.table(
        {
            "index": to_numpy(index),
            "label": to_numpy(labels),
            "below_eps_255": to_numpy(low),
            "eps_255": pa.array(high.numpy(), mask=~ever.numpy()),
            **prediction_columns(top_predictions(target, logits, labels)),
        }
    )


def _flips(target: ModelRef, logits: Tensor, labels: Tensor) -> Tensor:
    """Return a CPU mask of the misclassified images."""
    return (top_predictions(target, logits, labels).classes[:, 0] != labels).cpu()
