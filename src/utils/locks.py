"""File locks that distinguish a running owner from a killed one."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.utils.files import writing

_PROBED = 2.0  # seconds; a probe by `is_held` is shorter


@contextmanager
def held(lock: Path) -> Iterator[Path]:
    """Hold a lock; its file is removed when the block ends, but remains if the process is killed.

    Raises:
        ValueError: Another process holds the lock.
    """
    inner = FileLock(lock, timeout=_PROBED)
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            inner.acquire()
        except Timeout:
            raise ValueError(
                f"{lock.parent} is in use by another process. Wait until it ends."
            ) from None
    try:
        yield lock
    finally:
        lock.unlink(missing_ok=True)
        inner.release()


def is_held(lock: Path) -> bool:
    """Return True if a process, on this or another machine with the same files, holds a lock."""
    try:
        with lock.open("rb+") as file:  # not FileLock, which would create the file
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held, or unknown
        return True
    return False
