"""The random numbers of attacks: the published generator, and distributions made of its words."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.attacks import PerImageRandom, Philox, image_seeds, noise_signs, philox4x32

LIKE = torch.zeros(1)
ALPHA = 1e-3
"""Seeds are fixed: a test passes for ever or fails for ever, a right generator at these odds."""

words = st.integers(0, 2**32 - 1)


def by_hand(counter, key) -> list[int]:
    """Algorithm Philox-4x32 of the paper, in Python's own whole numbers."""
    l0, r0, l1, r1 = counter  # two pairs, (L, R)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * l0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * l1, 2**32)
        l0, r0, l1, r1 = high1 ^ k0 ^ r0, low1, high0 ^ k1 ^ r1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [l0, r0, l1, r1]


def test_known_answer_of_random123():
    counter, key = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    expected = [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    made = philox4x32([torch.tensor(x) for x in counter], [torch.tensor(x) for x in key])
    assert [int(word) for word in made] == by_hand(counter, key) == expected


@given(words, words, st.integers(0, 2**32 - 1))
def test_key_and_counter_are_seed_index_draw_and_stream(seed, index, stream):
    """The words of a draw of nine: three blocks, and all first words before all second ones."""
    random = Philox(image_seeds(seed, torch.tensor([index])), LIKE, stream)
    random.normal(7)
    shares = random.uniform(9)[0]
    blocks = [by_hand((place, 1, stream, 0), (index, seed)) for place in range(3)]
    expected = [(blocks[i % 3][i // 3] >> 8) / 2**24 for i in range(9)]
    assert shares.tolist() == expected


def test_normal_numbers_at_the_ends_of_the_words():
    """Seeds whose first or second word is near 0 or 2**32: no logarithm of 0, and no radius 0."""
    seeds = torch.tensor([75465, 16390493, 1953073, 7624765])
    first, second, *_ = philox4x32(torch.zeros(4, 4, dtype=torch.int64), (seeds, seeds >> 32))
    assert first[0] < 512 and first[1] >= 2**32 - 512
    assert second[2] < 512 and second[3] >= 2**32 - 512
    numbers = Philox(seeds, LIKE).normal(2)
    assert numbers.all() and 5.7 < numbers[0].norm() < 5.8 and numbers[1].norm() < 4e-4


def test_an_image_draws_the_same_in_every_batch():
    """Also where its numbers are made in other parts: together, these are more than one."""
    seeds, shape = torch.tensor([3, -1, 2**40, 0, 7]), (3, 333, 211)

    def drawn(rows) -> list[torch.Tensor]:
        random = Philox(seeds[rows], LIKE)
        large = [random.uniform(*shape, low=-1), random.normal(*shape), random.integers(0, 9, 5)]
        return [*large, random.permutations(11), random.uniform()]

    whole = drawn(slice(None))
    for rows in ([0], [2, 0, 3]):
        for one, every in zip(drawn(rows), whole, strict=True):
            assert torch.equal(one, every[rows])
    assert all(len(numbers.unique(dim=0)) > 1 for numbers in whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_ranges_and_types(dtype):
    random = Philox(torch.arange(50), LIKE.to(dtype))
    shares, normal = random.uniform(5, 1001), random.normal(5, 1001)
    assert shares.dtype == normal.dtype == torch.promote_types(dtype, torch.float32)
    assert shares.shape == normal.shape == (50, 5, 1001) and normal.isfinite().all()
    assert shares.min() >= 0 and shares.max() < 1
    between = random.uniform(1000, low=-0.5, high=0.25)
    assert -0.5 <= between.min() < -0.49 and 0.24 < between.max() < 0.25
    assert random.integers(-2, 3, 200).unique().tolist() == [-2, -1, 0, 1, 2]
    assert random.permutations(0).shape == (50, 0) and random.uniform(0).shape == (50, 0)
    assert Philox(torch.arange(0), LIKE).normal(3).shape == (0, 3)


def test_normal_numbers_are_normal():
    """Every fourth number is tested alone too, as each comes from another word of its block."""
    random = Philox(image_seeds(12, torch.arange(40)), LIKE)
    numbers = np.stack([random.normal(4, 1000).numpy() for _ in range(3)])
    for n in range(4):
        assert scipy.stats.kstest(numbers[:, :, n].ravel(), "norm").pvalue > ALPHA
    for axis, name in enumerate(("draws", "images", "words", "places")):
        moved = np.moveaxis(numbers, axis, 0)
        for kind in (lambda x: x, np.square):  # the pairs of Box and Muller share a radius
            result = scipy.stats.pearsonr(kind(moved[:-1]).ravel(), kind(moved[1:]).ravel())
            assert result.pvalue > ALPHA, name


def test_integers_orders_and_noise_signs_are_equally_likely():
    random = Philox(image_seeds(0, torch.arange(9000)), LIKE)
    orders = Counter(map(tuple, random.permutations(4).tolist()))
    assert set(orders) == set(permutations(range(4)))
    assert scipy.stats.chisquare(list(orders.values())).pvalue > ALPHA
    two = random.integers(0, 7, 2)
    table = torch.bincount(7 * two[:, 0] + two[:, 1], minlength=49)
    assert scipy.stats.chisquare(table.numpy()).pvalue > ALPHA
    index, like = torch.arange(100), torch.zeros(100, 3, 20, 20)
    signs = noise_signs(5, index, like)
    assert signs.dtype == like.dtype and signs.unique().tolist() == [-1, 1]
    positive = int((signs > 0).sum())
    assert scipy.stats.binomtest(positive, signs.numel()).pvalue > ALPHA
    assert torch.equal(noise_signs(5, index[40:43], like[:3]), signs[40:43])


def test_images_mixed_in_are_of_another_class():
    count = 200
    pool = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 2, 2), torch.arange(8) % 4
    labels = torch.arange(count) % 4
    random = PerImageRandom(torch.arange(count), torch.zeros(count, 3, 2, 2), labels, pool)
    mixed = random.others()[:, 0, 0, 0].long()
    assert (mixed % 4 != labels).all() and len(mixed.unique()) == 8
