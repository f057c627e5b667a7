"""How far a job is, told by what lies in its folder."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.experiment.provenance import PREDICTIONS
from src.utils.files import write_text
from src.utils.locks import held, is_held

_FAILURE = "error.txt"


def lock_of(folder: Path) -> Path:
    """Return the lock that is held while a job runs in a folder."""
    return folder / ".running"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold a job's folder while it runs; an earlier word of a failure is removed.

    Raises:
        ValueError: Another process runs a job there, or the folder cannot be written.
    """
    with held(lock_of(folder)):
        (folder / _FAILURE).unlink(missing_ok=True)
        yield


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
    if lock_of(folder).exists():
        return "another process runs it" if is_held(lock_of(folder)) else "it was killed"
    return None
