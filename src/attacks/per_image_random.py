"""Random numbers for attacks, image by image, and other images to mix in."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_NOISE_SEED = 1_618_033  # apart from what attacks draw


class PerImageRandom:
    """One random generator an image.

    What an image draws depends on its own seed and on what it drew before, so it is the same in
    any batch, in any order and on any number of processes. All budgets of an image share a draw.

    Args:
        seeds: One whole number an image, shape (N,).
        like: A tensor of the device and the type that draws get.
        labels: Classes of the N images, shape (N,).
        pool: Images to mix in, shape (P, 3, H, W), and their classes, shape (P,).

    Attributes:
        kept: What a transform keeps from one of its copies to the next, by transform.
    """

    def __init__(
        self, seeds: Tensor, like: Tensor, labels: Tensor, pool: tuple[Tensor, Tensor]
    ) -> None:
        self.like = like
        self.labels = labels
        self.pool = pool
        self.kept: dict[Hashable, Tensor] = {}
        self.generators = [torch.Generator(like.device).manual_seed(s) for s in seeds.tolist()]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers from [low, high), shape (N, *shape)."""
        return low + (high - low) * self._each(torch.rand, shape, dtype=self.like.dtype)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, shape (N, *shape)."""
        return self._each(torch.randn, shape, dtype=self.like.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers from low to high - 1, int64 (N, *shape)."""
        return self._each(torch.randint, low, high, shape)

    def permutations(self, length: int) -> Tensor:
        """Return an order of `length` things for each image, int64 (N, length)."""
        return self._each(torch.randperm, length)

    def others(self) -> Tensor:
        """Return for each image one of the pool, of another class where there is one, (N, ...)."""
        images, labels = self.pool
        orders = self.permutations(len(images))
        foreign = labels[orders] != self.labels[:, None]
        first = foreign.int().argmax(dim=1)  # 0, any image, where all have the same class
        return images[orders.gather(1, first[:, None])[:, 0]]

    def _each(self, draw: Callable[..., Tensor], *what: Any, **options: Any) -> Tensor:
        options["device"] = self.like.device
        return torch.stack([draw(*what, generator=own, **options) for own in self.generators])


def image_seeds(seed: int, index: Tensor) -> Tensor:
    """Return one number an image, shape (N,), that its generator is seeded with."""
    return (index.cpu() + 1_000_003 * seed) % 2**32


def noise_signs(seed: int, index: Tensor, like: Tensor) -> Tensor:
    """Return the random signs of the noise control, -1 or 1 with equal chances.

    Args:
        seed: Of the job.
        index: Of the N images; the signs of one depend on its own index and on the seed alone.
        like: A tensor (N, 3, H, W), whose shape, type and device they get.
    """
    seeds = image_seeds(seed + _NOISE_SEED, index)
    random = PerImageRandom(seeds, like, index, (like, index))  # nothing is mixed in
    return random.normal(*like.shape[1:]).sign()
