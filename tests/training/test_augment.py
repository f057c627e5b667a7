"""Random crops and flips."""

import torch
from torch.nn import functional

from src.training import augment


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
    first, again, other = (augment(images(), 2, True, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
