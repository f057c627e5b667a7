from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from src.attacks.define import published
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
        numbers = random.uniform(31).double()
        chance, kind, share, order = numbers[:, :4].unbind(1)
        kinds = torch.where(chance < self.colour, (kind * len(CHANGES)).long(), len(CHANGES))
        images = _change(images, kinds, share.to(images.dtype)[:, None, None, None])
        bounds = _bounds(numbers[:, 4:7], order[:, None] < 0.5, images.shape[-2:])
        rows, columns = self._matrices(bounds, numbers[:, 7:].unflatten(1, (6, 4)), images)
        strips = (images @ columns.flatten(1, 2)[:, None].mT).unflatten(-1, (6, -1))
        return rows.movedim(1, 2).flatten(2)[:, None] @ strips.movedim(-2, -3).flatten(-3, -2)

    def _matrices(self, bounds: Tensor, numbers: Tensor, images: Tensor) -> list[Tensor]:
        """Return the matrices (N, 6, H, H) and (N, 6, W, W) that resize the blocks along an axis.

        Args:
            bounds: First pixel of each block along each axis, and the one after its last,
                (N, 2, 6, 2).
            numbers: Numbers from [0, 1), (N, 6, 4).
            images: The images, of whose sides and type the matrices are.
        """
        chance, number, *places = numbers.unbind(-1)
        start, end = bounds.unbind(-1)
        rho = 1 / self.largest + number * (self.largest - 1 / self.largest)
        small = (torch.minimum(rho, 1 / rho)[:, None] * (end - start)).floor().clamp_min(1)
        first = start + (torch.stack(places, 1) * (end - start - small + 1)).floor()
        whole, part = bounds, torch.stack([first, first + small], dim=-1)
        scaled, grown = (chance < self.scaling)[:, None, :, None], (rho >= 1)[:, None, :, None]
        old, new = (
            torch.where(scaled & grown, part, whole),
            torch.where(scaled & ~grown, part, whole),
        )
        matrices = _resizing(old, new, max(images.shape[-2:])).to(images.dtype)
        return [matrices[:, axis, :, :side, :side] for axis, side in enumerate(images.shape[-2:])]


def _bounds(shares: Tensor, wide: Tensor, sides: Sequence[int]) -> Tensor:
    """Return the bounds of 2 x 3 blocks, where `wide` (N, 1), or else 3 x 2, (N, 2, 6, 2).

    A block has at least LEAST of the side, but for rounding, and a pixel.
    """
    side = shares.new_tensor(sides)
    least = (LEAST * side).clamp_min(1)
    one = torch.where(wide, shares[:, :1], shares[:, 2:])
    two = torch.where(wide, shares[:, 1:], shares[:, :2]).sort(1).values
    half = (least + one * (side - 2 * least)).floor()  # cuts of either axis into two
    first, second = ((n * least + two[:, n - 1 : n] * (side - 3 * least)).floor() for n in (1, 2))
    halved = wide == (torch.arange(2, device=side.device) == 0)
    cuts = [torch.zeros_like(half), torch.where(halved, half, first)]
    cuts += [torch.where(halved, side, second), side.expand_as(half)]
    block = torch.arange(6, device=side.device)
    down = torch.where(wide, block // 3, block // 2)
    across = torch.where(wide, block % 3, block % 2)
    strip = torch.stack([down, across], dim=1)
    ends = torch.stack(cuts, dim=-1)
    return torch.stack([ends.gather(2, strip), ends.gather(2, strip + 1)], dim=-1)


def _resizing(old: Tensor, new: Tensor, length: int) -> Tensor:
    """Return matrices (..., length, length) that resize lines between bounds (..., 2)."""
    (start, end), (first, last) = old[..., None, :].unbind(-1), new[..., None, :].unbind(-1)
    places = torch.arange(length, dtype=old.dtype, device=old.device) + 0.5
    scale = (end - start) / (last - first)
    centres = torch.where(
        (places > first) & (places < last),
        start + (places - first) * scale,
        -length * scale.clamp_min(1),
    )
    weights = 1 - (places - centres[..., None]).abs() / scale.clamp_min(1)[..., None]
    inside = (places > start) & (places < end)
    weights = weights.clamp_min(0) * inside[..., None, :]
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)


def _change(images: Tensor, kinds: Tensor, shares: Tensor) -> Tensor:
    """Return images that are changed each in a way of its own; beyond the last: not at all."""
    order, counts = kinds.argsort(), kinds.bincount(minlength=1 + len(CHANGES)).tolist()
    parts = images.index_select(1, order).split(counts, dim=1)
    ways = zip(CHANGES, parts[:-1], shares[order].split(counts)[:-1], strict=True)
    changed = [change(part, share) for change, part, share in ways]
    return torch.cat([*changed, parts[-1]], dim=1).index_select(1, order.argsort())


def _blend(image: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return clip(other + 2 * share * (image - other))


def _hue(image: Tensor, share: Tensor) -> Tensor:
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


CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda image, share: torch.where(share < 0.5, image.flip(-1), image.flip(-2)),
    lambda image, share: _blend(image, rgb_to_grayscale(image).mean((-3, -2, -1), True), share),
    lambda image, share: _blend(image, torch.zeros_like(image), share),
    lambda image, share: _blend(image, rgb_to_grayscale(image), share),
    lambda image, share: _hue(image, share - 0.5),
)
"""Flip, contrast, brightness, saturation and hue of images (K, N, 3, H, W) by numbers in [0, 1)."""


@published(
    transform=ScaledBlocks,
    loss="calibrated",
    steps=900,
    relative_step_size=0.125,
    decay=1.0,
    kernel_size=5,
)
def s4st() -> None:
    """Strong scaling of blocks, made for target labels: 900 steps of eps / 8 with momentum."""
