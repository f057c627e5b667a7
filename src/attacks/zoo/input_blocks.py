"""Gradients of images whose blocks are shuffled, rotated or changed in other ways."""

import math
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from .. import PerImageRandom, attack, checked
from ..cosine_transform import along_axes, resizing
from .input_geometry import neighbours, sample


@checked
class BlockShuffle:
    """Cut the image into `blocks` x `blocks` blocks, shuffle them and rotate each a little.

    Rows and columns are cut at random places, in proportion to uniform numbers and with at least
    one pixel each. The rows of blocks are put into random order, and so are the columns. Each
    block is rotated about its centre by its own angle from U(-max_angle, max_angle), bilinearly,
    with zeros where the rotated block has no pixel.

    Args:
        copies: Number of versions.
        blocks: Number of blocks along a side.
        max_angle: Largest angle, in degrees.

    Reference: Wang et al. (2024), arXiv 2308.10299, sections 3.3 and 4.1 (there 2 x 2 blocks, 24
    degrees, N = 20).

    Deviation: uniform angles, black corners, no empty blocks (authors: normal angles of 0.2 radians
    cut off at 0.4, grey corners; TransferAttack: 3 blocks of more equal sides, in proportion to
    U(1, 2), each strip's columns shuffled by themselves, and strips rotated, not blocks).
    """

    copies: PositiveInt = 20
    blocks: PositiveInt = 2
    max_angle: Annotated[float, Ge(0), Le(180)] = 24.0

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        height, width = images.shape[-2:]
        check_blocks(self.blocks, images)
        rows, columns = (_shuffled_axis(random, self.blocks, side) for side in (height, width))
        degrees = self.max_angle * random.uniform(self.blocks, self.blocks, low=-1, high=1)
        angles = (degrees.float() * (math.pi / 180)).flatten(1)
        block = (rows.block[:, :, None] * self.blocks + columns.block[:, None, :]).flatten(1)
        cos, sin = (
            values.gather(1, block).unflatten(1, (height, width))
            for values in (angles.cos(), angles.sin())
        )
        middle_y, middle_x = (rows.size[:, :, None] - 1) / 2, (columns.size[:, None, :] - 1) / 2
        y, x = rows.offset[:, :, None] - middle_y, columns.offset[:, None, :] - middle_x
        from_y, from_x = cos * y - sin * x + middle_y, sin * y + cos * x + middle_x
        around_y = neighbours(from_y, rows.start[:, None, :, None], rows.size[:, None, :, None])
        around_x = neighbours(from_x, columns.start[:, None, None], columns.size[:, None, None])
        return sample(images, around_y, around_x)


def check_blocks(blocks: int, images: Tensor) -> None:
    """Raise ValueError if a side has more blocks than pixels."""
    if blocks > min(images.shape[-2:]):
        raise ValueError(
            f"attack.blocks={blocks} is too large for images of {tuple(images.shape[-2:])} pixels."
        )


def _check_sides(least: int, images: Tensor) -> None:
    if least > min(images.shape[-2:]):
        size = tuple(images.shape[-2:])
        raise ValueError(
            f"The attack needs images of {least} x {least} pixels or more, not {size}."
        )


class Axis(NamedTuple):
    """Origin of each pixel along one axis of blocks: four whole numbers, each of shape (N, H)."""

    block: Tensor  # number of the block before the shuffle
    start: Tensor  # first pixel of the block before the shuffle
    size: Tensor  # number of pixels of the block
    offset: Tensor  # position of the pixel in the block


def _shuffled_axis(random: PerImageRandom, blocks: int, length: int) -> Axis:
    weights = 1 - random.uniform(blocks).float()  # in (0, 1], so that their sum is not 0
    shares = weights.cumsum(1) / weights.sum(1, keepdim=True)
    order = random.permutations(blocks)
    one_each = torch.arange(1, blocks + 1, device=order.device)
    ends = (shares * (length - blocks)).round().long() + one_each
    return cut_axis(ends, order, length)


def cut_axis(ends: Tensor, order: Tensor, length: int) -> Axis:
    """Return the axis whose blocks end at `ends` and are put into an `order`, both (N, blocks)."""
    sizes = ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))
    new_sizes = sizes.gather(1, order)
    new_ends = new_sizes.cumsum(1)
    places = torch.arange(length, device=order.device).expand(len(order), length).contiguous()
    slot = torch.searchsorted(new_ends, places, right=True)
    block = order.gather(1, slot)
    return Axis(
        block,
        start=(ends - sizes).gather(1, block),
        size=sizes.gather(1, block),
        offset=places - (new_ends - new_sizes).gather(1, slot),
    )


@attack(transform=BlockShuffle, decay=1.0)
def bsr() -> None:
    """Shuffle and rotate blocks: BSR, with momentum.

    Name: Block Shuffle and Rotation.
    """


NOISE = 16 / 255  # largest value
DROPPED = 0.1  # probability that a channel of a block is dropped
SHRUNK = 0.8  # share of its side that a block is resized to, and back
MUTED = 0.4  # share of the frequencies of either axis, from the highest, that are set to 0


@checked
class StructureInvariant:
    """Cut the image into `blocks` x `blocks` blocks and change each in one of ten ways.

    Cuts are at distinct random places. The changes have the same probability: a cyclic shift down
    or to the right; a flip of either axis; a half turn; a factor from [0, 1); uniform noise of up
    to 16/255, clipped to [0, 1]; resizing to 0.8 of the block's side and back; removal of the
    highest 40 % of its frequencies on both axes; or dropout of whole channels with probability 0.1,
    which scales the others by 1 / 0.9.

    Args:
        copies: Number of versions.
        blocks: Number of blocks along a side.

    Reference: Wang, Zhang, Zhang (2023), arXiv 2309.14700 (there s = 3, N = 20). The list and its
    constants are those of the authors' code (SIT); their later TransferAttack leaves out resizing,
    frequencies and dropout.

    Deviation: blocks that are not square shrink along their own sides (authors: along the other
    side). Blocks too small to lose 40 % of their frequencies keep all of them (authors: blackened).
    """

    copies: PositiveInt = 20
    blocks: PositiveInt = 3

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        channels, height, width = images.shape[-3:]
        check_blocks(self.blocks, images)
        grid = (self.blocks, self.blocks)
        rows, columns = (_cuts(random, self.blocks, side) for side in (height, width))
        kinds, shares = random.integers(0, 10, *grid), random.uniform(*grid)
        scales = (random.uniform(*grid, channels) >= DROPPED).to(images.dtype) / (1 - DROPPED)
        noise = random.uniform(channels, height, width, low=-NOISE, high=NOISE)
        numbers = torch.cat([kinds[..., None], shares[..., None], scales], dim=-1).to(images.dtype)
        blocks = rows.block[:, :, None] * self.blocks + columns.block[:, None, :]
        index = blocks.flatten(1)[:, None].expand(-1, 2 + channels, -1)
        at_pixels = numbers.flatten(1, 2).mT.gather(2, index).unflatten(2, (height, width))
        kind, share, scale = at_pixels.split([1, 1, channels], dim=1)

        y = Axis(*(numbers[:, None, :, None] for numbers in rows))
        x = Axis(*(numbers[:, None, None] for numbers in columns))
        down = y.start + moved(y.offset, y.size, kind == 0, (kind == 2) | (kind == 4), share)
        right = x.start + moved(x.offset, x.size, kind == 1, (kind == 3) | (kind == 4), share)
        pixels = images.flatten(-2)
        exact = pixels.gather(-1, (down * width + right).flatten(-2).expand_as(pixels))
        filters = (_filters(axis).to(images.dtype) for axis in (rows, columns))
        filtered = along_axes(next(filters), images, next(filters))
        is_noisy, *is_filtered = ((kind == number).to(images.dtype) for number in (6, 7, 8))
        factor = torch.where(kind == 5, share, torch.where(kind == 9, scale, (kind < 6).to(scale)))
        # A pixel's other terms are exact zeros.
        changed = factor * exact.view_as(images) + is_noisy * (images + noise).clamp(0, 1)
        return changed + (torch.stack(is_filtered)[:, None] * filtered).sum(0)


def _cuts(random: PerImageRandom, blocks: int, length: int) -> Axis:
    """Return an axis cut at distinct random places."""
    inner = (random.permutations(length - 1)[:, : blocks - 1] + 1).sort(dim=1).values
    order = torch.arange(blocks, device=inner.device).expand(len(inner), blocks)
    return cut_axis(functional.pad(inner, (0, 1), value=length), order, length)


def moved(
    place: Tensor, size: Tensor | int, shifted: Tensor, flipped: Tensor, share: Tensor
) -> Tensor:
    """Return the place from which a shift by a share of the size, or a flip, takes each pixel."""
    back = (place - (share.double() * size).floor().long()) % size
    return torch.where(shifted, back, torch.where(flipped, size - 1 - place, place))


def _filters(axis: Axis) -> Tensor:
    """Return matrices (2, 1, N, 1, H, H) that resize and that filter each block along an axis."""
    start, size, place = axis.start, axis.size.double(), axis.offset.double()
    smaller, length = (SHRUNK * size).floor() + 1, place.shape[1]
    enlarge = resizing(place, smaller, size, length, start)
    shrink = resizing(place, size, smaller, length, start)
    low = _low_frequencies(axis, size - (MUTED * size).floor())
    return torch.stack([enlarge @ shrink, low])[:, None, :, None]


def _low_frequencies(axis: Axis, kept: Tensor) -> Tensor:
    """Return matrices (N, H, H) that keep the lowest `kept`, (N, H), frequencies of each block."""
    size, place = axis.size.double(), axis.offset.double()
    # As in `dct_matrix`, with frequencies `place` counted within each pixel's block.
    turns = ((2 * place + 1)[:, :, None] * place[:, None]) % (4 * size)[:, :, None]
    low = (place < kept)[:, None] & (axis.block[:, :, None] == axis.block[:, None])
    weights = ((1 + (place > 0)) / size).sqrt()[:, None] * low
    waves = weights * (turns * (math.pi / 2) / size[:, :, None]).cos()
    return waves @ waves.mT


@attack(transform=StructureInvariant, decay=1.0)
def sia() -> None:
    """Change each block at random: structure invariance, with momentum (authors' script: none).

    Name: Structure Invariant Attack.
    """


MARGIN, GAP = 35 / 224, 40 / 224  # of the cuts to the border and to each other, as shares of a side


@checked
class StretchedBlocks:
    """Cut the image into 3 x 3 blocks, and stretch or shrink each in its place.

    Rows and columns are cut at two random places each, about 35/224 of the side or more from the
    border and more than about 40/224 from each other (rounded to pixels). The strips of one axis,
    drawn at random, get new lengths in proportion to numbers from U(1/4, 3/4). Each strip is then
    divided along the other axis, with lengths of its own. Blocks are resized bilinearly.

    Args:
        copies: Number of versions.

    Reference: Liu et al. (2025), arXiv 2511.17688: read from the authors' code, where M = 2, d_b =
    35, d_p = 40, r = 1, ten versions.

    Deviation: the ends of strips are rounded (authors: their lengths; then the longest grows or the
    shortest shrinks).
    """

    copies: PositiveInt = 10

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        _check_sides(3, images)
        sides, rows_first = images.shape[-2:], random.uniform()[:, None, None] < 0.5
        cuts = [_far_cuts(random, side) for side in sides]
        alike, apart = (random.uniform(n, 3, low=0.25, high=0.75).double() for n in (1, 3))
        shares = torch.where(rows_first, alike, apart), torch.where(rows_first, apart, alike)
        (row, y), (column, x) = map(_stretched, cuts, shares, sides)
        # Strips of the second axis are those of the pixel's strip on the first.
        y = y.gather(1, column[:, :1].mT.expand(-1, -1, sides[0])).mT
        x = x.gather(1, row[:, :1].mT.expand(-1, -1, sides[1]))
        return sample(images, neighbours(y, 0, sides[0]), neighbours(x, 0, sides[1]))


def _far_cuts(random: PerImageRandom, length: int) -> Tensor:
    """Return two places per image, far from each other and from the border, ascending, (N, 2)."""
    margin, gap = round(MARGIN * length), round(GAP * length)
    first, second = random.uniform(2).double().split(1, dim=1)
    first = margin + (first * (length - 2 * margin)).floor()
    below = (first - gap - margin).clamp_min(0)
    place = (second * (below + (length - margin - 1 - first - gap).clamp_min(0))).floor()
    second = torch.where(place < below, margin + place, first + gap + 1 + place - below)
    return torch.cat([first, second.clamp_max(length - 1)], dim=1).sort(dim=1).values


def _stretched(cuts: Tensor, shares: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return each pixel's strip, and the place that it shows, for new lengths: (N, 3, length)."""
    ends = functional.pad(functional.pad(cuts, (1, 0)), (0, 1), value=length)
    ends = ends[:, None].expand(-1, 3, -1)
    new = functional.pad((shares.cumsum(2) / shares.sum(2, True) * length).round(), (1, 0))
    pixels = torch.arange(length, device=cuts.device).expand(*new.shape[:2], -1).contiguous()
    strip = torch.searchsorted(new[..., 1:].contiguous(), pixels.double(), right=True)
    start, end, first, last = (
        values.gather(2, strip + n) for values in (ends, new) for n in (0, 1)
    )
    inner = (pixels + 0.5 - first) * (end - start) / (last - first) - 0.5
    return strip, start + inner.clamp_min(0).minimum((end - start - 1).clamp_min(0))


@attack(transform=StretchedBlocks, decay=1.0)
def bss() -> None:
    """Stretch and shrink blocks: BSS, with momentum, steps of eps / 10 (authors: of eps / 8).

    Name: Block Stretch and Shrink.
    """


LOWEST = 0.4  # share of the frequencies of either axis that a block keeps when it is fused


@checked
class FusedBlocks:
    """Cut the image into 2 x 2 blocks, fuse half of them with the small whole image, and shrink.

    The lengths of strips are in proportion to numbers from U(0.1, 0.9). With probability 1/2, a
    block stays. Otherwise it is fused with the image, resized to the block and perhaps flipped: it
    keeps the lowest 40 % of its frequencies on both axes, or becomes the mean of both. Each block
    may then be flipped. Version i is the result, resized to 1 - i / (10 copies) of the side, placed
    on black at random, and perhaps flipped. Flips are left to right, with probability 1/2.

    Args:
        copies: Number of versions.

    Reference: Zhou et al.: Leveraging Spatial Invariance to Boost Adversarial Transferability
    (2025), https://openaccess.thecvf.com/content/ICCV2025/papers/Zhou_Leveraging_Spatial_Invariance_to_Boost_Adversarial_Transferability_ICCV_2025_paper.pdf,
    read from TransferAttack's code, where N = 20.
    """

    copies: PositiveInt = 20

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        _check_sides(2, images)
        sides, number = images.shape[-2:], images.dtype
        rows, columns = (_two_strips(random, side) for side in sides)
        kind, flips = random.uniform(2, 2), random.integers(0, 2, 2, 2, 2) > 0
        block = (rows.block[:, :, None] * 2 + columns.block[:, None]).flatten(1)
        kind, mirrored, turned = (
            values.flatten(1).gather(1, block).unflatten(1, sides)[:, None]
            for values in (kind, flips[:, 0], flips[:, 1])
        )
        back = columns.size - 1 - columns.offset
        down, across, reverse = (
            resizing(place.double(), side, axis.size.double(), side)[:, None].to(number)
            for place, side, axis in (
                (rows.offset, sides[0], rows),
                (columns.offset, sides[1], columns),
                (back, sides[1], columns),
            )
        )
        whole = torch.where(
            mirrored, along_axes(down, images, reverse), along_axes(down, images, across)
        )
        low = [
            _low_frequencies(axis, (LOWEST * axis.size.double()).floor())[:, None].to(number)
            for axis in (rows, columns)
        ]
        filtered = whole + along_axes(low[0], images - whole, low[1])
        fused = torch.where(kind < 0.75, filtered, (images + whole) / 2)
        fused = torch.where(kind < 0.5, images, fused)
        places = torch.arange(sides[1], device=block.device)[None, None, None]
        source = torch.where(turned, (columns.start + back)[:, None, None], places)
        fused = fused.gather(-1, source.expand_as(fused))
        rate, flipped = 1 - copy / (10 * self.copies), random.uniform()[:, None, None, None] < 0.5
        offsets = random.uniform(2).double().split(1, dim=1)
        smaller, narrower = (
            _shrunk(side, int(side * rate), offset).to(number)[:, None]
            for side, offset in zip(sides, offsets, strict=True)
        )
        return along_axes(smaller, fused, torch.where(flipped, narrower.flip(-2), narrower))


def _two_strips(random: PerImageRandom, length: int) -> Axis:
    """Return an axis of two strips, with lengths in proportion to U(0.1, 0.9)."""
    numbers = random.uniform(2, low=0.1, high=0.9).double()
    first = (length * numbers[:, :1] / numbers.sum(1, True)).round().clamp(1, length - 1).long()
    order = torch.arange(2, device=first.device).expand(len(first), 2)
    return cut_axis(functional.pad(first, (0, 1), value=length), order, length)


def _shrunk(length: int, new: int, shares: Tensor) -> Tensor:
    """Return matrices (N, length, length) that resize to `new` pixels, put at random on zeros."""
    places = torch.arange(length, device=shares.device) - (shares * (length - new)).floor()
    return resizing(places, length, new, length) * ((places >= 0) & (places < new))[..., None]


@attack(transform=FusedBlocks, decay=1.0)
def sid() -> None:
    """Fuse blocks with the small whole image: spatial invariance, with momentum.

    Name: Spatial Invariance-based Diversity.
    """
