"""Files of images: what is known of one is kept until it changes."""

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
    real = Image.open

    def counted(*arguments, **words):
        with (tmp_path / "decoded").open("ab") as file:  # one for all processes
            file.write(b"x")
        return real(*arguments, **words)

    (tmp_path / "decoded").touch()
    monkeypatch.setattr(Image, "open", counted)
    now = time.time_ns

    def start(folder="images", kept="cache/images.json", wait=10, **options):
        before = (tmp_path / "decoded").stat().st_size
        data = LabelledImages(sorted((tmp_path / folder).iterdir()), np.arange(COUNT) % 2)
        with monkeypatch.context() as patch:  # seconds later, since young files are not kept
            patch.setattr(time, "time_ns", lambda: now() + wait * 10**9)
            digest = ImageDataset(data, index=kept and tmp_path / kept, **options).digest()
        return digest, (tmp_path / "decoded").stat().st_size - before

    return start


def test_a_second_start_decodes_nothing(begin, tmp_path):
    digest, decoded = begin()
    assert decoded == COUNT and begin() == (digest, 0)
    part, decoded = begin(n_images=4, image_size=6)
    assert part != digest and decoded == 0
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
    assert edited != digest and decoded == 1


def test_files_that_may_still_change_are_not_kept(begin):
    digest, _ = begin(wait=0)
    assert begin() == (digest, COUNT)


def test_what_was_read_before_a_bad_image_stays_known(begin, tmp_path):
    file = tmp_path / "images" / f"{COUNT - 1}.bmp"
    whole = file.read_bytes()
    file.write_bytes(whole[:60])
    with pytest.raises(ValueError, match=r"image 5 \(.*5\.bmp\) cannot be read as an image: "):
        begin()
    file.write_bytes(whole)
    assert begin()[1] == 1
    Image.new("RGB", (8, 9)).save(file)
    for _ in range(2):  # when its size is read, and when it is known
        with pytest.raises(ValueError, match=r"image 5 has 9 x 8 pixels .*, not 8 x 8"):
            begin()
    assert begin(image_size=8)[1] == 0


def test_a_damaged_index_is_made_again(begin, tmp_path, caplog):
    digest, _ = begin()
    index = tmp_path / "cache" / "images.json"
    content = bytearray(index.read_bytes())
    content[len(content) // 4] ^= 1
    index.write_bytes(content)
    assert begin() == (digest, COUNT) and "images.json is damaged" in caplog.text
    assert begin() == (digest, 0)


def test_of_two_processes_one_reads(begin, tmp_path, at_once):
    at_once(begin, begin)
    assert (tmp_path / "decoded").stat().st_size == COUNT
