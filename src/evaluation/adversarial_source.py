"""Sources of adversarial images: an attack, a saved set, or the clean images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from src.data import Batch

LIMIT = 30.0
"""Longest time of a batch in seconds, the most that a killed pass loses."""


@dataclass(frozen=True)
class AdversarialBatch:
    """Adversarial images of a batch, float32 (K, N, 3, H, W) in [0, 1].

    Attributes:
        target_labels: int64 (N,); None of an untargeted attack.
        at: The same attack with a budget for each image: rows of the batch (M,) and budgets in
            units of 1/255, (M,), to images (M, 3, H, W). Only attacks of `src.attacks` take such
            budgets. Gradients taken there are not counted. None without an attack.
        counts: Gradients taken of the batch, those of them that were zero in every pixel, and
            forward passes; None where the images were at hand.
    """

    images: Tensor
    target_labels: Tensor | None = None
    at: Callable[[Tensor, Tensor], Tensor] | None = None
    counts: tuple[int, int, int] | None = None


class SlowBatchError(Exception):
    """A batch that would take too long; `images` of it may be attacked together."""

    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.images = images


class AdversarialSource(nn.Module, ABC):
    """Source of adversarial images for K `budgets` in units of 1/255 of a `norm`, `linf` or `l2`.

    Attributes:
        gradients_per_image: Gradient evaluations that an image takes; 0: none, or not known.
        uncut: Size up to which a batch is never given up as a `SlowBatchError`.
        taken: Called with the number of gradient evaluations, as they are taken.
    """

    gradients_per_image = 0
    uncut = 1

    def __init__(self, budgets: Sequence[float], norm: str) -> None:
        super().__init__()
        self.budgets = tuple(budgets)
        self.norm = norm
        self.taken: Callable[[int], None] = lambda count: None

    @abstractmethod
    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the adversarial versions of a batch, whose float32 `images` are in [0, 1].

        Raises:
            SlowBatchError: The batch would take longer than `LIMIT`, and smaller ones would not.
        """

    def reset(self) -> None:
        """Forget what was noted of the source in an earlier pass."""

    def check(self) -> None:
        """Raise an error if the source has changed since `reset`."""

    def halve_gradient_batch(self) -> None:
        """Halve the images in a gradient batch, if gradients are taken."""


class CleanImages(AdversarialSource):
    """Clean images, unattacked, under the budget 0."""

    def __init__(self) -> None:
        super().__init__((0.0,), "linf")

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the clean images unchanged."""
        return AdversarialBatch(images[None])
