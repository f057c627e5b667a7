"""Files in a folder or in a tar, read at random, and the images among them."""

import bz2
import gzip
import hashlib
import io
import logging
import lzma
import os
import posixpath
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from src.utils.cache import cache_entry, is_cached
from src.utils.files import WriteError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
Decompressor = Callable[[Path], gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File]
DECOMPRESSORS: dict[str, Decompressor] = {
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.xz": lzma.LZMAFile,
    ".txz": lzma.LZMAFile,
    ".tar.bz2": bz2.BZ2File,
    ".tbz2": bz2.BZ2File,
}
# What Pillow raises for files that are damaged, no image, or absurdly large.
UNREADABLE = (
    OSError,
    SyntaxError,
    EOFError,
    struct.error,
    ValueError,
    Image.DecompressionBombError,
)
logger = logging.getLogger(__name__)


def is_image(name: str) -> bool:
    """Tell by its suffix, in any case, whether a file is an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(path: str) -> bool:
    """Tell whether a path has a part that operating systems hide or add (`.x`, `__MACOSX`)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


class Folder:
    """The files below a folder; paths are relative to it, with forward slashes."""

    def __init__(self, root: Path) -> None:
        """Remember the folder; nothing is read yet."""
        self.root = root

    def folders(self, inside: str = "") -> list[str]:
        """Return the names of the folders directly in `inside`, sorted."""
        with os.scandir(self.root / inside) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name))

    def files(self, inside: str = "") -> list[str]:
        """Return the paths of all files in `inside`, at any depth, sorted."""
        found: list[str] = []
        for place, folders, names in os.walk(self.root / inside, followlinks=True):
            folders[:] = [name for name in folders if not is_hidden(name)]
            relative = Path(place).relative_to(self.root).as_posix()
            found += [posixpath.join(relative, name) for name in names if not is_hidden(name)]
        return sorted(posixpath.normpath(name) for name in found)

    def content(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / name).read_bytes()


class Tar:
    """The files in an uncompressed tar, indexed once and then read at random.

    Reading leaves no trace in the object but a file descriptor, which each process opens for
    itself, so the object can be pickled and used by several workers.

    Raises:
        ValueError: if the file is not a readable tar.
    """

    def __init__(self, root: Path) -> None:
        """Index the tar."""
        self.root = root
        self._descriptor: int | None = None
        self._places: dict[str, tuple[int, int]] = {}
        folders: set[str] = set()
        try:
            with tarfile.open(root, "r:") as archive:
                for member in archive:
                    self._index(member, folders)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{root} is not a readable tar file: {error}") from error
        self._folders = with_parents(folders | {posixpath.dirname(n) for n in self._places})

    def _index(self, member: tarfile.TarInfo, folders: set[str]) -> None:
        name = posixpath.normpath(member.name).lstrip("/")
        if is_hidden(name):
            return
        if member.isdir():
            folders.add(name)
        elif member.islnk():
            target = posixpath.normpath(member.linkname).lstrip("/")
            if target in self._places:
                self._places[name] = self._places[target]
        elif member.isreg() and not member.issparse():
            self._places[name] = (member.offset_data, member.size)

    def folders(self, inside: str = "") -> list[str]:
        """Return the names of the folders directly in `inside`, sorted."""
        return sorted(
            posixpath.basename(name) for name in self._folders if posixpath.dirname(name) == inside
        )

    def files(self, inside: str = "") -> list[str]:
        """Return the paths of all files in `inside`, at any depth, sorted."""
        start = f"{inside}/" if inside else ""
        return sorted(name for name in self._places if name.startswith(start))

    def content(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ValueError: if the tar has been cut short.
            FileNotFoundError: if it holds no such file.
        """
        if name not in self._places:
            raise FileNotFoundError(f"{self.root} holds no file {name}")
        offset, size = self._places[name]
        if self._descriptor is None:
            self._descriptor = os.open(self.root, os.O_RDONLY)
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise ValueError(f"{self.root} ends within {name}: the tar has been cut short")
        return content

    def __getstate__(self) -> dict[str, Any]:
        """Leave the file descriptor out of the pickle: it means nothing in another process."""
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        """Close the file."""
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


def with_parents(folders: Iterable[str]) -> set[str]:
    """Return the folders and all folders that they lie in, without the top one."""
    found: set[str] = set()
    for folder in folders:
        while folder not in ("", ".") and folder not in found:
            found.add(folder)
            folder = posixpath.dirname(folder)
    return found


def open_files(root: str | Path | None, key: str, cache_dir: str | Path | None) -> Folder | Tar:
    """Open a folder, a tar or a compressed tar.

    Compressed tars cannot be read at random: they are decompressed once, into `cache_dir`.

    Args:
        root: path of the folder or tar.
        key: the configuration key that holds `root`, for messages.
        cache_dir: folder for decompressed tars.

    Raises:
        ValueError: if there is no such folder or tar, or it cannot be read.
    """
    if root is None or str(root) == "":
        raise ValueError(f"{key} is not set: give a folder or a tar file")
    path = Path(root).expanduser()
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise ValueError(f"{key}={root} does not exist (seen from {Path.cwd()})")
    if path.name.lower().endswith(".tar"):
        return Tar(path)
    for suffix, opener in DECOMPRESSORS.items():
        if path.name.lower().endswith(suffix):
            return Tar(decompressed(path, opener, cache_dir, suffix))
    allowed = ", ".join((".tar", *DECOMPRESSORS))
    raise ValueError(f"{key}={root} is neither a folder nor a file that ends in {allowed}")


def decompressed(
    path: Path, opener: Decompressor, cache_dir: str | Path | None, suffix: str
) -> Path:
    """Decompress a tar into `cache_dir`, unless that has been done, and return where it lies.

    The copy is known by path, size and time of change of the original; it is written under a
    lock and moved into place when complete, so several processes may ask at once.

    Raises:
        ValueError: if `cache_dir` is None or the file cannot be decompressed.
    """
    if cache_dir is None:
        raise ValueError(f"{path} is compressed: set cache_dir to a folder for the unpacked tar")
    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = Path(cache_dir).expanduser() / "tars"
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f"{path.name[: -len(suffix)]}-{key}.tar"
    with FileLock(f"{result}.lock"):
        if is_cached(result):
            return result
        logger.info("decompressing %s once to %s", path, result)
        try:
            with (
                opener(path) as packed,
                cache_entry(result) as temporary,
                temporary.open("wb") as unpacked,
            ):
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        except (lzma.LZMAError, zlib.error, OSError, EOFError, WriteError) as error:
            cause = error.__cause__ or error  # the entry takes a read error for its own
            raise ValueError(f"{path} cannot be decompressed to {folder}: {cause}") from error
    return result


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images of a folder or tar by position: small, picklable, decoded when read.

    Attributes:
        files: where they are stored.
        names: the path of each image in there.
    """

    files: Folder | Tar
    names: tuple[str, ...]

    def name(self, position: int) -> str:
        """Return the path of an image, for messages."""
        return str(self.files.root / self.names[position])

    def content(self, position: int) -> bytes:
        """Return the stored bytes of an image."""
        return self.files.content(self.names[position])

    def read(self, position: int) -> np.ndarray:
        """Return an image as uint8 (H, W, 3) RGB.

        Raises:
            ValueError: if it cannot be decoded.
        """
        return decode(self.content(position), self.name(position))


def decode(content: bytes, name: str) -> np.ndarray:
    """Decode an image file to uint8 (H, W, 3) RGB.

    Grey images are repeated in all channels, 16-bit greys scaled to 8 bits; an alpha channel is
    dropped, and rotation flags of cameras are not applied.

    Raises:
        ValueError: if the bytes are not an image with such pixels; it gives `name`.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith("I"):
                return grey_to_rgb(np.asarray(image))
            if image.mode == "F":
                raise ValueError("floating-point pixels have no fixed range")
            # A palette with transparency goes by way of RGBA, or Pillow warns.
            through = image.convert("RGBA") if image.mode == "P" else image
            return np.array(through.convert("RGB"))
    except UNREADABLE as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """Scale 16-bit greys, (H, W) of 0..65535, to uint8 (H, W, 3).

    Raises:
        ValueError: if there are other values.
    """
    wide = grey.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError("its grey levels do not fit 16 bits")
    return np.repeat(np.rint(wide / 257).astype(np.uint8)[:, :, None], 3, axis=2)
