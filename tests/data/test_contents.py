"""Files of images: a digest is kept until one of them changes."""

import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset, LabelledImages

COUNT = 6


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A function that does a start's reading; it returns the digest and the number of decodings."""
    grey = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(grey):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.bmp")
    real, decoded = Image.open, []
    monkeypatch.setattr(
        Image, "open", lambda *args, **words: decoded.append(1) or real(*args, **words)
    )

    def start(folder="images", kept="cache", **options):
        decoded.clear()
        data = LabelledImages(sorted((tmp_path / folder).iterdir()), np.arange(COUNT) % 2)
        options = {"image_size": 8, "kept": kept and tmp_path / kept} | options
        return ImageDataset(data, **options).digest(), len(decoded)

    return start


def test_a_second_start_decodes_nothing(begin, tmp_path):
    digest, decoded = begin()
    assert decoded == COUNT and begin() == (digest, 0)
    assert begin(n_images=4)[0] != digest != begin(image_size=6)[0]
    shutil.copytree(tmp_path / "images", tmp_path / "renamed")
    assert begin("renamed") == begin(kept=None) == (digest, COUNT)
    assert begin("renamed") == (digest, 0)


def test_an_edited_file_is_read_again_whatever_its_size_and_time_of_change(begin, tmp_path):
    digest, _ = begin()
    file = tmp_path / "images" / "3.bmp"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    time.sleep(0.05)  # a clock's tick
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    edited, decoded = begin()
    assert edited != digest and decoded == COUNT


def test_a_bad_image_is_named_at_every_start(begin, tmp_path):
    file = tmp_path / "images" / f"{COUNT - 1}.bmp"
    file.write_bytes(file.read_bytes()[:60])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"image 5 \(.*5\.bmp\) cannot be read as an image: "):
            begin()
    Image.new("RGB", (8, 9)).save(file)
    assert begin()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"image 5 has 9 x 8 pixels .*, not 8 x 8"):
            begin(image_size=None)
