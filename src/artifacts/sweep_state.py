"""Manifest of a sweep, and the progress of its jobs, read from the files in their folders."""

import os
import re
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from ..utils.files import held, is_held, reading, remove_temporaries, write_text, writing
from ..utils.refusals import printable
from .layout import FAILURE, MANIFEST, PREDICTIONS, clear_summary
from .record import clear

OUTPUTS = Path("outputs")
CONFIG_OF_JOB = Path(".hydra") / "config.yaml"
"""File that Hydra writes to a job's folder before the job begins."""
_CALL = "transfer"
"""Id of the manifest in the folder of a call from Python; those of sweeps have random ids."""


class SweepManifest(BaseModel):
    """Manifest of a command: `sweep.json` in its folder.

    Attributes:
        jobs: Names of the jobs that are known before they run.
        single: True if there is one job, with its files in the command's folder.
        id: The sweep's id, which is `sweep` in each job's config.
        work: Estimated work per job without trainings, in seconds if known.
    """

    jobs: list[str]
    single: bool
    id: str
    work: list[float] = []


class JobStatus(NamedTuple):
    """State of a job: `done`, `failed`, `running`, `waiting` (the sweep continues) or `missing`.

    A job that has not begun has no folder. The seconds do not include trainings; for a running job
    they are the time so far. `work` is the manifest's estimate, or 1 without one.
    """

    name: str
    folder: Path | None
    state: str
    seconds: float = 0.0
    error: str = ""
    work: float = 1.0


def newest_sweep(*, finished: bool = False) -> Path:
    """Return the newest sweep's folder in `outputs/`; with `finished`, the newest with results."""
    manifests = sorted(
        OUTPUTS.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for manifest in manifests:
        if not finished or any(manifest.parent.rglob(f"{PREDICTIONS}.parquet")):
            return manifest.parent
    raise ValueError(f"there is no sweep in {OUTPUTS}/. If it is elsewhere, name its folder.")


def lock_of(folder: Path) -> Path:
    """Return the lock file that is held while a job runs in a folder."""
    return folder / ".running"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold the lock of a job's folder while it runs, and remove an old error.txt."""
    with held(lock_of(folder)):
        (folder / FAILURE).unlink(missing_ok=True)
        yield


def fail(folder: Path, sentence: str) -> None:
    """Write the reason for a job's failure to error.txt, with the current traceback."""
    write_text(folder / FAILURE, f"{sentence}\n\n{traceback.format_exc()}")


def failure_of(folder: Path) -> str | None:
    """Return why a job has failed; None if it has written its predictions."""
    finished = (folder / f"{PREDICTIONS}.parquet").exists()
    return noted_failure(folder) or (None if finished else "it did not begin")


def noted_failure(folder: Path) -> str | None:
    """Return why the last job in a folder failed, from error.txt or its lock; else None."""
    note = folder / FAILURE
    if note.is_file():
        return printable(note.read_text(encoding="utf-8", errors="replace").split("\n\n")[0])
    if lock_of(folder).exists():
        return "another process runs it" if is_held(lock_of(folder)) else "it was killed"
    return None


def lock_of_sweep(folder: Path) -> Path:
    """Return the lock file that is held while a command runs jobs in a sweep's folder."""
    return folder / ".sweep"


def is_dead(folder: Path) -> bool:
    """Return True if a sweep's folder is on this machine, but no command runs it."""
    return folder.is_dir() and not is_held(lock_of_sweep(folder))


def write_manifest(folder: Path, manifest: SweepManifest) -> None:
    """Write a command's manifest to its folder."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1))


def read_manifest(folder: Path) -> SweepManifest:
    """Return the manifest of the last command in a folder."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is not a sweep's folder: it has no {MANIFEST}.")
    with reading(folder / MANIFEST, "a list of jobs"):
        return SweepManifest.model_validate_json((folder / MANIFEST).read_bytes())


def take_store(folder: Path, jobs: Sequence[str]) -> list[Path]:
    """Prepare one folder per job of a call, after removing the jobs of an earlier call.

    Raises:
        ValueError: The folder holds other files, such as a sweep of the command line.
    """
    if not (folder / MANIFEST).exists():  # as a kill leaves the folder of a first call
        remove_temporaries(folder)
    if folder.exists() and any(folder.iterdir()):
        earlier = read_manifest(folder) if (folder / MANIFEST).exists() else None
        if earlier is None or earlier.id != _CALL:
            raise ValueError(
                f"store={folder} holds files that no call wrote; choose a new or empty folder."
            )
        for job in (folder / Path(name).name for name in earlier.jobs):
            clear(job)
            if job.is_dir() and not any(job.iterdir()):
                job.rmdir()
        clear_summary(folder)
    names = [f"{number}-{job}" for number, job in enumerate(jobs)]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, SweepManifest(jobs=names, single=False, id=_CALL))
    return [folder / name for name in names]


def job_folders(folder: Path, manifest: SweepManifest) -> dict[int, Path]:
    """Return the folders of the jobs that have begun by number, without an earlier sweep's.

    A call's jobs have no file from their beginning: those that are finished count.
    """
    if manifest.single:
        return {0: folder}
    if manifest.id == _CALL:
        paths = enumerate(folder / Path(name).name for name in manifest.jobs)
        return {word: path for word, path in paths if (path / f"{PREDICTIONS}.parquet").exists()}
    folders, sweep = {}, re.compile(rf"^sweep: '?{re.escape(manifest.id)}\b", re.MULTILINE)
    for path in folder.iterdir():  # a text search: parsing YAML is far slower
        match, config = re.match(r"(\d+)-", path.name), path / CONFIG_OF_JOB
        if match and config.is_file() and sweep.search(config.read_text(encoding="utf-8")):
            folders[int(match[1])] = path
    return dict(sorted(folders.items()))


def job_statuses(folder: Path) -> list[JobStatus]:
    """Return the states of a sweep's jobs, in order."""
    manifest = read_manifest(folder)
    begun = job_folders(folder, manifest)
    names = {number: job.name for number, job in begun.items()} | dict(enumerate(manifest.jobs))
    names = {number: printable(name) for number, name in names.items()}
    idle = "waiting" if is_held(lock_of_sweep(folder)) else "missing"
    statuses = {
        number: _status(name, begun[number]) if number in begun else JobStatus(name, None, idle)
        for number, name in sorted(names.items())
    }
    work = dict(enumerate(manifest.work))
    return [status._replace(work=work.get(number, 1.0)) for number, status in statuses.items()]


def unfinished(folders: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return the numbers of unfinished jobs and of all jobs per sweep that has unfinished ones.

    The sweeps are in the folders, at any depth. A sweep counts once, also if several folders lead
    to it.
    """
    sweeps = dict[Path, Path]()
    for manifest in (path for folder in folders for path in sorted(folder.rglob(MANIFEST))):
        sweeps.setdefault(manifest.parent.resolve(), manifest.parent)
    states = {path: [status.state for status in job_statuses(path)] for path in sweeps.values()}
    left = {folder: (len(jobs) - jobs.count("done"), len(jobs)) for folder, jobs in states.items()}
    return {folder: numbers for folder, numbers in left.items() if numbers[0]}


def _status(name: str, folder: Path) -> JobStatus:
    if is_held(lock_of(folder)):
        seconds = max(0, time.time() - _started(folder))  # the file server's clock may be ahead
        return JobStatus(name, folder, "running", seconds)
    failure = failure_of(folder)
    if failure is not None:
        return JobStatus(name, folder, "failed", error=failure)
    ended = (folder / f"{PREDICTIONS}.parquet").stat().st_mtime
    began = _started(folder) if (folder / CONFIG_OF_JOB).exists() else ended
    return JobStatus(name, folder, "done", ended - began)


def start_clock(folder: Path) -> None:
    """Reset the start time of a job to now, after its models are trained."""
    with suppress(OSError):
        os.utime(folder / CONFIG_OF_JOB)


def _started(folder: Path) -> float:
    return (folder / CONFIG_OF_JOB).stat().st_mtime
