"""The random numbers of attacks: the published generator, and numbers made of its words."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.attacks import PerImageRandom, Philox, image_seeds
from src.attacks.per_image_random import philox4x32

LIKE = torch.zeros(1)

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


@given(words, words, words)
def test_key_and_counter_are_seed_index_draw_and_stream(seed, index, stream):
    """The words of a draw of nine: three blocks, and all first words before all second ones."""

    def words_of(draw: int) -> list[int]:
        blocks = [by_hand((place, draw, stream, 0), (index, seed)) for place in range(3)]
        return [block[word] for word in range(4) for block in blocks]

    random = Philox(image_seeds(seed, torch.tensor([index])), LIKE.double(), stream)
    assert random.uniform(9)[0].tolist() == [(word >> 8) / 2**24 for word in words_of(0)[:9]]
    assert random.integers(-2, 5, 9)[0].tolist() == [w * 7 // 2**32 - 2 for w in words_of(1)[:9]]
    order = sorted(range(9), key=words_of(2).__getitem__)
    assert random.permutations(9)[0].tolist() == order
    shares = [((word >> 9) + 0.5) / 2**23 for word in words_of(3)]
    expected = []
    for place in range(9):  # Box and Muller's pairs are the first words and the second ones
        first = place // 6 * 6 + place % 3
        wave = math.sin if place // 3 % 2 else math.cos
        radius = math.sqrt(-2 * math.log(shares[first]))
        expected.append(radius * wave(2 * math.pi * shares[first + 3]))
    assert random.normal(9)[0].tolist() == pytest.approx(expected, abs=1e-12)


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
    rows = [2, 0, 3]
    whole, part = (Philox(its, LIKE).normal(*shape) for its in (seeds, seeds[rows]))
    assert torch.equal(part, whole[rows]) and len(whole.unique(dim=0)) == 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_ranges_and_types(dtype):
    random = Philox(torch.arange(50), LIKE.to(dtype))
    shares, normal = random.uniform(5, 1001), random.normal(5, 1001)
    assert shares.dtype == normal.dtype == torch.promote_types(dtype, torch.float32)
    assert shares.shape == normal.shape == (50, 5, 1001) and normal.isfinite().all()
    assert shares.min() >= 0 and shares.max() < 1
    between = random.uniform(1000, low=-0.5, high=0.25)
    assert -0.5 <= between.min() < -0.49 and 0.24 < between.max() < 0.25


def test_images_mixed_in_are_of_another_class():
    count = 200
    pool = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 2, 2), torch.arange(8) % 4
    labels = torch.arange(count) % 4
    random = PerImageRandom(torch.arange(count), torch.zeros(count, 3, 2, 2), labels, pool)
    mixed = random.others()[:, 0, 0, 0].long()
    assert (mixed % 4 != labels).all() and len(mixed.unique()) == 8
