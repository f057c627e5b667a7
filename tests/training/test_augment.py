"""Random crops and flips."""

import torch
from torch.nn import functional

from src.training import augment


def window(image: torch.Tensor, row: int, column: int, mirrored: bool) -> torch.Tensor:
    part = image[:, row : row + 6, column : column + 6]
    return part.flip(2) if mirrored else part


def test_every_result_is_a_crop_of_the_padded_image_or_of_its_mirror():
    random = torch.Generator().manual_seed(0)
    before = torch.randint(1, 256, (16, 3, 6, 6), generator=random, dtype=torch.uint8)
    assert torch.equal(augment(before, 0, False, random), before)
    after = augment(before, 2, True, random)
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
