"""Archives: unpacked once into the cache, and nothing outside of it."""

import io
import os
import shutil
import tarfile
import zipfile
from functools import partial

import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_folder import image_folder


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    return stream.getvalue()


def member(name, kind=tarfile.REGTYPE, link="", content=b""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(content)
    return entry, io.BytesIO(content)


def write_tar(path, *more):
    with tarfile.open(path, "w:gz") as archive:
        for entry in (member("test/ant/0.png", content=picture()), *more):
            archive.addfile(*entry)
    return path


def load(path, cache):
    return image_folder("test", root=str(path), cache_dir=str(cache))


@pytest.mark.parametrize(("kind", "top"), [("tar", ""), ("xztar", "name/inner"), ("zip", "name")])
def test_an_archive_gives_the_data_set_of_its_folder(tmp_path, write_classes, kind, top):
    plain = tmp_path / "x" / top
    write_classes(plain / "train", ["cat", "ant"], start=100)
    write_classes(plain / "test", ["cat", "ant"])
    (plain / "__MACOSX").mkdir()
    for clutter in ("test/ant/._0.png", "__MACOSX/._0.png"):
        (plain / clutter).write_bytes(b"clutter")
    path = shutil.make_archive(str(tmp_path / "x"), kind, tmp_path / "x")
    for split in ("train", "test"):
        packed = image_folder(split, root=path, cache_dir=str(tmp_path / "cache"))
        own = image_folder(split, root=str(plain))
        assert ImageDataset(packed).digest() == ImageDataset(own).digest()


def test_an_archive_is_unpacked_once_until_it_changes(tmp_path, at_once):
    path, cache = write_tar(tmp_path / "x.tar.gz"), tmp_path / "cache"
    at_once(*[partial(load, path, cache)] * 2)
    (first,) = cache.rglob("*.png")
    before = first.stat().st_mtime_ns, first.stat().st_ino
    assert load(path, cache).samples[0][0] == str(first)
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == before
    for name in ("bee", "bat"):  # the last of equal size, and of equal time of change
        before = path.stat()
        write_tar(path, member(f"test/{name}/0.png", content=picture()))
        if name == "bat":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert path.stat().st_size == before.st_size
        assert load(path, cache).classes == sorted(["ant", name])


@pytest.mark.parametrize(
    "content",
    [
        member("../../climbed", content=b"x"),
        member("test/ant/link.png", tarfile.SYMTYPE, "../../../../climbed"),
        member("test/ant/hard.png", tarfile.LNKTYPE, "../../climbed"),
        member("test/ant/null.png", tarfile.CHRTYPE),
        b"this is no archive at all",
    ],
    ids=["climbing", "link", "hard link", "device", "damaged"],
)
def test_a_hostile_or_damaged_archive_is_refused_and_leaves_nothing(tmp_path, content):
    path, cache = write_tar(tmp_path / "x.tar.gz"), tmp_path / "cache"
    if isinstance(content, bytes):
        path.write_bytes(path.read_bytes()[:60] + content)
    else:
        write_tar(path, content)
    with pytest.raises(ValueError, match=path.name) as caught:
        load(path, cache)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert [file for file in cache.rglob("*") if file.suffix != ".lock"] == [cache / "archives"]


def test_members_stay_inside(tmp_path):
    outside = tmp_path / "outside" / "0.png"
    load(write_tar(tmp_path / "x.tgz", member(str(outside), content=b"x")), tmp_path / "cache")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in (str(outside), "../../climbed", "test/ant/0.png"):
            archive.writestr(name, picture())
    load(tmp_path / "x.zip", tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x.tgz", "x.zip"]
