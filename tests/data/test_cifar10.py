"""The official CIFAR-10 archive, on a small one in the same layout."""

import hashlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from src.data import ImageDataset
from src.data.cifar10 import cifar10

NAMES = [f"class{i}" for i in range(10)]
COUNTS = {"test_batch": 7} | {f"data_batch_{i}": 4 for i in range(1, 6)}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Write a small archive, and make torchvision expect its checksums and download it."""
    source = tmp_path / "source" / CIFAR10.base_folder
    source.mkdir(parents=True)
    random = np.random.default_rng(0)
    entries = {
        name: {
            "data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": random.integers(0, 10, count).tolist(),
        }
        for name, count in COUNTS.items()
    }
    sums = {}
    for name, entry in {**entries, "batches.meta": {"label_names": NAMES}}.items():
        content = pickle.dumps(entry)
        (source / name).write_bytes(content)
        sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    for attribute in ("train_list", "test_list"):
        files = [[name, sums[name]] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, files)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    with tarfile.open(tmp_path / "source" / CIFAR10.filename, "w:gz") as tar:
        tar.add(source, arcname=CIFAR10.base_folder)
    monkeypatch.setattr(
        "torchvision.datasets.utils.download_url",
        lambda url, root, filename, md5: shutil.copy(source.parent / filename, root),
    )
    return source.parent, entries


def test_splits_are_those_of_the_archive(archive):
    root, entries = archive
    dataset = ImageDataset(cifar10("test", root=str(root)), num_classes=10)
    assert dataset.class_names == tuple(NAMES)
    assert dataset.labels.tolist() == entries["test_batch"]["labels"]
    pixels = entries["test_batch"]["data"].reshape(-1, 3, 32, 32)
    assert np.array_equal(dataset.__getitems__(range(7)).images.numpy(), pixels)
    expected = [label for i in range(1, 6) for label in entries[f"data_batch_{i}"]["labels"]]
    assert cifar10("train", root=str(root)).targets == expected


def test_what_is_missing_or_damaged_is_downloaded(archive, tmp_path):
    root = tmp_path / "new" / "place"
    assert len(cifar10("test", root=str(root))) == 7
    (root / CIFAR10.filename).unlink()
    assert len(cifar10("train", root=str(root))) == 20
    (root / CIFAR10.base_folder / "test_batch").write_bytes(b"damaged")
    assert len(cifar10("test", root=str(root))) == 7


def test_a_damaged_download_is_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": "0" * 32})
    with pytest.raises(ValueError, match=r"CIFAR-10 .*dataset=cifar10_mini"):
        cifar10("test", root=str(tmp_path / "new"))
