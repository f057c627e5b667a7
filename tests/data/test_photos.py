"""Crops of the photographs in scikit-image."""

import pickle

import numpy as np
import pytest

from src.data import ImageDataset
from src.data.photos import BLOCK, CROP, MIN_CONTRAST, PHOTOGRAPHS, photos
from src.data.photos import test_blocks as choose_test_blocks


@pytest.fixture(scope="module")
def splits():
    return {split: photos(split) for split in ("train", "test")}


def corners_of(records, number):
    return records.read.__self__.corners[records.labels == number]


def test_sizes_and_balance(splits):
    for split, size in (("train", 400), ("test", 100)):
        assert np.bincount(splits[split].labels).tolist() == [size] * 10
    assert splits["test"].class_names[0] == "astronaut"
    assert splits["test"].read(3).shape == (CROP, CROP, 3)
    assert splits["test"].read(3).dtype == np.uint8


def test_no_test_crop_shares_a_pixel_with_a_training_crop(splits):
    for number in range(len(PHOTOGRAPHS)):
        used = np.zeros(splits["train"].read.__self__.photographs[number].shape[:2], dtype=bool)
        for row, column in corners_of(splits["train"], number):
            used[row : row + CROP, column : column + CROP] = True
        for row, column in corners_of(splits["test"], number):
            assert not used[row : row + CROP, column : column + CROP].any()


def test_no_crop_occurs_twice(splits):
    for records in splits.values():
        for number in range(len(PHOTOGRAPHS)):
            corners = corners_of(records, number)
            assert len(np.unique(corners, axis=0)) == len(corners)


def test_crops_show_something(splits):
    for records in splits.values():
        for i in range(0, len(records), 7):
            assert records.read(i).mean(axis=2).std() >= MIN_CONTRAST - 1e-6


def test_crops_are_cut_from_the_photograph(splits):
    crops = splits["test"].read.__self__
    row, column = crops.corners[13]
    photograph = crops.photographs[3]
    assert photograph.ndim == 3
    assert np.array_equal(crops.read(13), photograph[row : row + 32, column : column + 32])
    grey = crops.read(11)
    assert (grey[:, :, :1] == grey).all()


def test_crop_is_the_same_whatever_their_number(splits):
    fewer = photos("test", n_test=25)
    assert np.bincount(fewer.labels).tolist() == [3] * 5 + [2] * 5
    for i in range(25):
        assert fewer.content(i) == splits["test"].content(i)


def test_crops_are_fixed_and_follow_their_seed(splits):
    digest = ImageDataset(photos("test", n_test=50)).digest()
    assert ImageDataset(photos("test", n_test=50)).digest() == digest
    assert ImageDataset(photos("test", n_test=50, crop_seed=1)).digest() != digest
    # Brick is grey and stored without loss, so its crops are the same on every machine.
    assert corners_of(splits["test"], 1)[:3].tolist() == [[268, 463], [393, 352], [223, 337]]


def test_one_test_block_of_each_group_of_four():
    chosen = choose_test_blocks(5, 7, np.random.RandomState(0))
    assert chosen.shape == (5, 7)
    for top in range(0, 5, 2):
        for left in range(0, 7, 2):
            group = chosen[top : top + 2, left : left + 2]
            assert group.sum() == (1 if group.size > 1 else 0)


def test_crops_lie_within_one_block(splits):
    crops = splits["train"].read.__self__
    for number, photograph in enumerate(crops.photographs):
        margins = [(side % BLOCK) // 2 for side in photograph.shape[:2]]
        offsets = (corners_of(splits["train"], number) - margins) % BLOCK
        assert offsets.max() <= BLOCK - CROP


def test_pickle(splits):
    read = pickle.loads(pickle.dumps(splits["test"])).read
    assert np.array_equal(read(5), splits["test"].read(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_test": 0}, "n_test=0 is not at least 1"),
        ({"n_test": 10**6}, "n_test=1000000 needs 100000 crops of astronaut.png, which has"),
        ({"crop_seed": -1}, "crop_seed=-1"),
        ({"root": "/no/such/folder"}, "photograph /no/such/folder/astronaut.png cannot be read"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        photos("test", **options)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package scikit-image"):
        photos("test")
