"""Input transformations: their gradients, and those without a reference by their rules."""

from functools import partial
from types import SimpleNamespace

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


class Logged:
    """Random numbers of one image, and a list of what was drawn."""

    def __init__(self, seed: int) -> None:
        self.generator, self.drawn, self.scratch = torch.Generator().manual_seed(seed), [], {}

    def keep(self, numbers: Tensor) -> Tensor:
        self.drawn.append(numbers[0])
        return numbers

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return self.keep(low + (high - low) * torch.rand(1, *shape, generator=self.generator))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return self.keep(torch.randint(low, high, (1, *shape), generator=self.generator))

    def permutations(self, length: int) -> Tensor:
        return self.keep(torch.randperm(length, generator=self.generator)[None])


def far_cuts(numbers: Tensor, length: int) -> list[int]:
    margin, gap = round(35 / 224 * length), round(40 / 224 * length)
    first = margin + int(numbers[0].double() * (length - 2 * margin))
    others = [at for at in range(margin, length - margin) if abs(at - first) > gap]
    return sorted([first, others[int(numbers[1].double() * len(others))]])


def stretched(image: Tensor, cuts: list[int], shares: Tensor, dim: int) -> list[Tensor]:
    length = image.shape[dim]
    ends = [0, *(shares.double().cumsum(0) / shares.double().sum() * length).round().int().tolist()]
    strips = image.tensor_split(cuts, dim)
    sizes = [[*image.shape[1:]] for _ in strips]
    for size, start, end in zip(sizes, ends, ends[1:], strict=False):
        size[dim - 1] = end - start
    return [
        functional.interpolate(strip[None], size=size, mode="bilinear")[0]
        for strip, size in zip(strips, sizes, strict=True)
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sides", [(32, 32), (40, 24)])
def test_stretched_blocks_by_hand(seed, sides):
    image, random = torch.rand(3, *sides, dtype=torch.float64), Logged(seed)
    result = attacks.StretchedBlocks()(image[None, None], random, 0)[0, 0]
    order, *cuts, alike, apart = random.drawn
    axes = (1, 2) if order < 0.5 else (2, 1)
    places = [far_cuts(numbers, side) for numbers, side in zip(cuts, sides, strict=True)]
    strips = stretched(image, places[axes[0] - 1], alike[0], axes[0])
    pairs = zip(strips, apart, strict=True)
    strips = [
        torch.cat(stretched(strip, places[axes[1] - 1], own, axes[1]), axes[1])
        for strip, own in pairs
    ]
    torch.testing.assert_close(result, torch.cat(strips, axes[0]), atol=1e-12, rtol=0)


def fused(block: Tensor, image: Tensor, kind: float, mirrored: bool, turned: bool) -> Tensor:
    height, width = block.shape[1:]
    if kind >= 0.5:
        small = functional.interpolate(image[None], size=(height, width), mode="bilinear")[0]
        small = small.flip(2) if mirrored else small
        if kind < 0.75:
            spectra = [
                scipy.fft.dctn(its.numpy(), axes=(1, 2), norm="ortho") for its in (small, block)
            ]
            low = slice(int(0.4 * height)), slice(int(0.4 * width))
            spectra[0][:, *low] = spectra[1][:, *low]
            block = torch.from_numpy(scipy.fft.idctn(spectra[0], axes=(1, 2), norm="ortho"))
        else:
            block = (small + block) / 2
    return block.flip(2) if turned else block


@pytest.mark.parametrize("seed", range(12))
def test_fused_blocks_by_hand(seed):
    image, random, copy = torch.rand(3, 40, 24, dtype=torch.float64), Logged(seed), 5 * (seed % 4)
    result = attacks.FusedBlocks()(image[None, None], random, copy)[0, 0]
    *lengths, kinds, flips, last, offsets = random.drawn
    cuts = [
        round(side * float(pair[0].double() / pair.double().sum()))
        for pair, side in zip(lengths, (40, 24), strict=True)
    ]
    rows = [
        torch.cat(
            [
                fused(block, image, kinds[i, j], flips[0, i, j] > 0, flips[1, i, j] > 0)
                for j, block in enumerate(strip.tensor_split([cuts[1]], 2))
            ],
            2,
        )
        for i, strip in enumerate(image.tensor_split([cuts[0]], 1))
    ]
    new = [int(side * (1 - copy / 200)) for side in (40, 24)]
    small = functional.interpolate(torch.cat(rows, 1)[None], size=new, mode="bilinear")[0]
    top, left = (int(o.double() * (s - n)) for o, s, n in zip(offsets, (40, 24), new, strict=True))
    expected = functional.pad(small, (left, 24 - new[1] - left, top, 40 - new[0] - top))
    expected = expected.flip(2) if last < 0.5 else expected
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_a_shifted_perturbation_is_shifted_back(seed):
    image, change = torch.rand(2, 1, 1, 3, 9, 7, dtype=torch.float64)
    random, weights = Logged(seed), torch.rand(3, 9, 7, dtype=torch.float64)
    state = SimpleNamespace(images=image, at=image + change, random=random)

    def loss(images: Tensor) -> Tensor:
        return (weights * images**3).sum()

    def gradient(at: Tensor) -> Tensor:
        return 3 * weights * at**2

    result = attacks.ShiftedPerturbation(copies=1, shift=5)(gradient, state)
    numbers, signs = random.drawn
    down, right = ((6 * numbers.double().prod(1)).floor().int() * (2 * signs - 1)).tolist()
    variable = change.clone().requires_grad_()
    padded = functional.pad(variable, (9, 9, 9, 9))[
        ..., 9 - down : 18 - down, 9 - right : 16 - right
    ]
    (expected,) = torch.autograd.grad(loss(image + padded), variable)
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)


def test_blocks_are_shown_alone_and_without_repetition():
    images, random = torch.rand(1, 1, 3, 11, 10), Logged(0)
    whole, *shown = (attacks.SingleBlocks(copies=10)(images, random, copy) for copy in range(10))
    assert torch.equal(whole, images)
    alike = [(block == images).all(dim=2)[0, 0] for block in shown]
    assert [int(mask.sum()) for mask in alike] == [9] * 9
    assert torch.stack(alike).sum(dim=0)[:9, :9].eq(1).all()
