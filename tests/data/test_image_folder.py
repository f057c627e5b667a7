"""Class folders and their splits."""

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_folder import image_folder


def greys(data):
    dataset = ImageDataset(data)
    return [int(dataset[i][0][0, 0, 0]) for i in range(len(dataset))]


@pytest.fixture
def both(tmp_path, write_classes):
    write_classes(tmp_path / "both" / "train", ["cat", "ant"], images=3, start=100)
    write_classes(tmp_path / "both" / "test", ["cat", "ant"])
    return tmp_path / "both"


TEST, TRAIN = [10, 11, 0, 1], [110, 111, 112, 100, 101, 102]


def test_classes_and_files_are_sorted(both):
    data = image_folder("test", root=str(both))
    assert (data.classes, data.targets) == (["ant", "cat"], [0, 0, 1, 1])
    assert greys(data) == TEST
    assert greys(image_folder("train", root=str(both))) == TRAIN


def test_val_is_the_test_split_where_there_is_no_test(both, write_classes):
    (both / "test").rename(both / "val")
    assert greys(image_folder("test", root=str(both))) == TEST
    write_classes(both / "test", ["ant", "cat"], start=200)
    assert greys(image_folder("test", root=str(both))) == [200, 201, 210, 211]


def test_plain_class_folders_are_a_test_split_only(both):
    root = str(both / "test")
    assert image_folder("test", root=root).classes == ["ant", "cat"]
    with pytest.raises(ValueError, match=r"no training split: .*weights=PATH"):
        image_folder("train", root=root)


def test_a_class_called_train_is_a_class(tmp_path, write_classes):
    root = write_classes(tmp_path / "x", ["bus", "train"])
    assert image_folder("test", root=str(root)).classes == ["bus", "train"]


def test_the_training_split_may_lie_elsewhere(both):
    test = str(both / "test")
    for elsewhere in (both / "train", both):
        assert greys(image_folder("train", root=test, train_root=str(elsewhere))) == TRAIN
    assert greys(image_folder("test", root=test, train_root=str(both))) == TEST
    (both / "train").rename(both.parent / "train")
    with pytest.raises(ValueError, match=r"dataset\.train_root="):
        image_folder("train", root=test, train_root=str(both))


def test_a_training_folder_alone_has_no_test_split(both):
    (both / "test").rename(both.parent / "test")
    with pytest.raises(ValueError, match="neither test/ nor val/"):
        image_folder("test", root=str(both))


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_of_different_classes_are_refused(both, write_classes, split):
    write_classes(both / "test", ["dog"])
    with pytest.raises(ValueError, match=r"\['dog'\]"):
        image_folder(split, root=str(both))
    other = write_classes(both.parent / "other", ["ant", "bee"])
    with pytest.raises(ValueError, match=r"\['bee', 'cat', 'dog'\]"):
        image_folder("train", root=str(both), train_root=str(other))


def test_suffixes_depth_and_clutter(tmp_path, write_classes):
    root = write_classes(tmp_path / "x", ["ant"], images=1)
    for name in ("A.JPG", "b.jpeg", "c.bmp", "d.webp", "e.ppm", "f.tif", "deep/g.tiff"):
        (root / "ant" / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 50).save(root / "ant" / name)
    for name in ("ant/notes.txt", "ant/._b.jpeg", "ant/.hidden.png", "readme.md", ".DS_Store"):
        (root / name).write_bytes(b"no image")
    (root / ".thumbnails").mkdir()
    data = image_folder("test", root=str(root))
    assert data.classes == ["ant"] and len(greys(data)) == 8


def test_empty_places_are_refused(tmp_path, write_classes):
    with pytest.raises(ValueError, match=tmp_path.name):
        image_folder("test", root=str(tmp_path))
    root = write_classes(tmp_path / "x", ["ant", "bee"])
    (root / "cow").mkdir()
    with pytest.raises(ValueError, match="cow"):
        image_folder("test", root=str(root))


def test_an_unreadable_image_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path / "x", ["ant", "bee"])
    (root / "bee" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bee/1\.png"):
        ImageDataset(image_folder("test", root=str(root))).digest()


@pytest.mark.realdata
def test_cifar_class_folders(real_data, tmp_path):
    root = str(real_data / "cifar10-jpeg-test.tar.xz")
    dataset = ImageDataset(image_folder("test", root=root, cache_dir=str(tmp_path)), n_images=200)
    assert np.bincount(dataset.labels).tolist() == [20] * 10
    batch = dataset.__getitems__(range(200))
    assert batch.images.shape == (200, 3, 32, 32)
    assert 100 < batch.images.float().mean() < 140
