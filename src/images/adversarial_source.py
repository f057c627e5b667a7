"""Sources of adversarial images: an attack, a saved set, or changed clean images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from torch import Tensor, nn

from src.data import Batch


@dataclass(frozen=True)
class AdversarialBatch:
    """Adversarial images of a batch, float32 (K, N, 3, H, W) in [0, 1].

    Attributes:
        target_labels: int64 (N,); None of an untargeted attack.
        counts: Gradients taken of the batch, those of them that were zero in every pixel, and
            forward passes; None where the images were at hand.
    """

    images: Tensor
    target_labels: Tensor | None = None
    counts: tuple[int, int, int] | None = None


class AdversarialSource(nn.Module, ABC):
    """Source of adversarial images for K `budgets` in units of 1/255 of a `norm`, `linf` or `l2`.

    Attributes:
        levels: Columns by which tables tell the K versions of an image apart.
        max_batch: Most images in one gradient batch; None: no limit.
        max_images: Most images that `forward` is given at once; None: as many as the trainer says.
    """

    max_batch: int | None = None
    max_images: int | None = None

    def __init__(self, budgets: Sequence[float], norm: str) -> None:
        super().__init__()
        self.budgets = tuple(budgets)
        self.norm = norm
        self.levels = pa.table({"eps_255": pa.array(self.budgets, pa.float64())})

    @abstractmethod
    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the adversarial versions of a batch, whose float32 `images` are in [0, 1]."""


class Probe(AdversarialSource):
    """Clean images changed without an attack, in the same way for all models.

    Args:
        levels: Columns that tell the K versions of an image apart, such as `cutoff`.
        make: Clean images (N, 3, H, W) and their index (N,) to the versions, (K, N, 3, H, W).
    """

    def __init__(self, levels: pa.Table, make: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__([0.0] * len(levels), "linf")
        self.levels, self.make = levels, make

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the changed images."""
        return AdversarialBatch(self.make(images, batch.index))


def clean_images() -> Probe:
    """Return the probe of the unchanged images, under the budget 0."""
    return Probe(pa.table({"eps_255": [0.0]}), lambda images, index: images[None])
