from typing import Annotated

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.define import published
from src.attacks.per_image_random import PerImageRandom
from src.attacks.projection import clip
from src.utils.checked_dataclass import Share, checked

LEAST = 30 / 224  # of the image's side, that a block has
GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue


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
        numbers, cuts, blocks = random.uniform(31).double().split([4, 3, 24], dim=1)
        chance, kind, share, order = numbers.split(1, dim=1)
        kind = torch.where(chance < self.colour, (kind * 5).long(), 5)
        side, axes = cuts.new_tensor(images.shape[-2:]), torch.arange(2, device=cuts.device)
        pixels = torch.arange(max(images.shape[-2:]), device=cuts.device) + 0.5
        flipped = ((kind == 0) & ((share < 0.5) == axes))[..., None]
        source = torch.where(flipped, side[:, None] - pixels, pixels)
        ends = _cut(cuts, order < 0.5, side)
        strip = (pixels > ends[:, :, 1:3, None]).sum(2)
        across = torch.where(order < 0.5, 3, 2)  # blocks in a row of them
        steps = torch.where(axes == 0, across, 1)
        block = steps[..., None] * strip
        third = torch.arange(3, device=cuts.device)[:, None]
        block = block[:, :, None] + steps.flip(1)[..., None, None] * third
        index = block.clamp_max(5).flatten(1)[..., None].expand(-1, -1, 4)
        own = blocks.unflatten(1, (6, 4)).gather(1, index).unflatten(1, block.shape[1:])
        matrices = self._matrices(ends, strip, own, pixels, source.to(images.dtype))
        (height, width), (in_row, in_column) = (
            images.shape[-2:],
            (strip[:, :, None] == third).unbind(1),
        )
        rows, columns = matrices[:, 0, :, :height, :height], matrices[:, 1, :, :width, :width]
        images = _recolour(images, kind[:, 0], share.to(images.dtype))
        with torch.autocast(images.device.type, enabled=False):
            parts = images[..., None, :] * in_row[:, None, :, :height].mT[..., None]
            wide = parts.flatten(-2) @ columns.mT.flatten(1, 2)[:, None]
            parts = wide[..., None, :, :] * in_column[:, None, :, None, :width]
            return rows.movedim(1, 2).flatten(2)[:, None] @ parts.flatten(-3, -2)

    def _matrices(
        self, ends: Tensor, strip: Tensor, numbers: Tensor, pixels: Tensor, source: Tensor
    ) -> Tensor:
        """Return matrices (N, 2, 3, L, L) that resize lines, by axis and strip of the other one.

        Args:
            ends: Where strips begin and end along each axis, (N, 2, 4).
            strip: Number of the strip that a pixel lies in, (N, 2, L).
            numbers: Numbers from [0, 1) of the block that it lies in, (N, 2, 3, L, 4).
            pixels: Centres of pixels, (L,).
            source: Centres of the pixels that they are before a flip, (N, 2, L).
        """
        start = ends.gather(2, strip)
        size = (ends.gather(2, strip + 1) - start)[:, :, None]
        start = start[:, :, None]
        chance, number, *places = numbers.unbind(-1)
        share = torch.stack([places[0][:, 0], places[1][:, 1]], dim=1)
        rho = 1 / self.largest + number * (self.largest - 1 / self.largest)
        rho = torch.where(chance < self.scaling, rho, 1)
        small = (torch.minimum(rho, 1 / rho) * size).floor().clamp_min(1)
        first = start + (share * (size - small + 1)).floor()
        grown = rho >= 1
        old, new = torch.where(grown, first, start), torch.where(grown, start, first)
        length = torch.where(grown, small, size)
        scale = length / torch.where(grown, size, small)
        centre = old + (pixels - new) * scale
        centre = torch.where((centre > old) & (centre < old + length), centre, -torch.inf)
        lines = torch.stack([centre, 1 / scale.clamp_min(1), old, old + length], dim=-1)
        centre, sharpness, low, high = lines.to(source.dtype)[..., None, :].unbind(-1)
        source = source[:, :, None, None]
        weights = (1 - (source - centre).abs_().mul_(sharpness)).clamp_min_(0)
        weights *= (source > low) & (source < high)
        return weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)


def _cut(shares: Tensor, halved: Tensor, side: Tensor) -> Tensor:
    """Return where strips begin and end: 2 x 3 if `halved` (N, 1), else 3 x 2, (N, 2, 4).

    A strip has at least LEAST of the side, but for rounding, and a pixel.
    """
    least = (LEAST * side).clamp_min(1)
    half = torch.where(halved, shares[:, :1], shares[:, 2:])
    thirds = torch.where(halved, shares[:, 1:], shares[:, :2]).sort(1).values[:, None]
    in_two = (least + half * (side - 2 * least)).floor()
    in_three = (
        least[:, None] * least.new_tensor([1, 2]) + thirds * (side - 3 * least)[:, None]
    ).floor()
    one_cut = torch.stack([in_two, side.expand_as(in_two)], dim=-1)
    rows_first = halved == (torch.arange(2, device=side.device) == 0)
    cuts = torch.where(rows_first[..., None], one_cut, in_three)
    ends = side[:, None].expand(len(cuts), 2, 1)
    return torch.cat([torch.zeros_like(ends), cuts, ends], dim=2)


def _recolour(images: Tensor, kinds: Tensor, shares: Tensor) -> Tensor:
    """Change contrast, brightness, saturation (kinds 1 to 3) or hue (4) of some images."""
    way = torch.tensor([0, 1, 1, 1, 2, 0], device=kinds.device)[kinds]
    order = way.argsort()
    counts = way.bincount(minlength=3).tolist()
    same, blended, turned = images.index_select(1, order).split(counts, dim=1)
    _, kind, _ = kinds[order][:, None, None, None].split(counts)
    _, share, angle = shares[order][..., None, None].split(counts)
    changed = [same, _blend(blended, kind, share), _hue(turned, angle - 0.5)]
    return torch.cat(changed, dim=1).index_select(1, order.argsort())


def _blend(images: Tensor, kind: Tensor, share: Tensor) -> Tensor:
    """Take twice a share of images, and the rest of their mean, of black or of their greys."""
    grey = (images * images.new_tensor(GREY)[:, None, None]).sum(-3, keepdim=True)
    other = torch.where(kind == 1, grey.mean((-2, -1), keepdim=True), grey * (kind == 3))
    return clip(other.lerp(images, 2 * share))


def _hue(images: Tensor, share: Tensor) -> Tensor:
    """Shift hues by `share` of the circle; torchvision's own does so in float32 alone."""
    largest = images.amax(dim=-3, keepdim=True)
    chroma = largest - images.amin(dim=-3, keepdim=True)
    red, green, _ = (images == largest).split(1, dim=-3)
    top = torch.where(red, 0, torch.where(green, 1, 2))
    after, before = (images.gather(-3, (top + n) % 3) for n in (1, 2))
    sextant = 2 * top + (after - before) / (chroma + (chroma == 0))
    first = images.new_tensor([5, 3, 1])[:, None, None]
    place = (first + sextant + 6 * share) % 6
    below = (2 - (place - 2).abs()).clamp(0, 1)
    return largest - chroma * below


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
