from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from src.attacks.define import attack
from src.attacks.per_image_random import PerImageRandom
from src.attacks.projection import clip
from src.utils.checked_dataclass import Share, checked

LEAST = 30 / 224  # smallest share of the image's side that a block has
GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue
Array = NDArray[Any]


@checked
class ScaledBlocks:
    """Change the image as a whole, cut it into 2 x 3 or 3 x 2 blocks, and scale each by itself.

    The change is, with equal probability, a flip of either axis, a contrast, brightness or
    saturation times U(0, 2), clipped to [0, 1], or a hue shifted by U(-1/2, 1/2) of the circle.
    Cuts are uniform among those that leave each block at least 30/224 of a side. A block's scale is
    rho ~ U(1 / largest, largest). Below 1, the block is shrunk, with smoothing, and placed on black
    at random. Otherwise a random part of it, rho times smaller along each side, is enlarged.

    Args:
        copies: Number of versions.
        largest: Largest scale.
        scaling: Probability that a block is scaled.
        colour: Probability that the image is changed as a whole.

    Reference: Liu et al. (2024), arXiv 2410.13891 (there r = 1.7, p_R = 0.9).

    Deviation: parts that are enlarged are rounded down to whole pixels (authors: to the nearest).
    """

    copies: PositiveInt = 1
    largest: Annotated[float, Ge(1), Le(4)] = 1.7
    scaling: Share = 0.9
    colour: Share = 1.0

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        numbers = random.uniform(31).cpu().numpy().astype(float)  # few of them: NumPy is faster
        kind = np.where(numbers[:, 0] < self.colour, (5 * numbers[:, 1]).astype(int), 5)
        flipped = (kind[:, None] == 0) & ((numbers[:, 2:3] < 0.5) == (False, True))
        lines = torch.from_numpy(self._lines(numbers[:, 3:], flipped, images.shape[-2:]))
        place, decay, low, high, inside = lines.to(images).unbind()
        pixels = torch.arange(0.5, lines.shape[-1], dtype=low.dtype, device=low.device)[:, None]
        weights = (1 - (pixels - place).abs_().mul_(decay)).clamp_min_(0)
        weights *= (pixels > low) & (pixels < high)
        weights /= weights.sum(-2, keepdim=True).clamp_min_(1e-9)
        (down, across), (in_row, in_column) = weights.unbind(1), inside.unbind(1)
        (height, width), images = images.shape[-2:], _recolour(images, kind, numbers[:, 2])
        across = across[..., :width, :width].flatten(1, 2)
        with torch.autocast(images.device.type, enabled=False):
            strips = images[..., None, :] * in_row[..., :height].permute(0, 2, 3, 1)[..., None]
            strips = strips.reshape(*images.shape[:2], 3 * height, 3 * width) @ across
            strips = strips.unflatten(2, (3, 1, height)) * in_column[:, None, ..., :width]
            down = down[..., :height, :height].flatten(1, 2).mT[:, None]
            return down @ strips.flatten(-3, -2)

    def _lines(self, numbers: Array, flipped: Array, sides: Sequence[int]) -> Array:
        """Return how to resize lines along each axis, per strip of the other, from 28 numbers.

        The result, (5, N, 2, 3, 1, L), holds for each line its place in the source, the decay of
        the weights around it, both ends of the pixels with weights, and 1 inside the strip of the
        line's own axis.
        """
        halved, strips = numbers[:, :1] < 0.5, np.arange(3)[:, None]
        ends, pixels = _cut(numbers[:, 1:4], halved, sides), np.arange(max(sides)) + 0.5
        strip = (pixels > ends[..., 1:3, None]).sum(2)
        start, end = (np.take_along_axis(ends, strip + n, 2)[:, :, None] for n in (0, 1))
        steps = np.where(halved, (3, 1), (2, 1))[..., None, None]
        block = np.minimum(steps * strip[:, :, None] + steps[:, ::-1] * strips, 5)
        start, size, _ = np.broadcast_arrays(start, np.maximum(end - start, 1), block)
        values = numbers[:, 4:].reshape(-1, 6, 4)[np.arange(len(block)).reshape(-1, 1, 1, 1), block]
        chance, number, top, left = np.moveaxis(values, -1, 0)
        share = np.stack([top[:, 0], left[:, 1]], axis=1)
        rho = 1 / self.largest + number * (self.largest - 1 / self.largest)
        rho = np.where(chance < self.scaling, rho, 1)
        small = np.maximum(np.floor(np.minimum(rho, 1 / rho) * size), 1)
        first = start + np.floor(share * (size - small + 1))
        low, new = np.where(rho >= 1, (first, start), (start, first))
        length, scale = np.where(rho >= 1, (small, small / size), (size, size / small))
        place, high = low + (pixels - new) * scale, low + length
        place = np.where((place > low) & (place < high), place, -np.inf)
        lines = np.stack([place, low, high])
        turned = np.array(sides)[:, None, None] - lines[[0, 2, 1]]
        place, low, high = np.where(flipped[..., None, None], turned, lines)
        strip[flipped[:, 0], 0, : sides[0]] = strip[flipped[:, 0], 0, sides[0] - 1 :: -1]
        inside = np.broadcast_to(strip[:, :, None] == strips, place.shape)
        return np.stack([place, 1 / np.maximum(scale, 1), low, high, inside])[..., None, :]


def _cut(shares: Array, halved: Array, sides: Sequence[int]) -> Array:
    """Return the ends of 2 x 3 or 3 x 2 strips of at least LEAST of a side each, (N, 2, 4)."""
    side = np.array(sides, dtype=float)
    least = np.maximum(1, LEAST * side)
    half_share = np.where(halved, shares[:, :1], shares[:, 2:])
    third_shares = np.sort(np.where(halved, shares[:, 1:], shares[:, :2]), axis=1)
    half = np.floor(least + half_share * (side - 2 * least))
    thirds = np.floor(np.outer(least, (1, 2)) + third_shares[:, None] * (side - 3 * least)[:, None])
    ends = np.zeros((*half.shape, 4)) + side[:, None] * (0, 1, 1, 1)
    in_two = (halved == (True, False))[..., None]
    ends[..., 1:3] = np.where(in_two, np.stack([half, ends[..., 3]], axis=-1), thirds)
    return ends


def _recolour(images: Tensor, kind: Array, share: Array) -> Tensor:
    """Change contrast, brightness, saturation (kinds 1 to 3) or hue (4) of some images."""
    way = np.array([0, 1, 1, 1, 2, 0])[kind]
    order, counts = way.argsort(), np.bincount(way, minlength=3).tolist()
    numbers = np.stack([2 * share, kind == 1, kind == 3, 6 * share - 3])[:, order, None, None, None]
    _, blended, turned = torch.from_numpy(numbers).to(images).split(counts, dim=1)
    forth, back = torch.from_numpy(np.stack([order, order.argsort()])).to(images.device)
    same, *others = images.index_select(1, forth).split(counts, dim=1)
    changed = [same, _blend(others[0], *blended.unbind()[:3]), _hue(others[1], turned[3])]
    return torch.cat(changed, dim=1).index_select(1, back)


def _blend(images: Tensor, share: Tensor, mean: Tensor, grey: Tensor) -> Tensor:
    """Blend a share of the images, up to 2, with their mean, their greys or black."""
    greys = (images * images.new_tensor(GREY).view(3, 1, 1)).sum(-3, keepdim=True)
    other = mean * greys.mean((-2, -1), keepdim=True) + grey * greys
    return clip(other.lerp(images, share))


def _hue(images: Tensor, sextants: Tensor) -> Tensor:
    """Shift hues by sextants of the circle; torchvision's function needs float32."""
    largest = images.amax(dim=-3, keepdim=True)
    chroma = largest - images.amin(dim=-3, keepdim=True)
    not_red, not_green, _ = (images < largest).split(1, dim=-3)
    top = (not_green + 1) * not_red
    others = (images.roll(-1, -3) - images.roll(1, -3)).gather(-3, top)
    sextant = others / (chroma + (chroma == 0)) + 2 * top
    first = torch.arange(5, 0, -2, device=images.device).view(3, 1, 1)
    place = (first + sextant + sextants) % 6
    return largest - chroma * functional.hardtanh(2 - (place - 2).abs(), 0, 1)


@attack(
    transform=ScaledBlocks,
    loss="calibrated",
    steps=900,
    relative_step_size=0.125,
    decay=1.0,
    kernel_size=5,
)
def s4st() -> None:
    """Scale blocks and change colours, 900 steps: made for target labels, with momentum."""
