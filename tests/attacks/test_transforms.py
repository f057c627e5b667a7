"""Input transformations: their gradients, and those without a reference by their rules."""

from functools import partial

import pytest
import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from src import attacks
from src.attacks import BlockShuffle, PerImageRandom, ScaledBlocks
from tests.attacks.conftest import random_for

IMAGES = torch.rand(1, 80, 3, 11, 13, generator=torch.Generator().manual_seed(1))  # one budget


def shuffled_by_hand(images: Tensor, random: PerImageRandom, blocks: int) -> Tensor:
    """Crop every block, rotate it as torchvision does, and put the blocks together in new order."""
    cuts, orders = [], []
    for length in images.shape[-2:]:
        shares = (1 - random.uniform(blocks)).cumsum(1)
        whole = (shares / shares[:, -1:] * (length - blocks)).round().int()
        cuts.append([[0, *row] for row in (whole + torch.arange(blocks) + 1).tolist()])
        orders.append(random.permutations(blocks).tolist())
    angles = (60 * random.uniform(blocks, blocks, low=-1, high=1)).tolist()
    results = []
    for n, image in enumerate(images):
        strips = []
        for i in orders[0][n]:
            top, bottom = cuts[0][n][i : i + 2]
            row = []
            for j in orders[1][n]:
                left, right = cuts[1][n][j : j + 2]
                crop = image[:, top:bottom, left:right]
                row.append(vision.rotate(crop, -angles[n][i][j], InterpolationMode.BILINEAR))
            strips.append(torch.cat(row, dim=2))
        results.append(torch.cat(strips, dim=1))
    return torch.stack(results)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_block_shuffle_by_hand(blocks):
    images = IMAGES[:, :8].repeat(1, 1, 1, 2, 2)
    result = BlockShuffle(blocks=blocks, max_angle=60)(images, random_for(images), 0)[0]
    expected = shuffled_by_hand(images[0], random_for(images), blocks)
    torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


def low_passed(block: Tensor) -> Tensor:
    spectrum = scipy.fft.dctn(block.numpy(), axes=(1, 2), norm="ortho")
    height, width = spectrum.shape[1:]
    spectrum[:, height - int(0.4 * height) :] = 0
    spectrum[:, :, width - int(0.4 * width) :] = 0
    return torch.from_numpy(scipy.fft.idctn(spectrum, axes=(1, 2), norm="ortho"))


def resized(block: Tensor) -> Tensor:
    height, width = block.shape[1:]
    small = (int(0.8 * height) + 1, int(0.8 * width) + 1)
    shrunk = functional.interpolate(block[None], small, mode="bilinear")
    return functional.interpolate(shrunk, (height, width), mode="bilinear")[0]


def changed_by_hand(kind: int, block: Tensor, share: float, kept: Tensor, noise: Tensor) -> Tensor:
    """The ten changes in the order of the authors' code."""
    down, right = int(share * block.shape[1]), int(share * block.shape[2])
    return [
        lambda: torch.cat([block[:, -down:], block[:, :-down]], 1) if down else block,
        lambda: torch.cat([block[..., -right:], block[..., :-right]], 2) if right else block,
        lambda: block.flip(1),
        lambda: block.flip(2),
        lambda: torch.rot90(block, 2, (1, 2)),
        lambda: share * block,
        lambda: (block + noise).clamp(0, 1),
        lambda: resized(block),
        lambda: low_passed(block),
        lambda: torch.where(kept >= 0.1, block / 0.9, 0),
    ][kind]()


@pytest.mark.parametrize(("blocks", "count"), [(1, 80), (3, 30)])
def test_structure_invariant_by_hand(blocks, count):
    images = IMAGES[:, :count].double()
    random, sides = random_for(images), images.shape[-2:]
    cuts = []
    for length in sides:
        inner = (random.permutations(length - 1)[:, : blocks - 1] + 1).sort(1).values
        cuts.append([[0, *row, length] for row in inner.tolist()])
    kinds = random.integers(0, 10, blocks, blocks)
    shares = random.uniform(blocks, blocks)
    kept = random.uniform(blocks, blocks, 3, 1, 1)
    noise = random.uniform(3, *sides, low=-16 / 255, high=16 / 255)
    result = attacks.StructureInvariant(blocks=blocks)(images, random_for(images), 0)[0]
    for n, image in enumerate(images[0]):
        for i in range(blocks):
            rows = slice(*cuts[0][n][i : i + 2])
            for j in range(blocks):
                part = (slice(None), rows, slice(*cuts[1][n][j : j + 2]))
                own = float(shares[n, i, j]), kept[n, i, j], noise[n][part]
                expected = changed_by_hand(int(kinds[n, i, j]), image[part], *own)
                torch.testing.assert_close(result[n][part], expected, atol=1e-12, rtol=0)
    assert len(kinds.unique()) == 10


def test_changes_before_blocks_are_scaled_are_torchvisions():
    result = ScaledBlocks(scaling=0, colour=0.8)(IMAGES, random_for(IMAGES), 0)[0]
    counts = [0] * 6
    for image, found, (chance, kind, amount) in zip(
        IMAGES[0], result, random_for(IMAGES).uniform(31)[:, :3].tolist(), strict=True
    ):
        way = int(5 * kind) if chance < 0.8 else 5
        counts[way] += 1
        expected = [
            lambda image, u: image.flip(2 if u < 0.5 else 1),
            lambda image, u: vision.adjust_contrast(image, 2 * u),
            lambda image, u: vision.adjust_brightness(image, 2 * u),
            lambda image, u: vision.adjust_saturation(image, 2 * u),
            lambda image, u: vision.adjust_hue(image, u - 0.5),
            lambda image, u: image,
        ][way](image, amount)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert min(counts) > 2


def test_blocks_are_those_of_the_changed_image():
    whole, scaled, changed = (
        partial(ScaledBlocks(scaling=scaling, colour=colour), random=random_for(IMAGES), copy=0)
        for scaling, colour in ((0.9, 1), (0.9, 0), (0, 1))
    )
    torch.testing.assert_close(whole(IMAGES), scaled(changed(IMAGES)), atol=1e-6, rtol=0)
