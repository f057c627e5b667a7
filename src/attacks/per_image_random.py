"""Random streams of attacks, one per image, and other images to mix in."""

from collections.abc import Hashable

import torch
from torch import Tensor

from src.attacks.philox import Philox

_NOISE_STREAM, _SHARED_STREAM, _PIXEL_STREAM = (
    1,
    2,
    3,
)  # apart from the random numbers that attacks draw


class PerImageRandom(Philox):
    """Independent random stream per image, shared by its budgets, and images to mix in.

    Args:
        seeds: See `Philox`; so is `like`.
        labels: Classes of the N images, shape (N,).
        pool: Images to mix in, shape (P, 3, H, W), and their classes, shape (P,).

    Attributes:
        shared: Stream of the run, which gives all of its images the same numbers.
        scratch: State of a transform from one copy to the next of the same gradient.
    """

    def __init__(
        self, seeds: Tensor, like: Tensor, labels: Tensor, pool: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__(seeds, like)
        self.labels = labels
        self.pool = pool
        self.shared = Philox(self.key[1][:, 0], like, _SHARED_STREAM)
        self.scratch: dict[Hashable, Tensor] = {}

    def others(self) -> Tensor:
        """Return for each image one of the pool, of another class where there is one, (N, ...)."""
        images, labels = self.pool
        orders = self.permutations(len(images))
        foreign = labels[orders] != self.labels[:, None]
        first = foreign.int().argmax(dim=1)  # 0, any image, where all have the same class
        return images[orders.gather(1, first[:, None])[:, 0]]


def image_seeds(seed: int, index: Tensor) -> Tensor:
    """Return a number per image, int64 (N,): its index and, in the upper 32 bits, the seed.

    Both are from 0 to 2**32 - 1.
    """
    return torch.tensor(seed) << 32 | index


def noise_signs(seed: int, index: Tensor, like: Tensor) -> Tensor:
    """Return the random signs of the noise control, of the shape and type of `like`, (N, 3, H, W).

    An image's signs depend on its index and the job's seed alone.
    """
    random = Philox(image_seeds(seed, index), like, _NOISE_STREAM)
    return 2 * random.integers(0, 2, *like.shape[1:]).to(like.dtype) - 1


def shuffle_pixels(seed: int, index: Tensor, changes: Tensor) -> Tensor:
    """Return changes (N, 3, H, W) with the pixels of each image in an order of its own."""
    random = Philox(image_seeds(seed, index), changes, _PIXEL_STREAM)
    flat = changes.flatten(2)
    order = random.permutations(flat.shape[2])[:, None].expand_as(flat)
    return flat.gather(2, order).view_as(changes)
