"""Philox, a counter-based random generator: a number depends on key and place alone."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_CPU_BLOCKS, _GPU_BLOCKS = 2**17, 2**22  # at once: few enough for a cache, enough for a device

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Words:
    """Return four random words for each counter and key: Philox4x32-10.

    Words are int64 from 0 to 2**32 - 1; the four of `counter` and the two of `key` broadcast.

    Reference: Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (2011), SC
    2011.
    """
    c0, c1, c2, c3 = counter
    for step in range(_ROUNDS):
        k0, k1 = (word + step * more for word, more in zip(key, _KEY_STEPS, strict=True))
        # A product of two words wraps, but keeps its 64 bits. Its low word is cut out when used.
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1 = ((p1 >> 32) ^ c1 ^ k0) & _WORD, p1
        c2, c3 = ((p0 >> 32) ^ c3 ^ k1) & _WORD, p0
    return c0, c1 & _WORD, c2, c3 & _WORD


class Philox:
    """Random numbers of N images, made by Philox4x32-10 with a key for each.

    A number depends on the image's seed, on how many draws came before and on its place in the
    draw: it is the same in any batch, order, number of processes and on any device (normal numbers:
    but for the last digits).

    Args:
        seeds: Whole numbers of 64 bits, shape (N,).
        like: A tensor of the device and the type that numbers get, at least float32.
        stream: Number from 0 to 2**32 - 1; another one has other numbers for the same seeds.
    """

    def __init__(self, seeds: Tensor, like: Tensor, stream: int = 0) -> None:
        seeds = seeds.to(like.device, torch.int64)[:, None]
        self.key = (seeds, seeds >> 32)
        self.dtype = torch.promote_types(like.dtype, torch.float32)
        self.stream = stream
        self.drawn = 0

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers of 24 random bits from [low, high), shape `(N, *shape)`."""

        def convert(words: Words) -> list[Tensor]:
            scale = (high - low) * 2.0**-24
            return [self._bits(word, 24).mul_(scale).add_(low) for word in words]

        return self._draw(shape, convert, self.dtype)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, shape `(N, *shape)`, never 0, by Box and Muller."""

        def convert(words: Words) -> Iterable[Tensor]:
            for pair in (words[:2], words[2:]):
                share, turn = (self._bits(word, 23).add_(0.5).mul_(2.0**-23) for word in pair)
                radius, angle = share.log_().mul_(-2).sqrt_(), turn.mul_(2 * math.pi)
                yield radius * angle.cos()
                yield radius * angle.sin()

        return self._draw(shape, convert, self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers from low to high - 1, int64 `(N, *shape)`.

        Of up to 2**31 numbers, no one's probability is off by more than 2**-32.
        """
        return self._draw(
            shape, lambda words: [(word * (high - low) >> 32) + low for word in words], torch.int64
        )

    def permutations(self, length: int) -> Tensor:
        """Return an order of `length` things for each image, int64 (N, length).

        It sorts random words; two of them are equal with a probability below length**2 / 2**33.
        """
        return self._draw((length,), lambda words: words, torch.int64).argsort(dim=1, stable=True)

    def _bits(self, word: Tensor, count: int) -> Tensor:
        return (word >> (32 - count)).to(torch.int32).to(self.dtype)  # in two steps: vectorised

    def _draw(
        self, shape: Sequence[int], convert: Callable[[Words], Iterable[Tensor]], dtype: torch.dtype
    ) -> Tensor:
        """Return numbers (N, *shape), converted from words some images at a time."""
        images, device = len(self.key[0]), self.key[0].device
        count = math.prod(shape)
        blocks = math.ceil(count / 4)
        limit = _CPU_BLOCKS if device.type == "cpu" else _GPU_BLOCKS
        place = torch.arange(blocks, device=device)
        others = torch.tensor([self.drawn, self.stream, 0]).unbind()  # numbers, on any device
        result = torch.empty(images, 4, blocks, dtype=dtype, device=device)
        rows = max(1, limit // max(1, blocks))
        for first in range(0, images, rows):
            key = [word[first : first + rows] for word in self.key]
            words, part = philox4x32((place, *others), key), result[first : first + rows]
            for target, numbers in zip(part.unbind(1), convert(words), strict=True):
                target.copy_(numbers)
        self.drawn += 1
        return result.flatten(1)[:, :count].reshape(images, *shape)
