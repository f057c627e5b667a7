"""Augmentation and shuffling."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.training.data import EpochShuffle, augment


def images(count: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, 6, 6), generator=generator, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def window(image: torch.Tensor, row: int, column: int, mirrored: bool) -> torch.Tensor:
    part = image[:, row : row + 6, column : column + 6]
    return part.flip(2) if mirrored else part


def test_without_padding_and_flips_nothing_changes():
    assert torch.equal(augment(images(), 0, False, generator()), images())


def test_every_result_is_a_crop_of_the_padded_image_or_of_its_mirror():
    before = images()
    after = augment(before, 2, True, generator())
    padded = functional.pad(before, (2, 2, 2, 2))
    seen = set()
    for old, new in zip(padded, after, strict=True):
        places = [
            (row, column, mirrored)
            for row in range(5)
            for column in range(5)
            for mirrored in (False, True)
            if torch.equal(new, window(old, row, column, mirrored))
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 8 and {place[2] for place in seen} == {False, True}


def test_depends_on_the_generator_alone():
    assert torch.equal(
        augment(images(), 2, True, generator(1)), augment(images(), 2, True, generator(1))
    )
    assert not torch.equal(
        augment(images(), 2, True, generator(1)), augment(images(), 2, True, generator(2))
    )


def test_shuffle_is_a_permutation_that_changes_with_the_epoch():
    sampler = EpochShuffle(50, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(50)) and first == list(sampler)
    sampler.set_epoch(1)
    assert sorted(sampler) == list(range(50)) and list(sampler) != first
    assert np.array_equal(first, list(EpochShuffle(50, seed=3)))
    assert first != list(EpochShuffle(50, seed=4))


def test_uint8_stays_uint8():
    assert augment(images(), 1, True, generator()).dtype == torch.uint8


@pytest.mark.parametrize("padding", [0, 3])
def test_shape_stays(padding):
    assert augment(images(5), padding, True, generator()).shape == (5, 3, 6, 6)
