"""Attacks made for target labels."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from ...utils.devices import constant
from .. import PerImageRandom, Share, attack, checked, clip
from .feature_perturbation import CleanFeatureMixup
from .input_geometry import DiverseInput


@attack(
    transform=DiverseInput,
    loss="logit",
    steps=300,
    relative_step_size=0.125,
    decay=1.0,
    normalised=False,
    probability=0.7,
    kernel_size=5,
    targeted="only",
)
def logit_mi_di_ti() -> None:
    """Raise the target's logit in 300 steps of `mi_di_ti`: gradients are not normalised.

    Name: Logit attack with momentum, DI and TI.
    Reference: Zhao, Liu, Larson (2021), arXiv 2012.11207.

    Deviation: steps of eps / 8 at every budget (authors: of 2/255 at 16/255).
    """


LEAST = 30 / 224  # smallest share of the image's side that a block has
GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue


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
        numbers = random.uniform(31).double()
        kind = torch.where(numbers[:, 0] < self.colour, (5 * numbers[:, 1]).long(), 5)
        by_row = numbers[:, 2:3] < 0.5
        flipped = (kind[:, None] == 0) & torch.cat([~by_row, by_row], dim=1)
        height, width = images.shape[-2:]
        lines = self._lines(numbers[:, 3:], flipped, (height, width))
        place, decay, low, high, inside = lines.to(images.dtype).unbind()
        pixels = torch.arange(0.5, lines.shape[-1], dtype=low.dtype, device=low.device)[:, None]
        weights = (1 - (pixels - place).abs_().mul_(decay)).clamp_min_(0)
        weights *= (pixels > low) & (pixels < high)
        weights /= weights.sum(-2, keepdim=True).clamp_min_(1e-9)
        (down, across), (in_row, in_column) = weights.unbind(1), inside.unbind(1)
        images = _recolour(images, kind, numbers[:, 2])
        across = across[..., :width, :width].flatten(1, 2)
        with torch.autocast(images.device.type, enabled=False):
            strips = images[..., None, :] * in_row[..., :height].permute(0, 2, 3, 1)[..., None]
            strips = strips.reshape(*images.shape[:2], 3 * height, 3 * width) @ across
            strips = strips.unflatten(2, (3, 1, height)) * in_column[:, None, ..., :width]
            down = down[..., :height, :height].flatten(1, 2).mT[:, None]
            return down @ strips.flatten(-3, -2)

    def _lines(self, numbers: Tensor, flipped: Tensor, sides: tuple[int, int]) -> Tensor:
        """Return how to resize lines along each axis, per strip of the other, from 28 numbers.

        The result, float64 (5, N, 2, 3, 1, L), holds for each line its place in the source, the
        decay of the weights around it, both ends of the pixels with weights, and 1 inside the strip
        of the line's own axis.
        """
        halved, device = numbers[:, :1] < 0.5, numbers.device
        pixels = torch.arange(0.5, max(sides), dtype=torch.float64, device=device)
        strips = torch.arange(3, device=device)[:, None]
        ends = _cut(numbers[:, 1:4], halved, sides)
        strip = (pixels > ends[..., 1:3, None]).sum(2)
        start, end = (ends.gather(2, strip + n)[:, :, None] for n in (0, 1))
        steps = 1 + torch.cat([1 + halved, torch.zeros_like(halved)], dim=1)[..., None, None]
        block = (steps * strip[:, :, None] + steps.flip(1) * strips).clamp_max(5)
        size = (end - start).clamp_min(1)
        values = numbers[:, 4:].unflatten(1, (6, 4))
        values = values.gather(1, block.flatten(1)[..., None].expand(-1, -1, 4))
        chance, number, top, left = values.unflatten(1, block.shape[1:]).unbind(-1)
        share = torch.stack([top[:, 0], left[:, 1]], dim=1)
        rho = 1 / self.largest + number * (self.largest - 1 / self.largest)
        rho = torch.where(chance < self.scaling, rho, 1)
        small = (rho.minimum(1 / rho) * size).floor().clamp_min(1)
        first, larger = start + (share * (size - small + 1)).floor(), rho >= 1
        low, new = torch.where(larger, first, start), torch.where(larger, start, first)
        length = torch.where(larger, small, size)
        scale = torch.where(larger, small / size, size / small)
        place, high = low + (pixels - new) * scale, low + length
        place = torch.where((place > low) & (place < high), place, -torch.inf)
        ahead = constant(sides, torch.float64, device)[:, None, None]
        turned = flipped[..., None, None]
        place, low, high = (
            torch.where(turned, ahead - other, line)
            for line, other in ((place, place), (low, high), (high, low))
        )
        rows = strip[:, 0, : sides[0]]
        strip[:, 0, : sides[0]] = torch.where(flipped[:, :1], rows.flip(1), rows)
        inside = (strip[:, :, None] == strips).to(place.dtype)
        return torch.stack([place, 1 / scale.clamp_min(1), low, high, inside])[..., None, :]


def _cut(shares: Tensor, halved: Tensor, sides: tuple[int, int]) -> Tensor:
    """Return the ends of 2 x 3 or 3 x 2 strips of at least LEAST of a side each, (N, 2, 4)."""
    side = constant(sides, shares.dtype, shares.device)
    least = (LEAST * side).clamp_min(1)
    half_share = torch.where(halved, shares[:, :1], shares[:, 2:])
    third_shares = torch.where(halved, shares[:, 1:], shares[:, :2]).sort(dim=1).values
    half = (least + half_share * (side - 2 * least)).floor()
    firsts = torch.stack([least, 2 * least], dim=1)
    thirds = (firsts + third_shares[:, None] * (side - 3 * least)[:, None]).floor()
    last = side.expand_as(half)
    in_two = torch.cat([halved, ~halved], dim=1)[..., None]
    inner = torch.where(in_two, torch.stack([half, last], dim=-1), thirds)
    return torch.cat([torch.zeros_like(last)[..., None], inner, last[..., None]], dim=-1)


def _recolour(images: Tensor, kind: Tensor, share: Tensor) -> Tensor:
    """Change contrast, brightness, saturation (kinds 1 to 3) or hue (4) of some images.

    The first three blend a share of an image, up to 2, with its mean, with black or with its greys.
    """
    kind, share = (numbers[:, None, None, None] for numbers in (kind, share))
    twice, shift = (2 * share).to(images.dtype), (6 * share - 3).to(images.dtype)
    mean, grey = ((kind == number).to(images.dtype) for number in (1, 3))
    weights = constant(GREY, images.dtype, images.device).view(3, 1, 1)
    greys = (images * weights).sum(-3, keepdim=True)
    other = mean * greys.mean((-2, -1), keepdim=True) + grey * greys
    # A choice of images by kind would wait for the device.
    blended = clip(other.lerp(images, twice))
    changed = torch.where((kind >= 1) & (kind <= 3), blended, images)
    return torch.where(kind == 4, _hue(images, shift), changed)


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
    """Scale blocks and change colours, 900 steps: made for target labels, with momentum.

    Name: Strong, Self-transferable, faSt, Simple Scale Transformation.
    """


FILL = (0.485, 0.456, 0.406)  # of the pixels outside a block: the mean of ImageNet


@checked
class SingleBlocks:
    """Show the whole image in the first version, and one of 3 x 3 blocks alone in each other one.

    The blocks are drawn anew for each gradient, without repetition. Pixels outside have the mean
    of ImageNet; pixels that remain at the right and lower border are in no block.

    Args:
        copies: Number of versions, the whole image included.

    Reference: Zeng et al.: Everywhere Attack: Attacking Locally and Globally to Boost Targeted
    Transferability (2025), arXiv 2501.00707, read from TransferAttack's code, with four of nine
    blocks.
    """

    copies: Annotated[int, Ge(1), Le(10)] = 5

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        if not copy:
            random.scratch[self] = random.permutations(9)
            return images
        block, device = random.scratch[self][:, copy - 1, None], images.device
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=device) // max(1, height // 3) == block // 3
        columns = torch.arange(width, device=device) // max(1, width // 3) == block % 3
        inside = (rows[:, :, None] & columns[:, None])[:, None]
        return torch.where(inside, images, constant(FILL, images.dtype, device).view(3, 1, 1))


@attack(
    fixed=["layer"],
    objective=CleanFeatureMixup,
    transform=SingleBlocks,
    transforms=(DiverseInput(0.7, 1.137, nearest=True),),
    loss="logit",
    steps=300,
    relative_step_size=0.1,
    decay=1.0,
    kernel_size=5,
    forwards=lambda n: n.copies * n.steps,
    mixes=True,
    paper="2501.00707",
    year=2025,
)
def everywhere() -> None:
    """Reach the target class in blocks, too: made for target labels, with `cfm`.

    Name: Everywhere Attack.

    Deviation: 300 steps, each version with layers of its own that mix in clean features of whole
    images, enlarged by up to 1.137 and resized back (TransferAttack: 299 steps, the same layers for
    all versions, features of the same blocks, shrunk by up to 29 of 224 pixels and padded).
    """
