"""File locks that distinguish a running owner from a killed one."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import ENOLCK, EOPNOTSUPP
from pathlib import Path

from filelock import FileLock, Timeout

from src.utils.files import temporary_name, writing

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


def check_locks(folders: Mapping[str, Path]) -> None:
    """Refuse folders, given by their keys, whose file system has no locks."""
    without = []
    for key, folder in folders.items():
        place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        probe = place / temporary_name(Path("lock"))
        try:
            FileLock(probe, timeout=0).acquire().lock.release()
        except OSError as error:  # other errors are refused where files are written
            if error.errno in (ENOLCK, EOPNOTSUPP):
                without.append(key)
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
    if without:
        raise ValueError(
            f"{', '.join(without)}: the file system has no locks (No locks available), as some NFS "
            "servers. Set these keys to folders on a local disk."
        )


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
