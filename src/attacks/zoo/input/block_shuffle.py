import math
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.per_image_random import PerImageRandom
from src.utils.checked_dataclass import checked


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
        rows = _shuffled_axis(random, self.blocks, height)
        columns = _shuffled_axis(random, self.blocks, width)
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


def sample(images: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """Sample images (K, N, 3, H, W) bilinearly, at places that their `neighbours` describe.

    Unlike that of `grid_sample`, the gradient can be deterministic on a GPU.
    """
    (index_y, weight_y), (index_x, weight_x) = rows, columns
    index = (index_y[:, :, None] * images.shape[-1] + index_x[:, None]).flatten(1)[:, None]
    weight = (weight_y[:, :, None] * weight_x[:, None]).flatten(1, 2)[:, None]
    pixels = images.flatten(-2)
    values = pixels.gather(-1, index.expand(*pixels.shape[:3], -1))
    return (values.unflatten(-1, weight.shape[2:]) * weight.to(images.dtype)).sum(-3)


def neighbours(place: Tensor, start: Tensor | int, size: Tensor | int) -> tuple[Tensor, Tensor]:
    """Return index and weight of the two pixels around places (N, H, W), each (N, 2, H, W).

    Places count from pixel `start`. Only the `size` pixels from there on have a weight.
    """
    below = place.floor()
    pixel, share = torch.stack([below, below + 1], dim=1), place - below
    weight = torch.stack([1 - share, share], dim=1) * ((pixel >= 0) & (pixel < size))
    return start + pixel.long().clamp_min(0).minimum(torch.as_tensor(size - 1)), weight


@attack(transform=BlockShuffle, decay=1.0)
def bsr() -> None:
    """Shuffle and rotate blocks: BSR, with momentum."""
