"""Training images, for attacks that fit a state to their source before they attack."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .per_image_random import PerImageRandom
from .projection import check_numbers

State = Mapping[str, Tensor]
"""Result of a fit: tensors by name."""
Fit = Callable[[], State]
"""Function that computes a state."""


class TrainingBatch(NamedTuple):
    """Batch of training images.

    Attributes:
        images: Images in [0, 1], (N, 3, H, W).
        labels: True classes, or target labels for a targeted attack, (N,).
        true_labels: True classes, (N,).
        seeds: Seeds of the images' random numbers, (N,).
    """

    images: Tensor
    labels: Tensor
    true_labels: Tensor
    seeds: Tensor

    def random(self) -> PerImageRandom:
        """Return the images' random numbers, with the batch as the pool of images to mix in."""
        pool = self.images, self.true_labels
        return PerImageRandom(self.seeds, self.images, self.true_labels, pool)


Read = Callable[[Sequence[int], torch.Generator | None], TrainingBatch]
"""Function (positions of training images, generator) -> batch. With a generator, the images are
augmented as in the training of a network."""


def in_levels(eps: float) -> float:
    """Return a budget, perhaps of a float32 tensor, in units of 1/255 with the digits that it has.

    >>> in_levels(0.0313725508749485)
    8.0
    """
    return float(f"{255 * eps:.6g}")


def _fit_now(eps: float, fit: Fit) -> State:
    return fit()


def _refuse(*_: object) -> Any:
    raise ValueError("the attack is fitted to images: pass training_images=TrainingImages.of(...).")


@dataclass(frozen=True)
class TrainingImages:
    """Training images of an attack, and the states that it has fitted to them.

    An attack that needs them has the keyword `training_images`. One that trains weights states
    `as_built = True`: its source then keeps its layers as built, and its labels are true classes.

    Attributes:
        count: Number of images.
        read: Function that reads them.
        seed: Seed of their order.
        targeted: True if their labels are target labels.
        max_batch: Largest number of images in a gradient batch; None: no limit.
        fitted: Function (eps, fit) -> state for a budget in [0, 1] units; 0: for all budgets. A
            state that is stored for these settings comes back; otherwise `fit` computes it.
    """

    count: int
    read: Read
    seed: int = 0
    targeted: bool = False
    max_batch: int | None = None
    fitted: Callable[[float, Fit], State] = _fit_now

    @classmethod
    def of(
        cls, images: Tensor, labels: Tensor, target_labels: Tensor | None = None, seed: int = 0
    ) -> "TrainingImages":
        """Return training images from tensors; each call of an attack fits anew.

        Args:
            images: Images in [0, 1], (N, 3, H, W).
            labels: True classes, (N,).
            target_labels: Target labels, (N,); None: the attack is untargeted.
            seed: Seed of the order of the images.
        """
        true_labels = check_numbers("labels", labels, images)
        aims = labels if target_labels is None else target_labels
        aims = check_numbers("target_labels", aims, images)

        def read(positions: Sequence[int], generator: torch.Generator | None) -> TrainingBatch:
            where = torch.tensor(positions, device=images.device)
            return TrainingBatch(images[where], aims[where], true_labels[where], where)

        return cls(len(images), read, seed, targeted=target_labels is not None)

    def batches(self, epoch: int, size: int, *, augmented: bool = False) -> Iterator[TrainingBatch]:
        """Yield all images in batches; their order depends only on seed and epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        for part in torch.randperm(self.count, generator=generator).split(size):
            batch = self.read(part.tolist(), generator if augmented else None)
            yield batch._replace(seeds=batch.seeds + (epoch << 32))  # defences draw new numbers


NO_TRAINING_IMAGES = TrainingImages(0, _refuse, fitted=_refuse)
"""What an attack has without training images; a fit is refused."""
