"""Progress of a sweep and its jobs, told by the files in their folders."""

import os
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from src.artifacts.layout import FAILURE, PLAN, PREDICTIONS
from src.utils.files import write_text
from src.utils.locks import held, is_held
from src.utils.refusals import printable

OUTPUTS = Path("outputs")
CONFIG_OF_JOB = Path(".hydra") / "config.yaml"
"""File that Hydra writes into a job's folder before it begins."""


class Plan(BaseModel):
    """Plan of a command: `sweep.json` in its folder.

    Attributes:
        jobs: Names of the jobs, as far as they are known before they run.
        single: True if the one job's files are in the command's folder.
        id: The sweep's id, which is the key `sweep` of each job's config.
        work: Estimated work of each job, trainings left out: in seconds, where they are known.
    """

    jobs: list[str]
    single: bool
    id: str
    work: list[float] = []


class JobStatus(NamedTuple):
    """State of a job: `done`, `failed`, `running`, `waiting` (the sweep goes on) or `missing`.

    Before it has begun there is no folder. The seconds leave out trainings; of a running job they
    are those so far. `work` is that of the plan, 1 where it states none.
    """

    name: str
    folder: Path | None
    state: str
    seconds: float = 0.0
    error: str = ""
    work: float = 1.0


def newest_sweep(*, finished: bool = False) -> Path:
    """Return the newest sweep's folder in `outputs/`; if `finished`, the newest with results."""
    plans = sorted(OUTPUTS.glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for plan in plans:
        if not finished or any(plan.parent.rglob(f"{PREDICTIONS}.parquet")):
            return plan.parent
    raise ValueError(f"there is no sweep in {OUTPUTS}/ yet; give its folder if it is elsewhere.")


def lock_of(folder: Path) -> Path:
    """Return the lock that is held while a job runs in a folder."""
    return folder / ".running"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold the lock of a job's folder while it runs, and remove an earlier note of failure."""
    with held(lock_of(folder)):
        (folder / FAILURE).unlink(missing_ok=True)
        yield


def fail(folder: Path, sentence: str) -> None:
    """Write why the job failed into error.txt, with the traceback of the error being handled."""
    write_text(folder / FAILURE, f"{sentence}\n\n{traceback.format_exc()}")


def failure_of(folder: Path) -> str | None:
    """Return why a job has failed; None if it has left its predictions."""
    finished = (folder / f"{PREDICTIONS}.parquet").exists()
    return noted_failure(folder) or (None if finished else "it did not begin")


def noted_failure(folder: Path) -> str | None:
    """Return why the last job in a folder failed, by its note or its lock; else None."""
    note = folder / FAILURE
    if note.is_file():
        return printable(note.read_text(encoding="utf-8", errors="replace").split("\n\n")[0])
    if lock_of(folder).exists():
        return "another process runs it" if is_held(lock_of(folder)) else "it was killed"
    return None


def lock_of_sweep(folder: Path) -> Path:
    """Return the lock that is held while a command runs the jobs of a sweep's folder."""
    return folder / ".sweep"


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of a command."""
    write_text(folder / PLAN, plan.model_dump_json(indent=1))


def read_plan(folder: Path) -> Plan:
    """Return the plan of the last command in a folder."""
    if not (folder / PLAN).is_file():
        raise ValueError(f"{folder} is not a sweep's folder: it has no {PLAN}.")
    try:
        return Plan.model_validate_json((folder / PLAN).read_bytes())
    except (OSError, ValidationError) as error:
        raise ValueError(f"{folder / PLAN} is damaged.") from error


def job_folders(folder: Path, plan: Plan) -> dict[int, Path]:
    """Return the begun jobs' folders by number, without those an earlier sweep left there."""
    if plan.single:
        return {0: folder}
    folders, sweep = {}, re.compile(rf"^sweep: '?{plan.id}\b", re.MULTILINE)
    for path in folder.iterdir():  # the text is searched: to parse YAML takes far longer
        match, config = re.match(r"(\d+)-", path.name), path / CONFIG_OF_JOB
        if match and config.is_file() and sweep.search(config.read_text(encoding="utf-8")):
            folders[int(match[1])] = path
    return dict(sorted(folders.items()))


def job_statuses(folder: Path) -> list[JobStatus]:
    """Return the states of a sweep's jobs, in their order."""
    plan = read_plan(folder)
    begun = job_folders(folder, plan)
    names = {number: job.name for number, job in begun.items()} | dict(enumerate(plan.jobs))
    names = {number: printable(name) for number, name in names.items()}
    idle = "waiting" if is_held(lock_of_sweep(folder)) else "missing"
    statuses = {
        number: _status(name, begun[number]) if number in begun else JobStatus(name, None, idle)
        for number, name in sorted(names.items())
    }
    work = dict(enumerate(plan.work))
    return [status._replace(work=work.get(number, 1.0)) for number, status in statuses.items()]


def _status(name: str, folder: Path) -> JobStatus:
    if is_held(lock_of(folder)):
        seconds = max(0, time.time() - _started(folder))  # the file server's clock may be ahead
        return JobStatus(name, folder, "running", seconds)
    failure = failure_of(folder)
    if failure is not None:
        return JobStatus(name, folder, "failed", error=failure)
    took = (folder / f"{PREDICTIONS}.parquet").stat().st_mtime - _started(folder)
    return JobStatus(name, folder, "done", took)


def start_clock(folder: Path) -> None:
    """Take this moment for a job's beginning: its models are trained."""
    with suppress(OSError):
        os.utime(folder / CONFIG_OF_JOB)


def _started(folder: Path) -> float:
    return (folder / CONFIG_OF_JOB).stat().st_mtime
