"""Crops of the photographs in scikit-image."""

import hashlib

import numpy as np
import pytest

from src.data import ImageDataset
from src.data.photos import (
    BLOCK,
    CROP,
    MIN_CONTRAST,
    PHOTOGRAPHS,
    crop_corners,
    photograph_folder,
    photos,
    read_photograph,
)


@pytest.fixture(scope="module")
def splits():
    return {split: photos(split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def corners():
    """Each photograph with the corners of its training and of its test crops."""
    photographs = [read_photograph(photograph_folder() / name) for name in PHOTOGRAPHS]
    return [
        (photograph, *(crop_corners(photograph, split, seed)[:400] for split in ("train", "test")))
        for seed, photograph in enumerate(photographs)
    ]


def test_sizes_and_balance(splits):
    for split, size in (("train", 400), ("test", 100)):
        assert np.bincount(splits[split].targets).tolist() == [size] * 10
    assert splits["test"].classes[0] == "astronaut"
    assert splits["test"].images.shape == (1000, CROP, CROP, 3)


def test_crops_are_cut_from_their_photographs(splits, corners):
    for split, data in splits.items():
        for i in range(0, len(data), 37):
            photograph, train, test = corners[data.targets[i]]
            row, column = (train if split == "train" else test)[i // 10]
            crop = photograph[row : row + CROP, column : column + CROP]
            assert np.array_equal(data.images[i], crop)
            assert data.images[i].mean(axis=2).std() >= MIN_CONTRAST - 1e-6


def test_no_test_crop_shares_a_pixel_with_a_training_crop(corners):
    for photograph, train, test in corners:
        used = np.zeros(photograph.shape[:2], dtype=bool)
        for row, column in train:
            used[row : row + CROP, column : column + CROP] = True
        for row, column in test:
            assert not used[row : row + CROP, column : column + CROP].any()
        margins = [(side % BLOCK) // 2 for side in photograph.shape[:2]]
        for found in (train, test):
            assert ((found - margins) % BLOCK).max() <= BLOCK - CROP
            assert len(np.unique(found, axis=0)) == len(found)


def test_crops_are_fixed_and_follow_their_seed(splits):
    fewer = photos("test", n_test=25)
    assert np.bincount(fewer.targets).tolist() == [3] * 5 + [2] * 5
    assert np.array_equal(fewer.images, splits["test"].images[:25])
    other = ImageDataset(photos("test", n_test=25, crop_seed=1))
    assert other.digest() != ImageDataset(fewer).digest()
    # Brick is stored without loss, so its crops are the same on every machine.
    brick = splits["test"].images[1::10].tobytes()
    assert hashlib.sha256(brick).hexdigest()[:16] == "aebca34d9f0e97f9"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_test": 0}, "n_test=0"),
        ({"n_test": 10**6}, "n_test=1000000"),
        ({"crop_seed": -1}, "crop_seed=-1"),
        ({"root": "/no/such/folder"}, r"/no/such/folder/astronaut\.png"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        photos("test", **options)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="scikit-image"):
        photos("test")
