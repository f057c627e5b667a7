"""Files kept between runs, each with its SHA-256 beside it, by which a damaged one is told."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from src.utils.files import atomic_write

log = logging.getLogger(__name__)


@contextmanager
def cache_entry(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file becomes the entry, its SHA-256 beside it.

    The checksum is written first, to `PATH.sha256` in the format of `sha256sum`, so that no entry
    is ever without one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path), atomic_write(path) as temporary:
        yield temporary
        with atomic_write(_checksum(path)) as beside:
            beside.write_text(f"{sha256_of(temporary)}  {path.name}\n")


def is_cached(path: Path) -> bool:
    """Tell whether an entry is there and whole; a damaged one is named and set aside."""
    if not path.exists() or _is_whole(path):
        return path.exists()
    aside = path.with_name(f"{path.name}.damaged")
    with _lock(path):  # another process may be making it anew
        if not path.exists() or _is_whole(path):
            return path.exists()
        os.replace(path, aside)
    log.warning(
        "%s is damaged: it does not have the SHA-256 that it was written with. It is set aside as "
        "%s and made again.",
        *(path, aside.name),
    )
    return False


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(path: Path) -> bool:
    checksum = _checksum(path)
    told = checksum.read_text(errors="replace") if checksum.exists() else ""
    return told.split(" ")[0] == sha256_of(path)


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
