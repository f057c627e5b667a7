import math
from collections.abc import Callable

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from src.attacks.cosine_transform import dct2, idct2
from src.attacks.define import published
from src.attacks.per_image_random import PerImageRandom
from src.attacks.zoo.input.block_shuffle import check_blocks
from src.utils.checked_dataclass import checked

NOISE = 16 / 255  # largest value
DROPPED = 0.1  # probability that a channel of a block is dropped
SHRUNK = 0.8  # share of its side that a block is resized to, and back
MUTED = 0.4  # share of the frequencies of either axis, from the highest, that are set to 0


@checked
class StructureInvariant:
    """Cut the image into blocks x blocks and change each in one of ten ways.

    Cuts are distinct random places. Each block undergoes, all with the same probability: a cyclic
    shift down or to the right; a flip of either axis; a half turn; a factor from [0, 1); uniform
    noise of up to 16/255, clipped to [0, 1]; resizing to 0.8 of its side and back; the removal of
    the highest 40 % of its frequencies on either axis; or dropout of whole channels, of
    probability 0.1, the rest growing by 1 / 0.9.

    Args:
        copies: Number of versions.
        blocks: Blocks along a side.

    Reference: Wang, Zhang, Zhang (2023), arXiv 2309.14700 (there s = 3, N = 20). The list and its
    constants are those of the authors' code (SIT); their later TransferAttack leaves out resizing,
    frequencies and dropout.

    Deviation: blocks that are not square shrink along their own sides, and blocks too small to have
    40 % of anything stay whole (authors: along the other side, blackened).
    """

    copies: PositiveInt = 20
    blocks: PositiveInt = 3

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        channels, height, width = images.shape[-3:]
        check_blocks(self.blocks, images)
        grid, changes = (self.blocks, self.blocks), list(CHANGES.values())
        rows, columns = (_cuts(random, self.blocks, side).tolist() for side in (height, width))
        kinds = random.integers(0, len(changes), *grid).tolist()
        shares = random.uniform(*grid).tolist()
        scales = (random.uniform(*grid, channels, 1, 1) >= DROPPED).to(images.dtype) / (1 - DROPPED)
        noise = random.uniform(channels, height, width, low=-NOISE, high=NOISE)

        def change(image: Tensor, n: int) -> Tensor:
            strips = []
            for i, strip in enumerate(image.split(rows[n], dim=-2)):
                noises = noise[n].split(rows[n], dim=-2)[i].split(columns[n], dim=-1)
                blocks = [
                    changes[kinds[n][i][j]](block, shares[n][i][j], scales[n, i, j], noises[j])
                    for j, block in enumerate(strip.split(columns[n], dim=-1))
                ]
                strips.append(torch.cat(blocks, dim=-1))
            return torch.cat(strips, dim=-2)

        return torch.stack([change(image, n) for n, image in enumerate(images.unbind(1))], dim=1)


def _cuts(random: PerImageRandom, blocks: int, length: int) -> Tensor:
    """Return for each image the lengths between distinct random cuts, whole numbers (N, blocks)."""
    inner = (random.permutations(length - 1)[:, : blocks - 1] + 1).sort(dim=1).values
    ends = functional.pad(functional.pad(inner, (1, 0)), (0, 1), value=length)
    return ends.diff(dim=1)


def _resize(block: Tensor) -> Tensor:
    height, width = block.shape[-2:]
    smaller = (math.floor(SHRUNK * height) + 1, math.floor(SHRUNK * width) + 1)
    shrunk = functional.interpolate(block, smaller, mode="bilinear", align_corners=False)
    return functional.interpolate(shrunk, (height, width), mode="bilinear", align_corners=False)


def _low_pass(block: Tensor) -> Tensor:
    height, width = block.shape[-2:]
    left = (height - math.floor(MUTED * height), width - math.floor(MUTED * width))
    low = dct2(block)[..., : left[0], : left[1]]
    missing = (0, width - left[1], 0, height - left[0])
    return idct2(functional.pad(low, missing))


CHANGES: dict[str, Callable[[Tensor, float, Tensor, Tensor], Tensor]] = {
    "shift down": lambda block, share, *_: block.roll(math.floor(share * block.shape[-2]), -2),
    "shift right": lambda block, share, *_: block.roll(math.floor(share * block.shape[-1]), -1),
    "flip vertically": lambda block, *_: block.flip(-2),
    "flip horizontally": lambda block, *_: block.flip(-1),
    "rotate by 180 degrees": lambda block, *_: block.flip(-2, -1),
    "darken": lambda block, share, *_: share * block,
    "add noise": lambda block, share, scale, noise: (block + noise).clamp(0, 1),
    "resize": lambda block, *_: _resize(block),
    "low-pass": lambda block, *_: _low_pass(block),
    "drop channels": lambda block, share, scale, noise: scale * block,
}
"""The changes of a block (K, 3, h, w), whose random numbers are a share in [0, 1), a scale of the
channels, (3, 1, 1), and noise (3, h, w). What a shift moves out enters at the other side."""


@published(transform=StructureInvariant, decay=1.0)
def sia() -> None:
    """Structure invariance, with momentum, which the authors' script leaves out."""
