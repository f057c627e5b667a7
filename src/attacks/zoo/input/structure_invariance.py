import math

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from src.attacks.cosine_transform import along_axes, resizing
from src.attacks.define import attack
from src.attacks.per_image_random import PerImageRandom
from src.attacks.zoo.input.block_shuffle import Axis, check_blocks, cut_axis
from src.utils.checked_dataclass import checked

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
        factor = torch.where(kind == 5, share, torch.where(kind == 9, scale, 1))
        noisy = (images + noise).clamp(0, 1)
        changed = torch.where(kind == 6, noisy, factor * exact.view_as(images))
        filters = (_filters(axis).to(images.dtype) for axis in (rows, columns))
        shrunk, smooth = along_axes(next(filters), images, next(filters))
        return torch.where(kind == 7, shrunk, torch.where(kind == 8, smooth, changed))


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
    # As in `dct_matrix`, with frequencies `place` counted within each pixel's block.
    turns = ((2 * place + 1)[:, :, None] * place[:, None]) % (4 * size)[:, :, None]
    low = (place < size - (MUTED * size).floor())[:, None]
    low = low & (axis.block[:, :, None] == axis.block[:, None])
    weights = ((1 + (place > 0)) / size).sqrt()[:, None] * low
    waves = weights * (turns * (math.pi / 2) / size[:, :, None]).cos()
    return torch.stack([enlarge @ shrink, waves @ waves.mT])[:, None, :, None]


@attack(transform=StructureInvariant, decay=1.0)
def sia() -> None:
    """Change each block at random: structure invariance, with momentum (authors' script: none)."""
