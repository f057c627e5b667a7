"""Folders, tars, compressed tars and the decoding of images."""

import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from src.data.files import Folder, Tar, decode, open_files

FILES = {"b/2.txt": b"two", "a/1.txt": b"one", "a/deep/3.txt": b"", "top.txt": b"top"}
HIDDEN = {"._top.txt": b"x", "a/._1.txt": b"x", ".git/x": b"x", "__MACOSX/a/1.txt": b"x"}


def write_folder(folder):
    for name, content in (FILES | HIDDEN).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path, mode="w", prefix="./"):
    with tarfile.open(path, mode) as archive:
        for name, content in (FILES | HIDDEN).items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(prefix + "b/link.txt")
        link.type, link.linkname = tarfile.LNKTYPE, prefix + "a/1.txt"
        archive.addfile(link)
        outside = tarfile.TarInfo(prefix + "b/symbolic.txt")
        outside.type, outside.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(outside)
    return path


def test_folder(tmp_path):
    files = Folder(write_folder(tmp_path))
    assert files.folders() == ["a", "b"]
    assert files.folders("a") == ["deep"]
    assert files.files() == sorted(FILES)
    assert files.files("a") == ["a/1.txt", "a/deep/3.txt"]
    assert files.content("b/2.txt") == b"two"


@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_tar_has_the_same_view_as_a_folder(tmp_path, prefix):
    files = Tar(write_tar(tmp_path / "x.tar", prefix=prefix))
    assert files.folders() == ["a", "b"]
    assert files.folders("a") == ["deep"]
    assert files.files() == sorted([*FILES, "b/link.txt"])
    assert files.files("a") == ["a/1.txt", "a/deep/3.txt"]
    assert {name: files.content(name) for name in FILES} == FILES
    assert files.content("b/link.txt") == b"one"


def test_tar_can_be_pickled_after_use(tmp_path):
    files = Tar(write_tar(tmp_path / "x.tar"))
    files.content("a/1.txt")
    assert pickle.loads(pickle.dumps(files)).content("top.txt") == b"top"


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2"])
def test_compressed_tar_is_decompressed_once(tmp_path, suffix):
    path = write_tar(tmp_path / f"x.tar.{suffix}", f"w:{suffix}")
    cache = tmp_path / "cache"
    files = open_files(path, "dataset.root", cache)
    assert files.content("a/1.txt") == b"one"
    (copy,) = cache.glob("tars/*.tar")
    before = copy.stat().st_mtime_ns
    assert open_files(path, "dataset.root", cache).files() == files.files()
    assert copy.stat().st_mtime_ns == before
    assert not list(cache.glob("tars/*.part"))


def test_changed_compressed_tar_is_decompressed_again(tmp_path):
    path = write_tar(tmp_path / "x.tar.gz", "w:gz")
    open_files(path, "dataset.root", tmp_path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("new.txt"))
    assert open_files(path, "dataset.root", tmp_path).files() == ["new.txt"]


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2"])
def test_damaged_compressed_tar_is_refused_and_leaves_nothing(tmp_path, suffix):
    path = write_tar(tmp_path / f"x.tar.{suffix}", f"w:{suffix}")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"x.tar.{suffix} cannot be decompressed"):
        open_files(path, "dataset.root", tmp_path)
    path.write_bytes(b"this is no archive at all")
    with pytest.raises(ValueError, match=rf"x.tar.{suffix} cannot be decompressed"):
        open_files(path, "dataset.root", tmp_path)
    assert not [*tmp_path.glob("tars/*.tar"), *tmp_path.glob("tars/*.part")]


def test_a_damaged_copy_is_named_and_decompressed_again(tmp_path, caplog):
    path = write_tar(tmp_path / "x.tar.gz", "w:gz")
    files = open_files(path, "dataset.root", tmp_path)
    content = files.root.read_bytes()
    files.root.write_bytes(content[:-600] + b"x" * 600)
    assert open_files(path, "dataset.root", tmp_path).root.read_bytes() == content
    assert f"{files.root} is damaged" in caplog.text


def test_compressed_tar_needs_a_cache(tmp_path):
    path = write_tar(tmp_path / "x.tar.gz", "w:gz")
    with pytest.raises(ValueError, match="cache_dir"):
        open_files(path, "dataset.root", None)


def test_tar_cut_short_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("big.bin")
        member.size = 5000
        archive.addfile(member, io.BytesIO(bytes(5000)))
    files = Tar(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"ends within big.bin"):
        files.content("big.bin")
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(ValueError, match=r"x.tar is not a readable tar"):
        Tar(path)


@pytest.mark.parametrize(
    ("root", "message"),
    [(None, "dataset.root is not set"), ("gone", "dataset.root=gone does not exist")],
)
def test_missing_root_is_refused(root, message):
    with pytest.raises(ValueError, match=message):
        open_files(root, "dataset.root", None)


def test_other_file_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x.zip is neither a folder nor a file that ends in .tar"):
        open_files(tmp_path / "x.zip", "dataset.root", None)


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def test_decode_gives_rgb_for_every_mode():
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    picture = Image.fromarray(rgb)
    alpha = picture.copy()
    alpha.putalpha(7)
    palette = encoded(picture.quantize(4), transparency=b"\x00\x80\xff\xff")
    wide = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    contents = [encoded(Image.fromarray(grey)), encoded(picture), encoded(alpha), palette, wide]
    for content in contents:
        image = decode(content, "x.png")
        assert image.dtype == np.uint8
        assert np.array_equal(image, rgb)


def test_decode_names_the_file_that_is_no_image():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise))
    for content in (b"", b"text", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match=r"folder/x\.png cannot be read as an image"):
            decode(content, "folder/x.png")
