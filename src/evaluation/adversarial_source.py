"""What makes the adversarial images of a batch: an attack, a saved set, or nothing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from src.data import Batch

LIMIT = 30.0
"""Seconds that a batch may take, so that a pass that is killed loses no more."""


@dataclass(frozen=True)
class AdversarialBatch:
    """Adversarial images of a batch.

    Attributes:
        images: float32 (K, N, 3, H, W) in [0, 1].
        target_labels: int64 (N,), the classes aimed for; None of an untargeted attack.
        at: The same attack with a budget for each image: rows of the batch (M,) and budgets in
            units of 1/255, (M,), to images (M, 3, H, W). Only attacks of `src.attacks` take such
            budgets. Gradients taken there are not counted. None without an attack.
    """

    images: Tensor
    target_labels: Tensor | None = None
    at: Callable[[Tensor, Tensor], Tensor] | None = None


class SlowBatchError(Exception):
    """A batch that would take too long; `images` is how many may be attacked together."""

    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.images = images


class AdversarialSource(nn.Module, ABC):
    """What makes the adversarial images of a batch.

    Args:
        budgets: The K budgets in units of 1/255.
        norm: Of the budgets, `linf` or `l2`.

    Attributes:
        gradients: Gradient evaluations so far.
        zero_gradients: How many of them were zero in every pixel.
        gradients_per_image: Gradient evaluations that an image takes; 0: none, or not known.
        uncut: Most images of a batch that is never given up as a `SlowBatchError`.
        taken: Called with the number of gradient evaluations, as they are taken.
    """

    gradients_per_image = 0
    uncut = 1

    def __init__(self, budgets: Sequence[float], norm: str) -> None:
        super().__init__()
        self.budgets = tuple(budgets)
        self.norm = norm
        self.gradients = 0
        self.zero_gradients = 0
        self.taken: Callable[[int], None] = lambda count: None

    @abstractmethod
    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the adversarial versions of a batch.

        Args:
            images: The batch's images, float32 (N, 3, H, W) in [0, 1].
            batch: The same images in 8 bits, with labels and index.

        Raises:
            SlowBatchError: It would take longer than `LIMIT`, and smaller batches would not.
        """

    def reset(self) -> None:
        """Count gradients from 0 again."""
        self.gradients = self.zero_gradients = 0

    def check(self) -> None:
        """Refuse what has been made since `reset` if the source was changed by it."""

    def halve_gradient_batch(self) -> None:
        """Take gradients of half as many images at once, if any are taken."""


class CleanImages(AdversarialSource):
    """No attack: the clean images, under the budget 0."""

    def __init__(self) -> None:
        super().__init__((0.0,), "linf")

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the batch's images as they are."""
        return AdversarialBatch(images[None])
