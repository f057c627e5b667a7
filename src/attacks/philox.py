"""Philox, a counter-based random generator: a number depends on key and place alone."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_CONSTANTS = ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85))  # factors, steps of the key
_ROUNDS = 10
_CPU_BLOCKS, _GPU_BLOCKS = 2**17, 2**22  # at once: few enough for a cache, enough for a device
_SMALL, _AHEAD = 64, 32  # blocks of a draw that is made with those after it, and their number


def philox4x32(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Tensor:
    """Return four random words for each counter and key, shape (4, ...): Philox4x32-10.

    Words are int64 from 0 to 2**32 - 1; the four of `counter` and the two of `key` broadcast.

    Reference: Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (2011), SC
    2011.
    """
    c0, c1, c2, c3, _ = torch.broadcast_tensors(*counter, key[0])
    even, odd, ones = torch.stack([c0, c2]), torch.stack([c1, c3]), [1] * c0.ndim
    factors, steps = torch.tensor(_CONSTANTS, device=c0.device).view(2, 2, *ones)
    start = torch.stack([*key]).view(2, *ones[key[0].ndim :], *key[0].shape)
    rounds = torch.arange(_ROUNDS, device=c0.device).view(-1, 1, *ones)
    for round_key in start + rounds * steps:
        # A product of two words wraps, but keeps its 64 bits. Its low word is cut out when used.
        product = (factors * even).flip(0)
        even = (product >> 32).bitwise_xor_(odd).bitwise_xor_(round_key).bitwise_and_(_WORD)
        odd = product
    return torch.stack([even, odd & _WORD], dim=1).flatten(0, 1)


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
        self._first, self._ahead = 0, seeds.new_empty(0, len(seeds), 4, 0)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers of 24 random bits from [low, high), shape `(N, *shape)`."""

        def convert(words: Tensor) -> Tensor:
            return self._bits(words, 24).mul_((high - low) * 2.0**-24).add_(low)

        return self._draw(shape, convert)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, shape `(N, *shape)`, never 0, by Box and Muller."""

        def convert(words: Tensor) -> Tensor:
            pairs = self._bits(words, 23).add_(0.5).mul_(2.0**-23).unflatten(1, (2, 2))
            share, turn = pairs.unbind(2)
            radius, angle = share.log().mul_(-2).sqrt_(), turn * (2 * math.pi)
            return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1, 2)

        return self._draw(shape, convert)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return whole numbers from low to high - 1, int64 `(N, *shape)`.

        Of up to 2**31 numbers, no one's probability is off by more than 2**-32.
        """
        return self._draw(shape, lambda words: (words * (high - low) >> 32) + low)

    def permutations(self, length: int) -> Tensor:
        """Return an order of `length` things for each image, int64 (N, length).

        It sorts random words; two of them are equal with a probability below length**2 / 2**33.
        """
        return self._draw((length,), lambda words: words).argsort(dim=1, stable=True)

    def _bits(self, words: Tensor, count: int) -> Tensor:
        return (words >> (32 - count)).to(torch.int32).to(self.dtype)  # in two steps: vectorised

    def _draw(self, shape: Sequence[int], convert: Callable[[Tensor], Tensor]) -> Tensor:
        """Return numbers (N, *shape), converted from words; large draws some images at a time."""
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
        self.drawn += 1
        return numbers.flatten(1)[:, :count].reshape(images, *shape)

    def _small(self, blocks: int) -> Tensor:
        """Return the words of a small draw, (N, 4, blocks); those of the next draws are kept."""
        place, width = self.drawn - self._first, self._ahead.shape[-1]
        if not 0 <= place < len(self._ahead) or blocks > width:
            self._first, self._ahead = self.drawn, self._words(max(8, blocks, width), _AHEAD)
            place = 0
        return self._ahead[place, ..., :blocks]

    def _words(self, blocks: int, draws: int, rows: slice = slice(None)) -> Tensor:
        """Return the words of this draw and those after it, (draws, N, 4, blocks)."""
        place = torch.arange(blocks, device=self.key[0].device)
        drawn = torch.arange(self.drawn, self.drawn + draws, device=place.device)[:, None, None]
        stream, zero = place.new_tensor([self.stream, 0]).unbind()
        words = philox4x32((place, drawn, stream, zero), [word[rows] for word in self.key])
        return words.movedim(0, 2)
