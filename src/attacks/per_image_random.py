"""Random numbers that depend on an image's seed alone: counter-based generators per image."""

import math
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..utils.devices import constant

_WORD = 0xFFFFFFFF
_CONSTANTS = ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85))  # multipliers, key increments
_ROUNDS = 10
_CPU_BLOCKS, _GPU_BLOCKS = 2**17, 2**22  # per call: fits a CPU cache, fills a GPU
_SMALL, _AHEAD = 64, 32  # draws of at most _SMALL blocks are made _AHEAD at a time


def philox4x32(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Tensor:
    """Compute Philox4x32-10: four random words per counter and key, shape (4, ...).

    Words are int64 from 0 to 2**32 - 1. The four words of `counter` and the two of `key` broadcast.

    Reference: Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (2011), SC
    2011.
    """
    c0, c1, c2, c3, _ = torch.broadcast_tensors(*counter, key[0])
    even, odd, ones = torch.stack([c0, c2]), torch.stack([c1, c3]), [1] * c0.ndim
    factors, steps = constant(_CONSTANTS, torch.int64, c0.device).view(2, 2, *ones)
    start = torch.stack([*key]).view(2, *ones[key[0].ndim :], *key[0].shape)
    rounds = torch.arange(_ROUNDS, device=c0.device).view(-1, 1, *ones)
    for round_key in start + rounds * steps:
        # The product of two words overflows int64 but keeps 64 bits; its low word is masked later.
        product = (factors * even).flip(0)
        even = (product >> 32).bitwise_xor_(odd).bitwise_xor_(round_key).bitwise_and_(_WORD)
        odd = product
    return torch.stack([even, odd & _WORD], dim=1).flatten(0, 1)


class Philox:
    """Random numbers for N images, from Philox4x32-10 with one key per image.

    A number depends only on the image's seed, the number of earlier draws and its position in the
    draw. It is the same in any batch and order, with any number of processes and on any device
    (normal numbers: up to the last digits).

    Args:
        seeds: Whole numbers of 64 bits, shape (N,).
        like: Tensor with the device and dtype of the numbers, which are at least float32.
        stream: Number from 0 to 2**32 - 1; streams have different numbers for the same seeds.
    """

    def __init__(self, seeds: Tensor, like: Tensor, stream: int = 0) -> None:
        seeds = seeds.to(like.device, torch.int64)[:, None]
        self.key = (seeds, seeds >> 32)
        self.dtype = torch.promote_types(like.dtype, torch.float32)
        self.stream = stream
        self.count = 0
        self._first, self._ahead = 0, seeds.new_empty(0, len(seeds), 4, 0)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return uniform numbers from [low, high) with 24 random bits, shape `(N, *shape)`."""

        def convert(words: Tensor) -> Tensor:
            return self._bits(words, 24).mul_((high - low) * 2.0**-24).add_(low)

        return self._draw(shape, convert)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, never 0, shape `(N, *shape)`, by Box and Muller."""

        def convert(words: Tensor) -> Tensor:
            pairs = self._bits(words, 23).add_(0.5).mul_(2.0**-23).unflatten(1, (2, 2))
            share, turn = pairs.unbind(2)
            radius, angle = share.log().mul_(-2).sqrt_(), turn * (2 * math.pi)
            return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1, 2)

        return self._draw(shape, convert)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers from low to high - 1, int64 `(N, *shape)`.

        For up to 2**31 different numbers, each probability is exact to 2**-32.
        """
        return self._draw(shape, lambda words: (words * (high - low) >> 32) + low)

    def permutations(self, length: int) -> Tensor:
        """Return a random order of `length` items per image, int64 (N, length).

        It sorts random words; the probability that two are equal is below length**2 / 2**33.
        """
        return self._draw((length,), lambda words: words).argsort(dim=1, stable=True)

    def _bits(self, words: Tensor, count: int) -> Tensor:
        return (words >> (32 - count)).to(torch.int32).to(self.dtype)  # two steps vectorise

    def _draw(self, shape: Sequence[int], convert: Callable[[Tensor], Tensor]) -> Tensor:
        """Return numbers (N, *shape) converted from words; large draws are split by images."""
        images, count = len(self.key[0]), math.prod(shape)
        blocks = math.ceil(count / 4)
        if blocks <= _SMALL:
            numbers = convert(self._small(blocks))
        else:
            limit = _CPU_BLOCKS if self.key[0].device.type == "cpu" else _GPU_BLOCKS
            rows = max(1, limit // blocks)
            starts = range(0, max(1, images), rows)
            parts = (self._words(blocks, 1, slice(n, n + rows))[0] for n in starts)
            numbers = torch.cat([*map(convert, parts)])
        self.count += 1
        return numbers.flatten(1)[:, :count].reshape(images, *shape)

    def _small(self, blocks: int) -> Tensor:
        """Return the words of a small draw, (N, 4, blocks), and keep those of the next draws."""
        place, width = self.count - self._first, self._ahead.shape[-1]
        if not 0 <= place < len(self._ahead) or blocks > width:
            self._first, self._ahead = self.count, self._words(max(8, blocks, width), _AHEAD)
            place = 0
        return self._ahead[place, ..., :blocks]

    def _words(self, blocks: int, draws: int, rows: slice = slice(None)) -> Tensor:
        """Return the words of this draw and the next ones, (draws, N, 4, blocks)."""
        place = torch.arange(blocks, device=self.key[0].device)
        numbers = torch.arange(self.count, self.count + draws, device=place.device)[:, None, None]
        # Tensors from Python numbers are copied, and the copies wait for a GPU.
        stream, zero = place.new_full((), self.stream), place.new_zeros(())
        words = philox4x32((place, numbers, stream, zero), [word[rows] for word in self.key])
        return words.movedim(0, 2)


_NOISE_STREAM, _SHARED_STREAM, _PIXEL_STREAM = 1, 2, 3  # attacks draw from stream 0


class PerImageRandom(Philox):
    """One random stream per image, shared by its budgets, and a pool of images to mix in.

    Args:
        seeds: Whole numbers of 64 bits, shape (N,), see `Philox`.
        like: Tensor with the device and dtype of the numbers, see `Philox`.
        labels: Classes of the N images, shape (N,).
        pool: Images to mix in, shape (P, 3, H, W), and their classes, shape (P,).

    Attributes:
        scratch: State that a transform keeps between the copies of one gradient; `losses` are those
            of the last copy, (K, N), which estimators may read.
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
