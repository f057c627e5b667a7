"""Random streams of attacks, one per image, and other images to mix in."""

from collections.abc import Hashable
from functools import cached_property

import torch
from torch import Tensor

from src.attacks.philox import Philox

_NOISE_STREAM, _SHARED_STREAM, _PIXEL_STREAM = 1, 2, 3  # attacks draw from stream 0


class PerImageRandom(Philox):
    """One random stream per image, shared by its budgets, and a pool of images to mix in.

    Args:
        seeds: Whole numbers of 64 bits, shape (N,), see `Philox`.
        like: Tensor with the device and dtype of the numbers, see `Philox`.
        labels: Classes of the N images, shape (N,).
        pool: Images to mix in, shape (P, 3, H, W), and their classes, shape (P,).

    Attributes:
        scratch: State that a transform keeps between the copies of one gradient.
    """

    def __init__(
        self, seeds: Tensor, like: Tensor, labels: Tensor, pool: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__(seeds, like)
        self.labels = labels
        self.pool = pool
        self.scratch: dict[Hashable, Tensor] = {}

    @cached_property
    def shared(self) -> Philox:
        """Stream of the run on the CPU, with the same numbers for all of its images."""
        return Philox(self.key[1][:, 0].cpu(), torch.empty(0, dtype=self.dtype), _SHARED_STREAM)

    def others(self) -> Tensor:
        """Return one image of the pool per image, (N, ...), of another class if there is one."""
        images, labels = self.pool
        orders = self.permutations(len(images))
        foreign = labels[orders] != self.labels[:, None]
        first = foreign.int().argmax(dim=1)  # 0 (any image) if all are of the same class
        return images[orders.gather(1, first[:, None])[:, 0]]


def image_seeds(seed: int, index: Tensor) -> Tensor:
    """Return a seed per image, int64 (N,): the image's index, and `seed` in the upper 32 bits.

    Both are from 0 to 2**32 - 1.
    """
    return torch.tensor(seed) << 32 | index


def noise_signs(seed: int, index: Tensor, like: Tensor) -> Tensor:
    """Return the random signs of the noise control, with shape (N, 3, H, W) and dtype of `like`.

    An image's signs depend only on its index and the job's seed.
    """
    random = Philox(image_seeds(seed, index), like, _NOISE_STREAM)
    return 2 * random.integers(0, 2, *like.shape[1:]).to(like.dtype) - 1


def shuffle_pixels(seed: int, index: Tensor, changes: Tensor) -> Tensor:
    """Return changes (N, 3, H, W) with each image's pixels in its own random order."""
    random = Philox(image_seeds(seed, index), changes, _PIXEL_STREAM)
    flat = changes.flatten(2)
    order = random.permutations(flat.shape[2])[:, None].expand_as(flat)
    return flat.gather(2, order).view_as(changes)
