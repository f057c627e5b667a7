"""Archives: unpacked once into the cache, and nothing outside of it."""

import io
import multiprocessing
import tarfile
import zipfile
from pathlib import Path

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


def write_tar(path, *more, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for entry in (member("test/ant/0.png", content=picture()), *more):
            archive.addfile(*entry)
    return path


def load(path, cache):
    return image_folder("test", root=str(path), cache_dir=str(cache))


@pytest.mark.parametrize("suffix", ["tar", "tgz", "tar.xz", "tar.bz2", "zip"])
@pytest.mark.parametrize("top", ["", "name/inner/"])
def test_an_archive_gives_the_data_set_of_its_folder(tmp_path, write_classes, suffix, top):
    root = write_classes(tmp_path / "x" / "test", ["cat", "ant"])
    write_classes(tmp_path / "x" / "train", ["cat", "ant"], start=100)
    (root / "ant" / "._0.png").write_bytes(b"clutter")
    path = tmp_path / f"x.{suffix}"
    files = [file for file in (tmp_path / "x").rglob("*") if file.is_file()]
    names = [(file, top + file.relative_to(tmp_path / "x").as_posix()) for file in files]
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file, name in [*names, (root / "ant" / "._0.png", "__MACOSX/._0.png")]:
                archive.write(file, name)
    else:
        mode = {"tgz": "w:gz", "xz": "w:xz", "bz2": "w:bz2", "tar": "w"}
        with tarfile.open(path, mode[suffix.rpartition(".")[2]]) as archive:
            for file, name in names:
                archive.add(file, name)
    for split in ("train", "test"):
        packed = image_folder(split, root=str(path), cache_dir=str(tmp_path / "cache"))
        plain = image_folder(split, root=str(tmp_path / "x"))
        assert ImageDataset(packed).digest() == ImageDataset(plain).digest()


def test_an_archive_is_unpacked_once_until_it_changes(tmp_path):
    path, cache = write_tar(tmp_path / "x.tar.gz"), tmp_path / "cache"
    first = Path(load(path, cache).samples[0][0])
    before = first.stat().st_mtime_ns, first.stat().st_ino
    assert load(path, cache).samples[0][0] == str(first)
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == before
    write_tar(path, member("test/bee/0.png", content=picture()))
    assert load(path, cache).classes == ["ant", "bee"]


def test_processes_that_ask_at_once_unpack_once(tmp_path):
    path = write_tar(tmp_path / "x.tar.gz")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=load, args=(path, tmp_path / "cache")) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len([file for file in (tmp_path / "cache").rglob("*") if file.suffix == ".png"]) == 1


HOSTILE = {
    "climbing": member("../../climbed", content=b"x"),
    "link out": member("test/ant/link.png", tarfile.SYMTYPE, "../../../../climbed"),
    "absolute link": member("test/ant/link.png", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link out": member("test/ant/hard.png", tarfile.LNKTYPE, "../../climbed"),
    "device": member("test/ant/null.png", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_is_refused_and_leaves_nothing(tmp_path, kind):
    path = write_tar(tmp_path / "x.tar.gz", HOSTILE[kind])
    refused(path, tmp_path)


def test_absolute_members_stay_inside(tmp_path):
    outside = tmp_path / "outside" / "0.png"
    path = write_tar(tmp_path / "x.tar.gz", member(str(outside), content=picture()))
    load(path, tmp_path / "cache")
    assert not outside.exists()


def test_a_hostile_zip_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../climbed", b"x")
    refused(path, tmp_path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, mode):
    path = write_tar(tmp_path / "x.tar.gz", mode=mode)
    whole = path.read_bytes()
    for content in (whole[: min(len(whole) // 3, 530)], b"this is no archive at all", b""):
        path.write_bytes(content)
        refused(path, tmp_path)


def refused(path, folder):
    with pytest.raises(ValueError, match=path.name) as caught:
        load(path, folder / "cache")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    left = [file for file in (folder / "cache").rglob("*") if file.suffix != ".lock"]
    assert left == [folder / "cache" / "archives"]
    assert not (folder / "climbed").exists()


@pytest.mark.parametrize(
    ("root", "message"),
    [(None, r"dataset\.root"), ("gone", r"dataset\.root=gone"), ("x.tar", "cache_dir")],
)
def test_a_root_that_cannot_be_opened_is_refused(tmp_path, monkeypatch, root, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.tar").touch()
    with pytest.raises(ValueError, match=message):
        image_folder("test", root=root)
