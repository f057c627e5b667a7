"""How images fall into batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data import ImageDataset, LabelledImages
from src.evaluation.batches import Batches, pairs, partners, singles


def dataset(count: int) -> ImageDataset:
    pixels = np.zeros((count, 4, 4, 3), dtype=np.uint8)
    return ImageDataset(LabelledImages(pixels, np.zeros(count, dtype=np.int64)))


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 40), size=st.integers(1, 12), processes=st.integers(1, 4))
@pytest.mark.parametrize("grouped", [False, True])
def test_every_image_is_in_one_batch_of_one_process(grouped, count, size, processes):
    groups = pairs(count, seed=3) if grouped else singles(count)
    data = dataset(count)
    parts = [Batches(data, groups, size, processes, rank) for rank in range(processes)]
    seen = [
        index
        for part in parts
        if not part.idle
        for number in range(len(part))
        for index in part[number].index.tolist()
    ]
    assert sorted(seen) == list(range(count))
    assert all(part.own == parts[0].own[:1] for part in parts if part.idle)
    for part in parts:
        for batch in part.own:
            assert len(batch) <= max(size, 3)
            members = [set(group) <= set(batch) for group in groups if set(group) & set(batch)]
            assert all(members)


@given(
    count=st.integers(2, 40),
    size=st.integers(1, 50),
    processes=st.integers(1, 4),
)
def test_batches_are_the_same_for_any_number_of_processes(count, size, processes):
    data, groups = dataset(count), pairs(count, seed=0)
    alone = Batches(data, groups, size).own
    parts = [Batches(data, groups, size, processes, rank) for rank in range(processes)]
    shared = [part.own for part in parts if not part.idle]
    assert alone == [own[turn] for turn in range(len(alone)) for own in shared if turn < len(own)]


@given(count=st.integers(2, 50), seed=st.integers(0, 5))
def test_partners_are_a_fixed_derangement(count, seed):
    groups = pairs(count, seed)
    assert groups == pairs(count, seed)
    indices = [10 * position for position in range(count)]
    found = partners(groups, indices)
    assert sorted(found) == sorted(found.values()) == indices
    assert all(image != other for image, other in found.items())
