"""Batches of images and their deal to processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data import ImageDataset, LabelledImages
from src.run.batches import Batches, layout


def dataset(count: int) -> ImageDataset:
    pixels = np.zeros((count, 4, 4, 3), dtype=np.uint8)
    return ImageDataset(LabelledImages(pixels, np.zeros(count, dtype=np.int64)))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 40), size=st.integers(1, 12), processes=st.integers(1, 4))
@pytest.mark.parametrize("seed", [None, 3])
def test_every_image_is_in_one_batch_of_one_process(seed, count, size, processes):
    data, whole = dataset(count), layout(count, size, seed)
    assert sorted(position for batch in whole for position in batch) == list(range(count))
    assert all(len(batch) <= max(size, 3) for batch in whole)
    parts = [Batches(data, size, processes, rank, seed) for rank in range(processes)]
    positions = [part.positions for part in parts]
    assert whole == [
        positions[rank][turn]
        for turn in range(len(whole))
        for rank in range(processes)
        if turn < len(positions[rank]) and positions[rank][turn]
    ]
    assert all(len(part) for part in parts)  # Lightning refuses a process without batches
    read = [batch.index.tolist() for batch in parts[-1]]
    assert read == parts[-1].positions


@given(count=st.integers(2, 50), size=st.integers(1, 12), seed=st.integers(0, 5))
def test_shuffled_batches_hold_pairs_and_perhaps_a_triple_at_the_end(count, size, seed):
    whole = layout(count, size, seed)
    assert whole == layout(count, size, seed)
    assert all(len(batch) % 2 == 0 for batch in whole[:-1]) and len(whole[-1]) > 1


def test_batches_are_parted_by_groups_but_for_whole_ones():
    groups = np.full(12, -1)
    groups[[0, 5]] = 0
    found = Batches(dataset(12), 4, shuffle_seed=3, groups=groups, whole_batches=True)
    whole = [batch for batch in layout(12, 4, 3) if {0, 5} & set(batch)]
    assert [batch for batch in found.positions if batch] == whole
    groups[1:3] = 1
    assert Batches(dataset(12), 4, groups=groups).positions == [[0], [1, 2], [5], []]


def test_threads_read_at_most_one_batch_ahead_and_report_errors_in_order():
    read = set()

    class Images(LabelledImages):
        def __getitem__(self, position):
            read.add(position)
            if position == 30:
                raise OSError("damaged")
            return super().__getitem__(position)

    pixels = np.zeros((40, 4, 4, 3), dtype=np.uint8)
    batches = iter(Batches(ImageDataset(Images(pixels, np.arange(40) % 2)), 10))
    for number in range(3):
        assert next(batches).index.tolist() == list(range(10 * number, 10 * number + 10))
        assert max(read) < 10 * number + 20
    with pytest.raises((OSError, ValueError), match="damaged"):
        next(batches)
