"""The table that a job produces, gathered exactly on any number of processes."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchmetrics import Metric

from src.diagnostics.diagnostic import answers

_KNOWN = 5  # numbers of a row before the top classes
_NO_AIM = -1


class Predictions(Metric):
    """One row per (image, target, budget), kept as the state of a metric.

    Ranks are merged by concatenation, so no image is counted twice and none is lost.

    Args:
        targets: Names of the models, in the order in which the table lists them.
        budgets: L-infinity budgets in units of 1/255; 0 stands for the clean images.
    """

    full_state_update = False
    whole: list[Tensor]
    real: list[Tensor]

    def __init__(self, targets: Sequence[str], budgets: Sequence[float]) -> None:
        super().__init__()
        self.targets = list(targets)
        self.budgets = list(budgets)
        self.add_state("whole", default=[], dist_reduce_fx="cat")
        self.add_state("real", default=[], dist_reduce_fx="cat")

    def update(
        self,
        target: str,
        eps_255: float,
        index: Tensor,
        labels: Tensor,
        logits: Tensor,
        target_labels: Tensor | None = None,
    ) -> None:
        """Add one batch.

        Args:
            target: Which model answered.
            eps_255: The budget of the images shown to it.
            index: Positions of the images in the data set, shape (N,).
            labels: True classes, shape (N,).
            logits: The model's answers, shape (N, C).
            target_labels: The classes that a targeted attack aims for, shape (N,).

        Raises:
            ValueError: The shapes do not fit, or the logits are not finite.
        """
        if logits.ndim != 2 or not len(index) == len(labels) == len(logits):
            raise ValueError(
                f"{target} answered with logits of shape {tuple(logits.shape)} "
                f"for {len(index)} images and {len(labels)} labels."
            )
        said = answers(target, logits, labels)
        where = torch.tensor(
            [self.targets.index(target), self.budgets.index(eps_255)], device=logits.device
        ).expand(len(index), 2)
        aims = torch.full_like(labels, _NO_AIM) if target_labels is None else target_labels
        known = torch.stack([index, labels, aims], dim=1)
        self.whole.append(torch.cat([where, known, said.classes], dim=1).int())
        self.real.append(torch.cat([said.true[:, None], said.confidences], dim=1))

    def compute(self) -> pa.Table:
        """Return the table of all processes' rows, sorted by target, budget and index.

        The columns are `index`, `label`, `target_label` (null without an aim), `target`,
        `eps_255`, `predicted`, `confidence`, `true_confidence`, `top5_classes` and
        `top5_confidences`.
        """
        whole = _joined(self.whole).cpu().numpy()
        real = _joined(self.real).cpu().numpy()
        order = np.lexsort((whole[:, 2], whole[:, 1], whole[:, 0]))
        whole, real = whole[order], real[order]
        top = whole.shape[1] - _KNOWN
        aims = whole[:, 4].astype(np.int64)
        return pa.table(
            {
                "index": whole[:, 2].astype(np.int64),
                "label": whole[:, 3].astype(np.int64),
                "target_label": pa.array(aims, mask=aims == _NO_AIM),
                "target": np.array(self.targets, dtype=object)[whole[:, 0]],
                "eps_255": np.array(self.budgets, dtype=np.float64)[whole[:, 1]],
                "predicted": whole[:, _KNOWN].astype(np.int64),
                "confidence": real[:, 1],
                "true_confidence": real[:, 0],
                "top5_classes": pa.FixedSizeListArray.from_arrays(whole[:, _KNOWN:].ravel(), top),
                "top5_confidences": pa.FixedSizeListArray.from_arrays(real[:, 1:].ravel(), top),
            }
        )


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Return the rows whether or not the metric has already concatenated them."""
    return state if isinstance(state, Tensor) else torch.cat(state)
