"""The official CIFAR-10 archive, on a small one in the same layout."""

import functools
import hashlib
import pickle
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from src.data import ImageDataset
from src.data.cifar10 import cifar10

NAMES = [f"class{i}" for i in range(10)]


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_batch(path, count, seed):
    random = np.random.default_rng(seed)
    entry = {
        "data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
        "labels": random.integers(0, 10, count).tolist(),
    }
    path.write_bytes(pickle.dumps(entry))
    return entry


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Write a small archive and make torchvision expect its checksums and download it."""
    source = tmp_path / "source" / CIFAR10.base_folder
    source.mkdir(parents=True)
    batches = {"test_batch": 7} | {f"data_batch_{i}": 4 for i in range(1, 6)}
    entries = {
        name: write_batch(source / name, count, seed)
        for seed, (name, count) in enumerate(batches.items())
    }
    (source / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}))
    packed = tmp_path / "source" / CIFAR10.filename
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(source, arcname=CIFAR10.base_folder)
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, [[name, md5(source / name)] for name in names])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(source / "batches.meta")})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(packed))
    return source.parent, entries


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a line on stderr for each."""

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def server(archive, monkeypatch):
    """Serve the small archive on this machine in place of its authors' site."""
    monkeypatch.setenv("no_proxy", "*")
    handler = functools.partial(QuietHandler, directory=str(archive[0]))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(CIFAR10, "url", f"{url}/{CIFAR10.filename}")
        yield url
        server.shutdown()
        thread.join()


def test_splits_are_those_of_the_archive(archive):
    root, entries = archive
    dataset = ImageDataset(cifar10("test", root=str(root)), num_classes=10)
    assert dataset.class_names == tuple(NAMES)
    assert dataset.labels.tolist() == entries["test_batch"]["labels"]
    pixels = entries["test_batch"]["data"].reshape(-1, 3, 32, 32)
    assert np.array_equal(dataset.__getitems__(range(7)).images.numpy(), pixels)
    expected = [label for i in range(1, 6) for label in entries[f"data_batch_{i}"]["labels"]]
    assert cifar10("train", root=str(root)).targets == expected


def test_a_missing_archive_is_downloaded_with_progress(server, tmp_path, capfd):
    root = tmp_path / "new" / "place"
    assert len(cifar10("test", root=str(root))) == 7
    assert "100%" in capfd.readouterr().err
    (root / CIFAR10.filename).unlink()
    assert len(cifar10("train", root=str(root))) == 20


def test_a_failed_or_damaged_download_is_refused(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CIFAR10, "tgz_md5", "0" * 32)
        with pytest.raises(ValueError, match="CIFAR-10"):
            cifar10("test", root=str(tmp_path / "new"))
    monkeypatch.setattr(CIFAR10, "url", f"{server}/nothing-here")
    with pytest.raises(ValueError, match=r"CIFAR-10 .*dataset=photos"):
        cifar10("test", root=str(tmp_path / "other"))


def test_damaged_files_are_refused(archive):
    root, _ = archive
    (root / CIFAR10.base_folder / "test_batch").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cifar-10-batches-py"):
        cifar10("test", root=str(root))
