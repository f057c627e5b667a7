"""How far a job is, told by what lies in its folder."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.experiment.provenance import PREDICTIONS
from src.utils.files import write_text, writing

_FAILURE = "error.txt"
_RUNNING = ".running"  # a lock that a killed process leaves behind, released


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold a job's folder while it runs; an earlier word of a failure is removed.

    Raises:
        ValueError: Another process runs a job there, or the folder cannot be written.
    """
    lock = FileLock(folder / _RUNNING, timeout=0)
    try:
        with writing(folder):
            lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: another process runs this job.") from None
    try:
        (folder / _FAILURE).unlink(missing_ok=True)
        yield
    finally:
        (folder / _RUNNING).unlink(missing_ok=True)
        lock.release()


def is_running(folder: Path) -> bool:
    """Tell whether a process, here or on a machine that shares the files, runs the job."""
    if not (folder / _RUNNING).exists():
        return False
    try:
        with FileLock(folder / _RUNNING, timeout=0):
            return False
    except Timeout:
        return True


def fail(folder: Path, sentence: str) -> None:
    """Leave word of why the job failed, with the traceback of the error that is handled.

    Raises:
        WriteError: It cannot be written.
    """
    write_text(folder / _FAILURE, f"{sentence}\n\n{traceback.format_exc()}")


def failure_of(folder: Path) -> str | None:
    """Return why a job has no results; None if it has left its predictions."""
    finished = (folder / f"{PREDICTIONS}.parquet").exists()
    return noted_failure(folder) or (None if finished else "it left no note")


def noted_failure(folder: Path) -> str | None:
    """Return why the last job in a folder has not ended well, as far as it left a sign."""
    note = folder / _FAILURE
    if note.exists():
        return note.read_text().split("\n\n")[0]
    if (folder / _RUNNING).exists():
        return "another process runs it" if is_running(folder) else "it was killed"
    return None
