"""What is computed of each batch beside its predictions: the interface of `src.diagnostics`."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from src.data import Batch
from src.evaluation.predictions import RowMetric


@dataclass(frozen=True)
class DiagnosticInput:
    """What of a batch diagnostics get; there may be no image.

    Attributes:
        clean: float32 (N, 3, H, W) in [0, 1].
        adversarial: Their adversarial versions before any rounding, (K, N, 3, H, W), in [0, 1].
        batch: The batch, with labels and index, (N,).
        budgets: The K budgets in units of 1/255.
        networks: The targets by name: images (N, 3, H, W) in [0, 1] to logits (N, C).
        logits: By target, its logits of `adversarial`, (K, N, C).
        attack: The job's attack on rows of the batch with their own budgets; see `at` of
            `AdversarialBatch`.
    """

    clean: Tensor
    adversarial: Tensor
    batch: Batch
    budgets: tuple[float, ...]
    networks: Mapping[str, nn.Module]
    logits: Mapping[str, Tensor]
    attack: Callable[[Tensor, Tensor], Tensor]


class Diagnostic(RowMetric):
    """A table to which each batch contributes once.

    Attributes:
        table: Name of the table.
    """

    table: ClassVar[str]

    @abstractmethod
    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
