"""CIFAR-10 images inside the package."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from src.data import ImageDataset
from src.data import cifar10_mini as module
from src.data.cifar10_mini import ARCHIVE, CLASSES, SIZES, cifar10_mini


def test_images_are_of_the_classes_that_their_files_lie_in():
    with tarfile.open(ARCHIVE) as archive:
        names = [Path(member.name) for member in archive]
    for split in ("test", "train"):
        data = cifar10_mini(split)
        files, names = names[: len(data)], names[len(data) :]
        assert {file.parts[0] for file in files} == {split}
        assert [file.parts[1] for file in files] == [CLASSES[label] for label in data.targets]
        assert np.bincount(data.targets).tolist() == [SIZES[split] // 10] * 10
        assert data.images.shape == (SIZES[split], 32, 32, 3)
        fewer = ImageDataset(cifar10_mini(split, n_train=25, n_test=25))
        assert len(fewer) == 25 and fewer.class_names == CLASSES
        assert np.array_equal(cifar10_mini(split, n_train=25, n_test=25).images, data.images[:25])
    assert not names


@pytest.mark.parametrize(("split", "count"), [("test", 0), ("test", 1001), ("train", 5001)])
def test_wrong_counts_are_refused(split, count):
    with pytest.raises(ValueError, match=f"n_{split}={count}"):
        cifar10_mini(split, n_train=count, n_test=count)


def test_a_damaged_archive_is_refused(monkeypatch, tmp_path):
    changed = bytearray(ARCHIVE.read_bytes())
    changed[-100] ^= 1
    (tmp_path / "x.tar.xz").write_bytes(changed)
    monkeypatch.setattr(module, "ARCHIVE", tmp_path / "x.tar.xz")
    with pytest.raises(ValueError, match=r"x\.tar\.xz is damaged"):
        cifar10_mini("test")
