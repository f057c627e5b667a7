"""File locks, which tell a living owner from one that was killed."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.utils.files import writing

_PROBED = 2.0  # seconds; a probe by `is_held` lets go sooner


@contextmanager
def held(lock: Path) -> Iterator[Path]:
    """Hold a lock, whose file goes when the block ends and stays when the process is killed.

    A lock that another process holds is refused.
    """
    inner = FileLock(lock, timeout=_PROBED)
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            inner.acquire()
        except Timeout:
            raise ValueError(
                f"{lock.parent} is in use by another process; wait until it ends."
            ) from None
    try:
        yield lock
    finally:
        lock.unlink(missing_ok=True)
        inner.release()


def is_held(lock: Path) -> bool:
    """Tell whether a process, here or on a machine that shares the files, holds a lock."""
    try:
        with lock.open("rb+") as file:  # not by FileLock, which makes the file anew
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # or it cannot be told
        return True
    return False
