"""What every diagnostic is: it looks at each batch once and yields a table at the end."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from src.data import Batch

TOP_K = 5


@dataclass(frozen=True)
class DiagnosticInput:
    """What there is to see of a batch.

    Attributes:
        clean: float32 (N, 3, H, W) in [0, 1].
        made: Their adversarial versions before any rounding, (K, N, 3, H, W), of the same range.
        batch: The batch, with labels and index, (N,).
        budgets: The K budgets in units of 1/255.
        source: The attacked model.
        networks: The targets by name: images (N, 3, H, W) in [0, 1] to logits (N, C).
        logits: By target, its answers to `made`, (K, N, C).
        attack: Rows of the batch (M,) and a budget for each in units of 1/255, (M,), to what the
            job's own attack makes of them, (M, 3, H, W).
    """

    clean: Tensor
    made: Tensor
    batch: Batch
    budgets: tuple[float, ...]
    source: nn.Module
    networks: Mapping[str, nn.Module]
    logits: Mapping[str, Tensor]
    attack: Callable[[Tensor, Tensor], Tensor]


class TopPredictions(NamedTuple):
    """What a model says of N images.

    Attributes:
        true: Probability of the true class, (N,).
        classes: The five most likely classes, int64 (N, 5), or all if there are fewer.
        confidences: Their probabilities, descending.
    """

    true: Tensor
    classes: Tensor
    confidences: Tensor

    @property
    def predicted(self) -> Tensor:
        """The most likely class, (N,)."""
        return self.classes[:, 0]

    def where(self, chosen: Tensor, others: "TopPredictions") -> "TopPredictions":
        """Return these answers for the chosen images, (N,) of bool, and others for the rest."""
        return TopPredictions(
            torch.where(chosen, self.true, others.true),
            torch.where(chosen[:, None], self.classes, others.classes),
            torch.where(chosen[:, None], self.confidences, others.confidences),
        )


def answers(target: str, logits: Tensor, labels: Tensor) -> TopPredictions:
    """Return what logits (N, C) say about images of the classes `labels`, (N,).

    Raises:
        ValueError: The logits are not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"{target} answered with logits that are not finite.")
    probabilities = logits.float().softmax(dim=1)
    top = probabilities.topk(min(TOP_K, logits.shape[1]), dim=1)
    true = probabilities.gather(1, labels[:, None])[:, 0]
    return TopPredictions(true, top.indices, top.values)


class Diagnostic(Metric, ABC):
    """Something that looks at each batch once, kept as rows that ranks merge by concatenation.

    Args:
        targets: Names of the models, in the order in which the table lists them.

    Attributes:
        table: Name of the table that it yields.
    """

    table: ClassVar[str]
    full_state_update = False
    whole: list[Tensor]
    real: list[Tensor]

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__()
        self.targets = list(targets)
        self.add_state("whole", default=[], dist_reduce_fx="cat")
        self.add_state("real", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def update(self, seen: DiagnosticInput) -> None:
        """Look at one batch."""

    @abstractmethod
    def compute(self) -> pa.Table:
        """Return the table of all processes' rows."""

    def keep(self, whole: Sequence[Tensor], real: Sequence[Tensor]) -> None:
        """Note rows, none as well: processes merge their rows only if all of them have some.

        Args:
            whole: Columns of whole numbers, (M,) or (M, c) each.
            real: Columns of other numbers, likewise.
        """
        device = torch.device("cpu") if self.device.type == "mps" else self.device  # no float64
        self.whole.append(torch.column_stack([column.to(device) for column in whole]).int())
        self.real.append(torch.column_stack([column.to(device).double() for column in real]))

    def rows(self, keys: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows' whole numbers and their others, sorted by the first columns."""
        whole, real = (_joined(state).cpu().numpy() for state in (self.whole, self.real))
        order = np.lexsort(whole[:, :keys].T[::-1])
        return whole[order].astype(np.int64), real[order]

    def names(self, numbers: np.ndarray) -> np.ndarray:
        """Return the targets' names by their numbers."""
        return np.array(self.targets, dtype=object)[numbers]


def numbered(number: int, like: Tensor) -> Tensor:
    """Return a column that repeats one number."""
    return torch.full_like(like, number)


def lists(rows: np.ndarray) -> pa.Array:
    """Return each row of a table (N, c) as a list of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Return the rows whether or not the metric has already concatenated them."""
    return state if isinstance(state, Tensor) else torch.cat(state)
