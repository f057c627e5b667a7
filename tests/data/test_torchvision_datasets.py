"""Data sets of torchvision by name, in the layout of each one's files."""

import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from src.data import load_dataset

SPLITS = ("train", "test")


def cifar(folder):
    folder.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    fine = folder.name == "cifar-100-python"
    files = SPLITS if fine else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for file in files:
        rows = {"data": pixels, "fine_labels" if fine else "labels": [1, 0]}
        (folder / file).write_bytes(pickle.dumps(rows))
    key, meta = ("fine_label_names", "meta") if fine else ("label_names", "batches.meta")
    (folder / meta).write_bytes(pickle.dumps({key: ["ant", "bee"]}))


def svhn(root):
    pixels = np.arange(32 * 32 * 3 * 2, dtype=np.uint8).reshape(32, 32, 3, 2)
    for split in SPLITS:
        savemat(root / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[9], [10]])})


def stl10(folder):
    folder.mkdir()
    (folder / "class_names.txt").write_text("ant\nbee\n")
    for split in SPLITS:
        np.arange(2 * 3 * 96 * 96, dtype=np.uint8).tofile(folder / f"{split}_X.bin")
        np.array([2, 1], np.uint8).tofile(folder / f"{split}_y.bin")


def flowers(folder):
    (folder / "jpg").mkdir(parents=True)
    for number in (1, 2):
        size = (40, 30 + number)
        Image.new("RGB", size, (number,) * 3).save(folder / "jpg" / f"image_0000{number}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": [[77, 1]]})
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "tstid": [[1, 2]]})


def imagenette(folder):
    for place in ("train/n01440764", "train/n02102040", "val/n01440764", "val/n02102040"):
        (folder / place).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(folder / place / "a.jpeg", format="JPEG")


LAYOUTS = {
    "CIFAR10": (lambda root: cifar(root / "cifar-10-batches-py"), ("bee", "ant")),
    "CIFAR100": (lambda root: cifar(root / "cifar-100-python"), ("bee", "ant")),
    "SVHN": (svhn, ("nine", "zero")),
    "STL10": (lambda root: stl10(root / "stl10_binary"), ("bee", "ant")),
    "Flowers102": (
        lambda root: flowers(root / "flowers-102"),
        ("passion flower", "pink primrose"),
    ),
    "Imagenette": (lambda root: imagenette(root / "imagenette2"), ("tench", "English springer")),
}


def load(split, name, root, download=False, **options):
    source = {
        "_target_": "src.data.library_datasets.torchvision_dataset",
        **{"kind": name, "root": str(root), "download": download},
    }
    return load_dataset(split, source, lock_folder=root / "locks", **options)


@pytest.fixture
def unchecked(monkeypatch):
    """Let torchvision take files with other checksums than the published ones."""
    for module in ("cifar", "svhn", "stl10", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, _: path is not None
        )


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_as_torchvision_keeps_them(name, tmp_path, unchecked):
    write, classes = LAYOUTS[name]
    write(tmp_path)
    large = {"image_size": 16} if name in ("Flowers102", "Imagenette") else {}
    for split in SPLITS:
        images = load(split, name, tmp_path, **large)
        names = [images.class_names[label] for label in images[:].labels]
        assert tuple(names[:2]) == classes
        assert images[:].images.shape[2] == images.image_size
    if large:
        with pytest.raises(ValueError, match=r"set dataset\.image_size"):
            load("test", name, tmp_path)[:]


def test_pixels_and_splits(tmp_path, unchecked):
    svhn(tmp_path)
    wanted = np.arange(32 * 32 * 3 * 2, dtype=np.uint8).reshape(32, 32, 3, 2)
    found = load("test", "SVHN", tmp_path)[:].images.numpy()
    assert np.array_equal(found, wanted.transpose(3, 2, 0, 1))
    imagenette(tmp_path / "imagenette2")
    for place in (tmp_path / "imagenette2" / "val").glob("*/a.jpeg"):
        (place.parent / "b.jpeg").write_bytes(place.read_bytes())
    assert [len(load(split, "Imagenette", tmp_path)) for split in SPLITS] == [2, 4]


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not found or corrupted"):
        load("test", "SVHN", tmp_path)
    with pytest.raises(ValueError, match="Did you mean CIFAR100") as caught:
        load("test", "CIFAR1000", tmp_path, download=True)
    assert "download failed" not in str(caught.value)
