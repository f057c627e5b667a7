"""CIFAR-10 images inside the package."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from src.data.cifar10_mini import ARCHIVE, CLASSES, SIZES, cifar10_mini


@pytest.mark.slow
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
        fewer = cifar10_mini(split, n_train=25, n_test=25)
        assert np.array_equal(fewer.images, data.images[:25]) and fewer.classes == CLASSES
    assert not names


@pytest.mark.parametrize("count", [1001, 0, 1e3, "many"])
def test_a_wrong_count_is_refused(count):
    with pytest.raises(ValueError, match=f"dataset.n_test={count}: .* from 1 to 1000"):
        cifar10_mini("test", n_test=count)
