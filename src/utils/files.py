"""Atomic writes, so that readers never see a partial file, and locks."""

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import ENOLCK, EOPNOTSUPP
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike

from .package import INSTALLED
from .refusals import first_line, printable

log = logging.getLogger(__name__)

_YOUNG = 2_000_000_000  # nanoseconds
_KEPT = 30 * 86_400  # seconds; older arrays are computed anew
_LOCKED = "cache.dir, hydra.run.dir, hydra.sweep.dir and tracking.directory"


class WriteError(ValueError):
    """Error: a file cannot be written, and why."""


class ReadError(ValueError):
    """Error: a file cannot be read as what it should be; its text begins with the path."""


@contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """Turn any error while a file is read into a ReadError: `path` cannot be read as `what`.

    A library's errors have types that depend on where the damage is.
    """
    try:
        yield
    except ReadError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
        if not isinstance(error, ValueError):  # torch advises to unpickle anything
            reason = reason.partition(". ")[0]
        text = f"{path} cannot be read as {what}: {reason[:400].rstrip('.')}"
        raise ReadError(text) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success and is removed on failure.

    The folder of `path` is created if missing. Raises a WriteError, see `writing`.
    """
    temporary = path.with_name(temporary_name(path))
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> str:
    """Return a new hidden name for a file or folder until it is complete."""
    return f".{path.stem[:100]}.{uuid4().hex}.tmp{path.suffix}"


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes have left in a folder under a `temporary_name`."""
    for path in folder.glob(f".*.{'[0-9a-f]' * 32}.tmp*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with unchanged line endings, atomically; see `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def csv_cell(cell: object) -> object:
    """Return a table's cell for a CSV file: its text ends no row, and no spreadsheet evaluates it.

    An apostrophe stands before a formula.
    """
    if not isinstance(cell, str):
        return cell
    return "'" * cell.startswith(tuple("=+-@\t\r")) + printable(cell).replace("\r", " ")


def csv_of(table: pd.DataFrame) -> str:
    """Return a table as CSV without index and formulas."""
    texts = table.rename(columns=csv_cell).map(csv_cell)
    return str(texts.to_csv(index=False, lineterminator="\n"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write `csv_of` a table, atomically; see `atomic_write`."""
    write_text(path, csv_of(table))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of_files(files: Iterable[Path]) -> list[tuple[str, int, int, int, int]]:
    """Return path, size, times and inode of each file; they change with its content."""
    stats = [(str(file), file.stat()) for file in files]
    return [(f, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for f, stat in stats]


def remembered(name: str, files: Sequence[Path], compute: Callable[[], ArrayLike]) -> np.ndarray:
    """Return an array that files decide; an earlier process may have computed it.

    Files younger than two seconds may change again without a trace, so nothing is remembered.

    Args:
        name: What else decides the array.
        files: The files.
        compute: Function that returns the array.
    """
    facts = facts_of_files(files)
    newest = max((max(fact[-2:]) for fact in facts), default=math.inf)
    if time.time_ns() - newest < _YOUNG:
        return np.asarray(compute())
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(home if os.path.isabs(home) else os.path.expanduser("~/.cache"), INSTALLED)
    place = hashlib.sha256(repr([name, *map(str, files)]).encode()).hexdigest()[:32]
    path, expected = folder / f"{place}.npz", repr(facts)
    with contextlib.suppress(Exception):  # missing or damaged
        if path.is_file():  # opening a named pipe would wait for ever
            with np.load(path) as stored:
                if stored["facts"] == expected:
                    return stored["array"]
    array = np.asarray(compute())
    with contextlib.suppress(WriteError, OSError):
        for other in folder.glob("*.npz"):
            if time.time() - other.stat().st_mtime > _KEPT:
                other.unlink()
        with atomic_write(path) as temporary:
            np.savez(temporary, facts=expected, array=array)
    return array


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError, e.g. a full disk, into a WriteError that names the outermost path."""
    try:
        yield
    except (OSError, WriteError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause  # without number and path
        if getattr(cause, "errno", None) in (ENOLCK, EOPNOTSUPP):
            reason = f"{reason}. This is common on NFS: set {_LOCKED} to folders on a local disk"
        raise WriteError(f"{path} cannot be written: {reason}.") from cause


@contextmanager
def in_turn(lock: Path, work: str) -> Iterator[None]:
    """Hold a lock while this process does some work; log it if another process does it first.

    The lock's file remains, because other processes may wait for it. Raises a WriteError, see
    `writing`.
    """
    inner = FileLock(lock)
    with writing(lock):
        try:
            taken = inner.acquire(timeout=0)
        except Timeout:
            log.info("Waiting for another process to %s.", work)
            taken = inner.acquire()
    with taken:
        yield


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
