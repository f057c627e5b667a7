"""Crops of the photographs in scikit-image."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.photos import MIN_CONTRAST, PHOTOGRAPHS, photos


@pytest.fixture(scope="module")
def test_split():
    return photos("test")


def test_crops_are_balanced_and_show_something(test_split):
    assert np.bincount(photos("train").targets).tolist() == [400] * 10
    assert np.bincount(test_split.targets).tolist() == [100] * 10
    assert test_split.classes[0] == "astronaut" and test_split.images.shape == (1000, 32, 32, 3)
    assert (test_split.images.mean(axis=3).std(axis=(1, 2)) >= MIN_CONTRAST - 1e-6).all()


def test_no_test_crop_shares_a_pixel_with_a_training_crop(tmp_path):
    rows, columns = np.indices((250, 230), dtype=np.uint8)  # each pixel says where it is
    noise = np.random.default_rng(0).integers(0, 256, rows.shape, dtype=np.uint8)
    for name in PHOTOGRAPHS:
        Image.fromarray(np.stack([rows, columns, noise], axis=2)).save(tmp_path / name, "PNG")
    used = {}
    for split in ("train", "test"):
        data = photos(split, root=str(tmp_path), n_train=1500, n_test=1500)
        images = data.images[data.targets == 3]
        places = images[..., 0].astype(int) * 256 + images[..., 1]
        assert len(np.unique(places[:, 0, 0])) == len(places) == 150
        assert (places[:, 31, 31] - places[:, 0, 0] == 31 * 257).all()  # whole crops
        used[split] = set(places.ravel())
    assert not used["train"] & used["test"]


def test_crops_are_fixed_and_follow_their_seed(test_split):
    fewer = photos("test", n_test=25)
    assert np.bincount(fewer.targets).tolist() == [3] * 5 + [2] * 5
    assert np.array_equal(fewer.images, test_split.images[:25])
    other = ImageDataset(photos("test", n_test=25, crop_seed=1))
    assert other.digest() != ImageDataset(fewer).digest()
    # Brick is stored without loss, so its crops are the same on every machine.
    brick = test_split.images[1::10].tobytes()
    assert hashlib.sha256(brick).hexdigest()[:16] == "aebca34d9f0e97f9"


@pytest.mark.parametrize("count", [0, 10**6])
def test_wrong_counts_are_refused(count):
    with pytest.raises(ValueError, match=f"n_test={count}"):
        photos("test", n_test=count)
