"""Input transformations: what holds for all of them, and closed cases of each."""

import dataclasses
import pickle

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from src.attacks.per_image_random import Draws
from src.attacks.transforms import (
    Admix,
    BlockShuffle,
    DiverseInput,
    Scale,
    Spectrum,
    StructureInvariant,
)
from src.attacks.transforms.block_shuffle import _shuffled_axis
from src.attacks.transforms.cosine import dct2, dct_matrix, idct2
from src.attacks.transforms.structure import (
    CHANGES,
    NOISE,
    Luck,
    _cuts,
    add_noise,
    darken,
    drop,
    flip_horizontally,
    flip_vertically,
    half_turn,
    mute,
    resize,
    shift_down,
    shift_right,
)

TRANSFORMS = {
    "diverse input": DiverseInput(probability=0.7, resize_rate=1.3),
    "scale": Scale(),
    "admix": Admix(),
    "spectrum": Spectrum(),
    "block shuffle": BlockShuffle(),
    "block shuffle, 3 blocks": BlockShuffle(blocks=3),
    "structure invariant": StructureInvariant(),
}


@pytest.fixture(params=TRANSFORMS)
def transform(request):
    return TRANSFORMS[request.param]


def batch(count: int = 6, size: int = 32, budgets: int = 2, dtype=torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (budgets, count, 3, size, size)
    return (torch.randint(0, 256, shape, generator=generator) / 255).to(dtype)


def draws_for(images: Tensor, seed: int = 0, only: list[int] | None = None) -> Draws:
    count, (height, width) = images.shape[1], images.shape[-2:]
    generator = torch.Generator().manual_seed(7)
    pool = torch.rand(5, 3, height, width, generator=generator)
    seeds, labels = torch.arange(count) + 100 * seed, torch.arange(count) % 3
    chosen = slice(None) if only is None else only
    return Draws(seeds[chosen], images, labels[chosen], (pool, torch.arange(5) % 3))


def all_copies(transform, images: Tensor, draws: Draws) -> Tensor:
    return torch.stack([transform(images, draws, copy) for copy in range(transform.copies)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [8, 32, 33])
def test_shape_and_type_stay_and_gradients_flow(transform, size, dtype):
    images = batch(3, size, dtype=dtype).requires_grad_()
    result = transform(images, draws_for(images), 0)
    assert result.shape == images.shape and result.dtype == dtype
    assert result.isfinite().all()
    (gradient,) = torch.autograd.grad(result.sum(), images)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_takes_large_images(transform):
    images = batch(2, 299, budgets=1).requires_grad_()
    draws = draws_for(images)
    whole = transform(images, draws, 0)
    (gradient,) = torch.autograd.grad(whole.sum(), images)
    assert whole.shape == gradient.shape == images.shape
    alone = transform(images[:, [1]], draws_for(images, only=[1]), 0)
    assert torch.equal(whole[:, [1]], alone)


def test_takes_images_that_are_not_square(transform):
    images = batch(3, 40)[..., :24]
    for copy in range(min(transform.copies, 4)):
        assert transform(images, draws_for(images), copy).shape == images.shape


def test_gradient_is_the_derivative(transform):
    if isinstance(transform, Spectrum):
        pytest.skip("its gradient is that at the transformed image, as in the authors' code")
    images = 0.25 + batch(2, 8, budgets=1, dtype=torch.float64) / 2  # away from clipping
    images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform(x, draws_for(x), 0), images)


def test_an_image_depends_on_no_other(transform):
    images = batch()
    whole = all_copies(transform, images, draws_for(images))
    for part in ([2], [4, 1], [5, 3, 0]):
        own = all_copies(transform, images[:, part], draws_for(images, only=part))
        assert torch.equal(whole[:, :, part], own)


def test_budgets_share_what_is_drawn(transform):
    images = batch(budgets=3)
    same = images[:1].expand_as(images)
    whole = all_copies(transform, same, draws_for(images))
    torch.testing.assert_close(whole[:, 0], whole[:, 2])
    one = all_copies(transform, images[:1], draws_for(images))
    torch.testing.assert_close(all_copies(transform, images, draws_for(images))[:, :1], one)


def test_seeds_decide(transform):
    images = batch()
    state = torch.get_rng_state()
    first, again, other = (
        all_copies(transform, images, draws_for(images, seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == isinstance(transform, Scale)
    assert torch.equal(torch.get_rng_state(), state)


def test_copies_differ(transform):
    images = batch()
    copies = all_copies(transform, images, draws_for(images))
    assert len(copies) == transform.copies
    assert len({tuple(copy[0].sum((1, 2, 3)).tolist()) for copy in copies}) == len(copies)


def test_can_be_pickled_compared_and_hashed(transform):
    images = batch()
    transform(images, draws_for(images), 0)
    other = pickle.loads(pickle.dumps(transform))
    assert other == transform and hash(other) == hash(transform)
    assert dataclasses.replace(transform) == transform


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (DiverseInput, {"probability": 1.5}, r"attack.probability must be .* \[0, 1\], not 1.5"),
        (DiverseInput, {"probability": float("nan")}, "attack.probability .* not nan"),
        (DiverseInput, {"resize_rate": 0.9}, r"attack.resize_rate must be .* \[1, 4\], not 0.9"),
        (Scale, {"copies": 0}, "attack.copies must be a whole number of at least 1, not 0"),
        (Scale, {"copies": 2.0}, "attack.copies must be a whole number .* not 2.0"),
        (Admix, {"scales": 0}, "attack.scales must be a whole number of at least 1, not 0"),
        (Admix, {"admixed": True}, "attack.admixed must be a whole number .* not True"),
        (Admix, {"strength": -0.1}, r"attack.strength must be a number in \[0, 1\], not -0.1"),
        (Spectrum, {"copies": -1}, "attack.copies must be .* not -1"),
        (Spectrum, {"rho": 2}, r"attack.rho must be a number in \[0, 1\], not 2"),
        (Spectrum, {"sigma_255": 256}, r"attack.sigma_255 must be .* \[0, 255\], not 256"),
        (BlockShuffle, {"copies": None}, "attack.copies must be .* not None"),
        (BlockShuffle, {"blocks": 0}, "attack.blocks must be .* at least 1, not 0"),
        (BlockShuffle, {"max_angle": 181}, r"attack.max_angle must be .* \[0, 180\], not 181"),
        (StructureInvariant, {"copies": 0}, "attack.copies must be .* not 0"),
        (StructureInvariant, {"blocks": "3"}, "attack.blocks must be .* not 3"),
    ],
)
def test_refuses_values_without_a_meaning(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)


@pytest.mark.parametrize("kind", [BlockShuffle, StructureInvariant])
def test_refuses_more_blocks_than_pixels_and_takes_as_many(kind):
    images = batch(2, 8)
    assert kind(blocks=8)(images, draws_for(images), 0).shape == images.shape
    with pytest.raises(ValueError, match=r"attack.blocks must be at most 8, .* not 9"):
        kind(blocks=9)(images, draws_for(images), 0)


# Diverse input


def test_diverse_input_of_probability_0_keeps_every_bit():
    images = batch()
    assert torch.equal(DiverseInput(probability=0)(images, draws_for(images), 0), images)


def test_diverse_input_changes_the_given_share_of_images():
    images = batch(400, 12, budgets=1)
    result = DiverseInput(probability=0.3, resize_rate=1.5)(images, draws_for(images), 0)
    changed = (result != images).flatten(2).any(2)
    assert 0.2 < changed.float().mean() < 0.4


@pytest.mark.parametrize("size", [10, 32, 299])
def test_diverse_input_has_a_black_border(size):
    """White images get dark at the edges, by at most the free room, and stay white inside."""
    images = torch.ones(1, 30, 3, size, size)
    result = DiverseInput(probability=1, resize_rate=1.25)(images, draws_for(images), 0)[0]
    largest = int(size * 1.25)
    assert result.min() >= 0 and result.max() <= 1 + 1e-6
    # at least one of the free pixels lies below and right: there the edge is black or grey
    assert (result[:, :, -1] < 0.999).all() and (result[..., -1] < 0.999).all()
    covered = result.mean((1, 2, 3))
    assert covered.min() > (size / largest) ** 2 - 0.1 and covered.max() < 1
    margin = largest - size + 2
    torch.testing.assert_close(
        result[..., margin:-margin, margin:-margin],
        torch.ones_like(result[..., margin:-margin, margin:-margin]),
    )
    assert len(set(covered.tolist())) > 3 or size == 10


def test_diverse_input_leaves_images_that_have_no_room_to_grow():
    images = batch(size=8)  # 8 * 1.1 is less than 9
    assert torch.equal(DiverseInput(probability=1)(images, draws_for(images), 0), images)


# Scale and Admix


def test_scale_halves_with_every_copy():
    images = batch()
    copies = all_copies(Scale(), images, draws_for(images))
    for copy, divisor in zip(copies, (1, 2, 4, 8, 16), strict=True):
        assert torch.equal(copy, images / divisor)


def test_admix_without_strength_is_scale():
    images = batch()
    expected = all_copies(Scale(), images, draws_for(images))
    result = all_copies(Admix(strength=0, admixed=2), images, draws_for(images))
    assert torch.equal(result, expected.repeat(2, 1, 1, 1, 1, 1))


def test_admix_keeps_the_other_image_through_the_scales_only():
    images = batch()
    draws = draws_for(images)
    copies = all_copies(Admix(), images, draws).unflatten(0, (3, 5))
    divisor = 2.0 ** torch.arange(5).reshape(1, 5, 1, 1, 1, 1, 1)
    others = (copies * divisor - images) / 0.2
    torch.testing.assert_close(others, others[:, :1].expand_as(others), atol=1e-4, rtol=0)
    torch.testing.assert_close(others[:, :, 0], others[:, :, 1], atol=1e-4, rtol=0)
    fresh = draws_for(images)
    for other in others[:, 0, 0]:
        torch.testing.assert_close(other, fresh.others(), atol=1e-4, rtol=0)
    assert not torch.equal(others[0], others[1])


def test_admix_keeps_the_other_image_when_another_transform_draws_in_between():
    images, noise = torch.zeros(1, 4, 3, 8, 8), Spectrum()
    draws = draws_for(images)
    copies = []
    for copy in range(5):
        copies.append(Admix()(images, draws, copy) * 2**copy)
        noise(images, draws, copy)
    assert all(torch.equal(copy, copies[0]) for copy in copies)


# Spectrum


@pytest.mark.parametrize("size", [1, 2, 8, 33, 299])
def test_cosine_transform_is_that_of_scipy(size):
    images = batch(2, 300, budgets=1, dtype=torch.float64)[..., :size, :]
    expected = scipy.fft.dctn(images.numpy(), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(dct2(images).numpy(), expected, atol=1e-10)
    torch.testing.assert_close(idct2(dct2(images)), images, atol=1e-12, rtol=0)
    matrix = dct_matrix(size, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(size).double(), atol=1e-12, rtol=0)


def test_cosine_transform_first_made_without_gradients_serves_gradients():
    images = batch(1, 29)
    dct_matrix.cache_clear()
    with torch.inference_mode():
        dct2(images.clone())
    (gradient,) = torch.autograd.grad(dct2(images.requires_grad_()).sum(), images)
    assert gradient.isfinite().all()


def test_spectrum_keeps_its_precision_under_autocast():
    images = batch(2)
    with torch.autocast("cpu", torch.bfloat16):
        result = Spectrum()(images, draws_for(images), 0)
    assert torch.equal(result, Spectrum()(images, draws_for(images), 0))


@pytest.mark.parametrize("size", [8, 32, 299])
def test_spectrum_without_weights_and_noise_is_the_identity(size):
    images = batch(2, size)
    result = Spectrum(rho=0, sigma_255=0)(images, draws_for(images), 0)
    torch.testing.assert_close(result, images, atol=2e-6, rtol=0)


def test_spectrum_weights_every_frequency_within_bounds():
    images = batch(dtype=torch.float64)
    result = Spectrum(rho=0.3, sigma_255=0)(images, draws_for(images), 0)
    weights = dct2(result) / dct2(images)
    assert weights.min() >= 0.7 - 1e-6 and weights.max() <= 1.3 + 1e-6
    assert weights.std() == pytest.approx(0.6 / 12**0.5, rel=0.03)
    torch.testing.assert_close(weights[0], weights[1])


def test_spectrum_passes_the_gradient_at_the_transformed_image_on():
    images = batch(dtype=torch.float64).requires_grad_()
    weights = torch.randn(images.shape, dtype=torch.float64)
    changed = Spectrum()(images, draws_for(images), 0)
    (gradient,) = torch.autograd.grad((weights * changed.square()).sum(), images)
    assert torch.equal(gradient, 2 * weights * changed.detach())


def test_spectrum_noise_has_the_given_deviation():
    images = torch.zeros(1, 6, 3, 32, 32)
    noise = Spectrum(rho=0, sigma_255=20)(images, draws_for(images), 0)
    assert noise.std().item() * 255 == pytest.approx(20, rel=0.03)
    assert noise.mean().item() * 255 == pytest.approx(0, abs=1)


# Block shuffle


def test_block_shuffle_of_one_block_without_rotation_is_the_identity():
    images = batch()
    assert torch.equal(BlockShuffle(blocks=1, max_angle=0)(images, draws_for(images), 0), images)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(9, 20), st.integers(9, 20), st.integers(0, 10**6))
def test_block_shuffle_without_rotation_moves_pixels_and_loses_none(blocks, height, width, seed):
    numbers = torch.arange(height * width, dtype=torch.float32).reshape(height, width)
    images = numbers.expand(1, 2, 3, height, width)
    result = BlockShuffle(blocks=blocks, max_angle=0)(images, draws_for(images, seed), 0)
    assert torch.equal(result.flatten(3).sort().values, images.flatten(3).sort().values)
    # rows and columns move as wholes: a pixel's column of origin is that of its column
    assert ((result % width) == (result % width)[..., :1, :]).all()
    assert ((result // width) == (result // width)[..., :1]).all()
    # inside a block neighbours stay neighbours
    breaks = ((result % width)[..., 0, :].diff() != 1).sum(-1)
    assert (breaks <= blocks - 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(8, 40), st.integers(0, 10**6))
def test_shuffled_axes_have_all_blocks_and_at_least_one_pixel_in_each(blocks, length, seed):
    images = torch.zeros(1, 4, 3, 8, 8)
    axis = _shuffled_axis(draws_for(images, seed), blocks, length)
    assert torch.equal(
        (axis.start + axis.offset).sort(1).values, torch.arange(length).expand(4, length)
    )
    for row in axis.block:
        assert set(row.tolist()) == set(range(blocks))
    assert (axis.offset < axis.size).all() and (axis.offset >= 0).all()


def test_block_shuffle_visits_every_order():
    images = torch.zeros(1, 200, 3, 8, 8)
    axis = _shuffled_axis(draws_for(images), 3, 8)
    orders = {tuple(dict.fromkeys(row.tolist())) for row in axis.block}
    assert len(orders) == 6


@pytest.mark.parametrize("size", [15, 32])
def test_rotation_of_one_block_is_that_of_torchvision(size):
    images = batch(5, size, budgets=1)
    result = BlockShuffle(blocks=1, max_angle=60)(images, draws_for(images), 0)[0]
    draws = draws_for(images)
    for _ in range(2):  # the cuts and orders of both axes come first
        draws.uniform(1)
        draws.permutations(1)
    angles = 60 * draws.uniform(1, 1, low=-1, high=1).flatten()
    assert angles.abs().max() > 20
    for image, own, angle in zip(images[0], result, angles.tolist(), strict=True):
        expected = rotate(image, -angle, InterpolationMode.BILINEAR)
        torch.testing.assert_close(own, expected, atol=1e-3, rtol=0)


def test_rotated_blocks_take_no_pixels_of_others():
    """One pixel of the first block is white: wherever that goes, the other blocks stay black."""
    images = torch.zeros(1, 40, 3, 16, 16)
    images[..., :1, :1] = 1
    result = BlockShuffle(blocks=2, max_angle=24)(images, draws_for(images), 0)
    rows, columns = (_first_block(draws_for(images), axis) for axis in (0, 1))
    outside = ~(rows[:, None, :, None] & columns[:, None, None, :])
    assert (result[0] * outside == 0).all()


def _first_block(draws: Draws, axis: int) -> Tensor:
    for _ in range(axis):
        _shuffled_axis(draws, 2, 16)
    return _shuffled_axis(draws, 2, 16).block == 0


# Structure invariant


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(8, 40), st.integers(0, 10**6))
def test_cuts_leave_no_block_empty(blocks, length, seed):
    images = torch.zeros(1, 4, 3, 8, 8)
    sizes = _cuts(draws_for(images, seed), blocks, length)
    assert sizes.shape == (4, blocks) and (sizes >= 1).all()
    assert (sizes.sum(1) == length).all()


def luck(amount: float = 0.5, kept: Tensor | None = None, noise: Tensor | None = None) -> Luck:
    return Luck(
        amount,
        torch.ones(3, 1, 1) if kept is None else kept,
        torch.zeros(3, 4, 5) if noise is None else noise,
    )


BLOCK = torch.arange(60.0).reshape(1, 3, 4, 5) / 60


def test_changes_of_a_block_that_move_pixels():
    rows, columns = [3, 0, 1, 2], [4, 0, 1, 2, 3]
    assert torch.equal(shift_down(BLOCK, luck(0.3)), BLOCK[:, :, rows])
    assert torch.equal(shift_right(BLOCK, luck(0.3)), BLOCK[:, :, :, columns])
    assert torch.equal(shift_down(BLOCK, luck(0.2)), BLOCK)
    assert torch.equal(flip_vertically(BLOCK, luck()), BLOCK[:, :, [3, 2, 1, 0]])
    assert torch.equal(flip_horizontally(BLOCK, luck()), BLOCK[..., [4, 3, 2, 1, 0]])
    assert torch.equal(half_turn(BLOCK, luck()), torch.rot90(BLOCK, 2, (2, 3)))


def test_changes_of_a_block_that_change_values():
    assert torch.equal(darken(BLOCK, luck(0.25)), BLOCK / 4)
    noise = torch.full((3, 4, 5), 0.05)
    assert torch.equal(add_noise(BLOCK, luck(noise=noise)), (BLOCK + 0.05).clamp(0, 1))
    kept = torch.tensor([0, 2.0, 0]).reshape(3, 1, 1)
    dropped = drop(BLOCK, luck(kept=kept))
    assert torch.equal(dropped[:, 1], 2 * BLOCK[:, 1])
    assert not dropped[:, [0, 2]].any()


def test_removal_of_frequencies_is_a_projection():
    block = batch(2, 21)[0]
    once = mute(block, luck())
    torch.testing.assert_close(mute(once, luck()), once, atol=1e-5, rtol=0)
    spectrum = dct2(once)
    torch.testing.assert_close(spectrum[..., :13, :13], dct2(block)[..., :13, :13])
    assert spectrum[..., 13:, :].abs().max() < 1e-5 and spectrum[..., 13:].abs().max() < 1e-5
    torch.testing.assert_close(mute(BLOCK[..., :2, :2], luck()), BLOCK[..., :2, :2])


@pytest.mark.parametrize("change", [resize, mute])
def test_changes_of_sharpness_leave_an_even_block(change):
    even = torch.full((1, 3, 9, 11), 0.3)
    torch.testing.assert_close(change(even, luck()), even)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3)])
def test_every_change_takes_the_smallest_blocks(change, size):
    block = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    result = change(block, luck(0.99, noise=torch.full((3, *size), NOISE)))
    assert result.shape == block.shape and result.isfinite().all()


def test_structure_invariant_makes_all_changes_equally_often(monkeypatch):
    seen = []
    spies = [lambda block, luck, n=n: seen.append(n) or block for n in range(len(CHANGES))]
    monkeypatch.setattr("src.attacks.transforms.structure.CHANGES", spies)
    images = batch(200, 12, budgets=1)
    result = StructureInvariant()(images, draws_for(images), 0)
    assert torch.equal(result, images)  # the blocks make up the image again
    counts = torch.bincount(torch.tensor(seen), minlength=len(CHANGES))
    assert counts.sum() == 200 * 9 and counts.min() > 130 and counts.max() < 230


def test_structure_invariant_of_one_block_changes_the_whole_image():
    images = batch(30, budgets=1)
    result = StructureInvariant(blocks=1)(images, draws_for(images), 0)
    draws = draws_for(images)
    _cuts(draws, 1, 32), _cuts(draws, 1, 32)
    kinds = draws.integers(0, len(CHANGES), 1, 1).flatten()
    for image, own, kind in zip(images[0], result[0], kinds.tolist(), strict=True):
        if CHANGES[kind] in (flip_vertically, flip_horizontally, half_turn):
            assert torch.equal(own, CHANGES[kind](image[None], luck())[0])
    assert len(set(kinds.tolist())) > 5
