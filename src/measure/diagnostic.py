"""Interface of diagnostics, which are computed of each batch beside its predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
from torch import Tensor, nn

from src.data import Batch


@dataclass(frozen=True)
class DiagnosticInput:
    """Inputs of a diagnostic for one batch.

    Attributes:
        clean: float32 (N, 3, H, W) in [0, 1].
        adversarial: Adversarial versions before any rounding, (K, N, 3, H, W), in [0, 1].
        budgets: K budgets in units of 1/255.
        networks: Targets by name: images (N, 3, H, W) in [0, 1] to logits (N, C).
        logits: Logits of `adversarial` by target, (K, N, C).
    """

    clean: Tensor
    adversarial: Tensor
    batch: Batch
    budgets: tuple[float, ...]
    networks: Mapping[str, nn.Module]
    logits: Mapping[str, Tensor]


class Diagnostic(ABC):
    """A table, whose name is `table`, to which each batch contributes once."""

    table: ClassVar[str]

    @abstractmethod
    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return the rows of one batch."""
