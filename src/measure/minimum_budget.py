"""Minimum adversarial budgets of images, between the budgets of the grid."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from src.data import Batch
from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.predictions import prediction_columns, to_numpy, top_predictions

BatchAttack = Callable[[Tensor, Batch, Tensor], Tensor]
"""Clean images (N, 3, H, W) in [0, 1], their batch, and budgets in [0, 1] units, (K, N), to
adversarial images (K, N, 3, H, W)."""


class Bisection(Diagnostic):
    """Bracket each image's minimum adversarial budget by attacking it again, target by target.

    An image flips if the target, correct on the clean image, predicts a wrong class. The bracket
    goes from the largest budget of the grid below the first one that flips, or 0, to that one;
    attacks with its middle halve it. Flipping need not be monotonous in the budget: the result is
    one crossing.

    Args:
        halvings: Number of attacks on each image.
        clean: Predictions of the targets for the clean images.
        attack: The attack that made the images of the grid; its images are not rounded.
    """

    table = "flips"

    def __init__(self, halvings: int, clean: pa.Table, attack: BatchAttack) -> None:
        self.halvings, self.attack = halvings, attack
        self.correct = clean.filter(pc.equal(clean["label"], clean["predicted"]))

    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return one row per image and target that is correct on it.

        The columns are `index`, `label`, `target`, `below_eps_255` and `eps_255` (the bracket, in
        units of 1/255: the former does not flip, or is 0; the latter does), and the target's
        predictions at `eps_255`. If an image never flips, `eps_255` is null, and the rest is that
        of the largest budget.
        """
        return pa.concat_tables(self._bisect(inputs, name) for name in inputs.networks)

    def _bisect(self, inputs: DiagnosticInput, name: str) -> pa.Table:
        """Return the rows of a batch and a target."""
        index, labels, grid = inputs.batch.index, inputs.batch.labels, inputs.logits[name]
        flips = torch.stack([_flips(name, logits, labels) for logits in grid])
        tried = torch.tensor(inputs.budgets, dtype=torch.float64)[:, None]  # budgets in any order
        high, first = tried.where(flips, torch.inf).min(dim=0)
        low = tried.where(tried < high, 0).amax(dim=0)
        known = self.correct.filter(pc.equal(self.correct["target"], name))["index"].to_numpy()
        correct, ever = torch.from_numpy(np.isin(to_numpy(index), known)), flips.any(dim=0)
        logits = grid[first.where(ever, tried.argmax()), torch.arange(len(labels))]
        rows = (correct & ever).nonzero()[:, 0]
        clean, batch = inputs.clean[rows], Batch(*(column[rows] for column in inputs.batch))
        for _ in range(self.halvings if len(rows) else 0):
            middle = (low[rows] + high[rows]) / 2
            (images,) = self.attack(clean, batch, middle[None].to(clean) / 255)
            attacked = inputs.networks[name](images)
            flipped = _flips(name, attacked, batch.labels)
            high[rows[flipped]] = middle[flipped]
            low[rows[~flipped]] = middle[~flipped]
            logits[rows[flipped]] = attacked[flipped]
        rows = correct.nonzero()[:, 0]
        return pa.table(
            {
                "index": to_numpy(index[rows]),
                "label": to_numpy(labels[rows]),
                "target": pa.repeat(name, len(rows)),
                "below_eps_255": to_numpy(low[rows]),
                "eps_255": pa.array(high[rows].numpy(), mask=~ever[rows].numpy()),
                **prediction_columns(top_predictions(name, logits[rows], labels[rows])),
            }
        )


def _flips(target: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return a mask of the images that are taken for another class, on the CPU."""
    return (top_predictions(target, logits, labels).classes[:, 0] != labels).cpu()
