"""Files kept between runs, each with its SHA-256 beside it, which shows damage."""

import hashlib
import logging
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
    with FileLock(path.with_name(f".{path.name}.lock")), atomic_write(path) as temporary:
        yield temporary
        with atomic_write(_checksum(path)) as beside:
            beside.write_text(f"{sha256_of(temporary)}  {path.name}\n")


def is_cached(path: Path) -> bool:
    """Tell whether an entry is there and whole; a damaged one is logged."""
    if not path.exists():
        return False
    beside = _checksum(path)
    stated = beside.read_text(errors="replace").split(" ")[0] if beside.exists() else ""
    if stated == sha256_of(path):
        return True
    log.warning("%s is damaged (it does not have its SHA-256) and is made again.", path)
    return False


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
