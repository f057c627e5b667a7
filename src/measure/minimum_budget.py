"""Minimum adversarial budgets of images, between the budgets of the grid."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from src.data import Batch
from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.predictions import prediction_columns, top_predictions

BatchAttack = Callable[[Tensor, Batch, Tensor], Tensor]
"""Clean images (N, 3, H, W) in [0, 1], their batch, and budgets in [0, 1] units, (K, N), to
adversarial images (K, N, 3, H, W)."""


class Bisection(Diagnostic):
    """Bracket each image's minimum adversarial budget by attacking it again, target by target.

    An image flips if the target, correct on the clean image, predicts another class than the
    true one. The bracket goes from the largest budget of the grid below the first one that flips,
    or 0, to that one. Attacks with its middle halve it: if the image flips, the upper bound comes
    down, else the lower one comes up. Flipping need not be monotonous in the budget; the result is
    one crossing inside the bracket.

    Args:
        halvings: Number of attacks on each image.
        clean: Predictions of the targets for the clean images.
        attack: The attack that made the images of the grid; its images are not rounded.
    """

    table = "flips"

    def __init__(
        self, targets: Sequence[str], halvings: int, clean: pa.Table, attack: BatchAttack
    ) -> None:
        super().__init__(targets)
        self.halvings, self.attack = halvings, attack
        correct = clean.filter(pc.equal(clean["label"], clean["predicted"]))
        self.correct = {
            name: torch.from_numpy(
                correct.filter(pc.equal(correct["target"], name))["index"].to_numpy().copy()
            )
            for name in targets
        }

    def observe(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        for name in inputs.networks:
            self._bisect(inputs, name)

    def compute(self) -> pa.Table:
        """Return one row per image and target that is correct on it, sorted by target and index.

        The columns are `index`, `label`, `target`, `below_eps_255` and `eps_255` (the bracket, in
        units of 1/255: the former does not flip, or is 0; the latter does), and the target's
        predictions at `eps_255`: `predicted`, `confidence`, `true_confidence`, `top5_classes` and
        `top5_confidences`. If an image never flips, `eps_255` is null, and the rest is that
        of the largest budget.
        """
        whole, real = self.rows(2)
        return pa.table(
            {
                "index": whole[:, 1],
                "label": whole[:, 2],
                "target": self.target_names(whole[:, 0]),
                "below_eps_255": real[:, 0],
                "eps_255": pa.array(real[:, 1], from_pandas=True),
                **prediction_columns(
                    whole[:, 3], real[:, 3], real[:, 2], whole[:, 3:], real[:, 3:]
                ),
            }
        )

    def _bisect(self, inputs: DiagnosticInput, name: str) -> None:
        """Append the rows of a batch and a target."""
        index, labels, logits = inputs.batch.index, inputs.batch.labels, inputs.logits[name]
        flips = torch.stack([_flips(name, each, labels) for each in logits])
        tried = torch.tensor(inputs.budgets, dtype=torch.float64)[:, None]  # budgets in any order
        high, first = tried.where(flips, torch.inf).min(dim=0)
        low = tried.where(tried < high, 0).amax(dim=0)
        ever, correct = flips.any(dim=0), torch.isin(index.cpu(), self.correct[name])
        found = logits[first.where(ever, tried.argmax()), torch.arange(len(labels))]
        rows = (correct & ever).nonzero()[:, 0]
        clean, batch = inputs.clean[rows], Batch(*(column[rows] for column in inputs.batch))
        for _ in range(self.halvings if len(rows) else 0):
            middle = (low[rows] + high[rows]) / 2
            (images,) = self.attack(clean, batch, middle[None].to(clean) / 255)
            again = inputs.networks[name](images)
            flipped = _flips(name, again, batch.labels)
            high[rows[flipped]] = middle[flipped]
            low[rows[~flipped]] = middle[~flipped]
            found[rows[flipped]] = again[flipped]
        rows, high = correct.nonzero()[:, 0], high.where(ever, torch.nan)
        top = top_predictions(name, found[rows], labels[rows])
        number = torch.full_like(index[rows], self.targets.index(name))
        whole = [number, index[rows], labels[rows], top.classes]
        self.update(whole, [low[rows], high[rows], top.true, top.confidences])


def _flips(target: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return a mask of the images that are taken for another class, on the CPU."""
    return (top_predictions(target, logits, labels).classes[:, 0] != labels).cpu()
