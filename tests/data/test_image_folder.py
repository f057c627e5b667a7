"""Class folders in a directory or a tar."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_folder import image_folder


def write_classes(folder, classes, images=2, start=0):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(images):
            grey = np.full((4, 4, 3), start + 10 * number + i, dtype=np.uint8)
            Image.fromarray(grey).save(folder / name / f"{i}.png")
    return folder


def as_tar(folder, path, arcname="", mode="w"):
    with tarfile.open(path, mode) as archive:
        archive.add(folder, arcname=arcname or ".")
    return path


def greys(records):
    return [int(records.read(i)[0, 0, 0]) for i in range(len(records))]


@pytest.fixture
def both(tmp_path):
    root = tmp_path / "both"
    write_classes(root / "train", ["cat", "ant"], images=3, start=100)
    write_classes(root / "test", ["cat", "ant"])
    return root


def test_classes_and_files_are_sorted(both):
    records = image_folder("test", root=str(both))
    assert records.class_names == ("ant", "cat")
    assert records.labels.tolist() == [0, 0, 1, 1]
    assert greys(records) == [10, 11, 0, 1]
    assert greys(image_folder("train", root=str(both))) == [110, 111, 112, 100, 101, 102]


def test_validation_folder_is_the_test_split(both):
    (both / "test").rename(both / "val")
    assert greys(image_folder("test", root=str(both))) == [10, 11, 0, 1]


def test_test_folder_goes_before_val(both):
    write_classes(both / "val", ["ant", "cat"], start=200)
    assert greys(image_folder("test", root=str(both))) == [10, 11, 0, 1]


@pytest.mark.parametrize("top", ["", "name", "name/inner"])
@pytest.mark.parametrize("suffix", ["tar", "tar.xz"])
def test_tar_gives_the_same_data_set(both, tmp_path, top, suffix):
    mode = "w" if suffix == "tar" else "w:xz"
    path = as_tar(both, tmp_path / f"x.{suffix}", top, mode)
    for split in ("train", "test"):
        packed = image_folder(split, root=str(path), cache_dir=str(tmp_path / "cache"))
        plain = image_folder(split, root=str(both))
        assert packed.class_names == plain.class_names
        assert ImageDataset(packed).digest() == ImageDataset(plain).digest()
        assert greys(packed) == greys(plain)


def test_plain_class_folders_are_a_test_split_only(both):
    root = str(both / "test")
    assert image_folder("test", root=root).class_names == ("ant", "cat")
    with pytest.raises(ValueError, match=r"no training split: give model.NAME.weights=PATH"):
        image_folder("train", root=root)


def test_class_called_train_is_a_class(tmp_path):
    root = write_classes(tmp_path / "x", ["bus", "train"])
    assert image_folder("test", root=str(root)).class_names == ("bus", "train")


def test_training_split_elsewhere(both, tmp_path):
    test_tar = as_tar(both / "test", tmp_path / "test.tar", "test")
    train_tar = as_tar(both / "train", tmp_path / "train.tar", "train")
    expected = greys(image_folder("train", root=str(both)))
    for train_root in (train_tar, both / "train", both):
        records = image_folder("train", root=str(test_tar), train_root=str(train_root))
        assert greys(records) == expected
    assert len(image_folder("test", root=str(test_tar), train_root=str(train_tar))) == 4
    with pytest.raises(ValueError, match=r"train_root=.*test.tar holds test/ or val/ but no train"):
        image_folder("train", root=str(both), train_root=str(test_tar))


def test_training_folder_alone_has_no_test_split(both, tmp_path):
    path = as_tar(both / "train", tmp_path / "train.tar", "train")
    with pytest.raises(ValueError, match="holds train/ but neither test/ nor val/"):
        image_folder("test", root=str(path))


@pytest.mark.parametrize("split", ["train", "test"])
def test_different_classes_are_refused(both, split):
    write_classes(both / "test", ["dog"])
    with pytest.raises(ValueError, match=r"only in training none, only in test \['dog'\]"):
        image_folder(split, root=str(both))


def test_different_classes_elsewhere_are_refused(both, tmp_path):
    other = write_classes(tmp_path / "other", ["ant", "bee"])
    with pytest.raises(ValueError, match=r"training \['bee'\], only in test \['cat'\]"):
        image_folder("train", root=str(both), train_root=str(other))


def test_suffixes_depth_and_clutter(tmp_path):
    root = write_classes(tmp_path / "x", ["ant"], images=1)
    image = Image.new("L", (4, 4), 50)
    for name in ("A.JPG", "b.jpeg", "c.bmp", "d.webp", "e.ppm", "f.tif", "deep/g.tiff"):
        (root / "ant" / name).parent.mkdir(exist_ok=True)
        image.save(root / "ant" / name)
    for name in ("ant/notes.txt", "ant/._b.jpeg", "ant/.hidden.png", "readme.md", ".DS_Store"):
        (root / name).write_bytes(b"no image")
    (root / ".thumbnails").mkdir()
    records = image_folder("test", root=str(root))
    assert len(records) == 8
    assert records.class_names == ("ant",)
    assert all(records.read(i).shape == (4, 4, 3) for i in range(8))


def test_unreadable_image_is_named_when_read(tmp_path):
    root = write_classes(tmp_path / "x", ["ant", "bee"])
    (root / "bee" / "1.png").write_bytes(b"no image")
    records = image_folder("test", root=str(root))
    records.read(2)
    with pytest.raises(ValueError, match=r"bee/1.png cannot be read as an image"):
        records.read(3)


def test_empty_class_is_refused(tmp_path):
    root = write_classes(tmp_path / "x", ["ant", "bee"])
    (root / "cow").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*x/cow holds no images"):
        image_folder("test", root=str(root))
    with pytest.raises(ValueError, match=r"class folder .*cow holds no images"):
        image_folder("test", root=str(as_tar(root, tmp_path / "x.tar")))


def test_no_class_folders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no class folders"):
        image_folder("test", root=str(tmp_path))


@pytest.mark.parametrize(
    ("split", "root", "message"),
    [
        ("test", None, "dataset.root is not set"),
        ("test", "/no/such/folder", "dataset.root=/no/such/folder does not exist"),
        ("val", "/tmp", "split='val' is not one of train, test"),
    ],
)
def test_wrong_arguments_are_refused(split, root, message):
    with pytest.raises(ValueError, match=message):
        image_folder(split, root=root)


@pytest.mark.realdata
def test_cifar_class_folders(real_data, tmp_path):
    root = str(real_data / "cifar10-jpeg-test.tar.xz")
    dataset = ImageDataset(image_folder("test", root=root, cache_dir=str(tmp_path)), n_images=200)
    assert dataset.num_classes == 10
    assert np.bincount(dataset.labels).tolist() == [20] * 10
    batch = dataset.__getitems__(range(200))
    assert batch.images.shape == (200, 3, 32, 32)
    assert 100 < batch.images.float().mean() < 140
