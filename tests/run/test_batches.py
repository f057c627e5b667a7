"""Batches of images and their deal to processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data import ImageDataset, LabelledImages
from src.run.trainer import Batches, layout


def dataset(count: int) -> ImageDataset:
    pixels = np.zeros((count, 4, 4, 3), dtype=np.uint8)
    return ImageDataset(LabelledImages(pixels, np.zeros(count, dtype=np.int64)))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 12), processes=st.integers(1, 4))
def test_every_image_is_in_one_batch_of_one_process_with_its_partner(count, size, processes):
    data = dataset(count)
    whole = layout(data.dealt.tolist(), size)
    assert sorted(position for batch in whole for position in batch) == list(range(count))
    assert all(len(batch) <= max(size, 3) for batch in whole)
    assert all(len(batch) % 2 == 0 for batch in whole[count % 2 :])
    assert all(data.partners[position] in batch for batch in whole for position in batch)
    parts = [Batches(data, size, processes, rank) for rank in range(processes)]
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


def test_batches_are_parted_by_groups_but_for_whole_ones():
    data, groups = dataset(12), np.full(12, -1)
    places = data.dealt
    groups[places[[0, 5]]] = 0
    found = Batches(data, 4, groups=groups, whole_batches=True).positions
    assert found == [places[:4].tolist(), places[4:8].tolist(), []]
    groups[places[1:3]] = 1
    found = Batches(data, 4, groups=groups).positions
    assert found == [[places[0]], places[1:3].tolist(), [places[5]], []]


def test_threads_read_at_most_one_batch_ahead_and_report_errors_in_order():
    read = set()

    class Images(LabelledImages):
        def __getitem__(self, position):
            read.add(position)
            if position == 30:
                raise OSError("damaged")
            return super().__getitem__(position)

    pixels = np.zeros((40, 4, 4, 3), dtype=np.uint8)
    data = ImageDataset(Images(pixels, np.arange(40) % 2))
    data.dealt = np.arange(40)
    batches = iter(Batches(data, 10))
    for number in range(3):
        assert next(batches).index.tolist() == list(range(10 * number, 10 * number + 10))
        assert max(read) < 10 * number + 20
    with pytest.raises((OSError, ValueError), match="damaged"):
        next(batches)
