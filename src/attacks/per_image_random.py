"""Random streams of attacks, one per image, and other images to mix in."""

from collections.abc import Hashable

import torch
from torch import Tensor

from src.attacks.philox import Philox

_NOISE_STREAM, _SHARED_STREAM = 1, 2  # apart from the random numbers that attacks draw


class PerImageRandom(Philox):
    """Independent random stream per image, shared by its budgets, and images to mix in.

    Args:
        seeds: One whole number an image, shape (N,).
        like: A tensor of the device and the type that numbers get; see `Philox`.
        labels: Classes of the N images, shape (N,).
        pool: Images to mix in, shape (P, 3, H, W), and their classes, shape (P,).

    Attributes:
        shared: Stream of the run, which gives all of its images the same numbers.
        kept: State that a transform keeps from one copy to the next of the same gradient.
    """

    def __init__(
        self, seeds: Tensor, like: Tensor, labels: Tensor, pool: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__(seeds, like)
        self.labels = labels
        self.pool = pool
        self.shared = Philox(self.key[1][:, 0], like, _SHARED_STREAM)
        self.kept: dict[Hashable, Tensor] = {}

    def others(self) -> Tensor:
        """Return for each image one of the pool, of another class where there is one, (N, ...)."""
        images, labels = self.pool
        orders = self.permutations(len(images))
        foreign = labels[orders] != self.labels[:, None]
        first = foreign.int().argmax(dim=1)  # 0, any image, where all have the same class
        return images[orders.gather(1, first[:, None])[:, 0]]


def image_seeds(seed: int, index: Tensor) -> Tensor:
    """Return one number an image, int64 (N,): its index and, in the upper 32 bits, the seed.

    Args:
        seed: Number from 0 to 2**32 - 1.
        index: Numbers of the N images, from 0 to 2**32 - 1.
    """
    return torch.tensor(seed) << 32 | index


def noise_signs(seed: int, index: Tensor, like: Tensor) -> Tensor:
    """Return the random signs of the noise control, -1 or 1 with equal chances.

    Those of an image depend on its own index and on the job's seed alone. They get shape, type and
    device of `like`, (N, 3, H, W).
    """
    random = Philox(image_seeds(seed, index), like, _NOISE_STREAM)
    return 2 * random.integers(0, 2, *like.shape[1:]).to(like.dtype) - 1
