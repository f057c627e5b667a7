import math
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import rgb_to_grayscale

from src.attacks.define import attack
from src.attacks.per_image_random import PerImageRandom
from src.attacks.projection import clip
from src.utils.checked_dataclass import Share, checked

LEAST = 30 / 224  # of the image's side, that a block has


@checked
class ScaledBlocks:
    """Change the image as a whole, cut it into 2 x 3 or 3 x 2 blocks, and scale each by itself.

    The change is, with equal chances, a flip of either axis, a contrast, brightness or saturation
    times U(0, 2), clipped to [0, 1], or a hue shifted by U(-1/2, 1/2) of the circle. Cuts are
    uniform among those that leave each block at least 30/224 of a side. A block's scale is
    rho ~ U(1 / largest, largest): it is shrunk, with smoothing, and put on black at a random place,
    or a random part of it, rho times smaller along each side, is enlarged.

    Args:
        copies: Number of versions.
        largest: Largest scale.
        scaling: Chance of each block to be scaled.
        colour: Chance of the image to be changed as a whole.

    Reference: Liu et al. (2024), arXiv 2410.13891 (there r = 1.7, p_R = 0.9).

    Deviation: parts that are enlarged are rounded down to whole pixels (authors: to the nearest).
    """

    copies: PositiveInt = 1
    largest: Annotated[float, Ge(1), Le(4)] = 1.7
    scaling: Share = 0.9
    colour: Share = 1.0

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        pairs = zip(images.unbind(1), random.uniform(31).tolist(), strict=True)
        return torch.stack([self._change(image, numbers) for image, numbers in pairs], dim=1)

    def _change(self, image: Tensor, numbers: Sequence[float]) -> Tensor:
        """Return images (K, 3, H, W), changed by 31 numbers from [0, 1)."""
        chance, kind, amount, order, *cuts = numbers[:7]
        if chance < self.colour:
            image = CHANGES[int(kind * len(CHANGES))](image, amount)
        between = 1 if order < 0.5 else 2  # cuts between rows of blocks; the others between columns
        heights, widths = (
            _lengths(side, shares)
            for side, shares in zip(image.shape[-2:], (cuts[:between], cuts[between:]), strict=True)
        )
        rest, rows = iter(numbers[7:]), []
        for strip in image.split(heights, dim=-2):
            blocks = strip.split(widths, dim=-1)
            scaled = [self._scale(block, *islice(rest, 4)) for block in blocks]
            rows.append(torch.cat(scaled, dim=-1))
        return torch.cat(rows, dim=-2)

    def _scale(
        self, block: Tensor, chance: float, number: float, top: float, left: float
    ) -> Tensor:
        if chance >= self.scaling:
            return block
        rho = 1 / self.largest + number * (self.largest - 1 / self.largest)
        height, width = block.shape[-2:]
        h, w = (max(1, math.floor(min(rho, 1 / rho) * side)) for side in (height, width))
        above, before = math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1))
        if rho >= 1:
            return _resize(block[..., above : above + h, before : before + w], (height, width))
        frame = (before, width - w - before, above, height - h - above)
        return functional.pad(_resize(block, (h, w)), frame)


def _lengths(side: int, shares: Sequence[float]) -> list[int]:
    """Return lengths between cuts, each at least LEAST of the side but for rounding, and 1."""
    least = max(1.0, LEAST * side)
    room = side - (len(shares) + 1) * least
    cuts = [math.floor(n * least + share * room) for n, share in enumerate(sorted(shares), 1)]
    return [end - start for start, end in pairwise([0, *cuts, side])]


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(images, size, mode="bilinear", antialias=True)


def _blend(image: Tensor, other: Tensor, share: float) -> Tensor:
    return clip(other + 2 * share * (image - other))


def _hue(image: Tensor, share: float) -> Tensor:
    """Shift hues by `share` of the circle; torchvision's own does so in float32 alone."""
    (red, green, blue), largest = image.unbind(dim=-3), image.amax(dim=-3)
    chroma = largest - image.amin(dim=-3)
    unit = torch.where(chroma > 0, chroma, 1)
    other = torch.where(largest == green, 2 + (blue - red) / unit, 4 + (red - green) / unit)
    sextant = torch.where(largest == red, (green - blue) / unit, other)
    first = torch.tensor([5.0, 3.0, 1.0]).to(image)[:, None, None]
    place = (first + sextant[..., None, :, :] + 6 * share) % 6
    below = torch.minimum(place, 4 - place).clamp(0, 1)
    return largest[..., None, :, :] - chroma[..., None, :, :] * below


CHANGES: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda image, share: image.flip(-1 if share < 0.5 else -2),
    lambda image, share: _blend(image, rgb_to_grayscale(image).mean((-3, -2, -1), True), share),
    lambda image, share: _blend(image, torch.zeros_like(image), share),
    lambda image, share: _blend(image, rgb_to_grayscale(image), share),
    lambda image, share: _hue(image, share - 0.5),
)
"""Flip, contrast, brightness, saturation and hue of images (K, 3, H, W) by a number in [0, 1)."""


@attack(
    transform=ScaledBlocks,
    loss="calibrated",
    steps=900,
    relative_step_size=0.125,
    decay=1.0,
    kernel_size=5,
)
def s4st() -> None:
    """Blocks scaled strongly, colours changed, 900 steps: made for target labels, with momentum."""
