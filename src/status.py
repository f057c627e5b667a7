"""List the jobs of a sweep, their states and the remaining time.

`python -m src.status SIGNATURE SIGNATURE` says in what two signatures differ, and if their numbers
may be in one table. A folder or a card stands for its signature.

exit codes:
  0          all jobs are done, or the numbers may be in one table
  1          some jobs are not done, or the numbers may not
  2 or more  there is no such sweep or signature, or the command failed
"""

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import yaml
from rich.console import Console

from .artifacts.sweep_state import CONFIG_OF_JOB, JobStatus, job_statuses, newest_sweep
from .cache.rows import Rows
from .config.command_line import CommandParser, run_command
from .config.sections import CacheSettings
from .report.grid import Grid
from .report.signature import compare_signatures
from .utils.package import command
from .utils.refusals import printable
from .utils.terminal import duration


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 if all jobs are done, else 1."""
    words = sys.argv[1:] if words is None else words
    parser = CommandParser(command("status"), description=__doc__)
    text = "folder of a sweep; default: the newest. Or a signature, folder or card"
    parser.add_argument("folder", nargs="?", help=text)
    parser.add_argument("other", nargs="?", help="another signature, folder or card to compare")
    return run_command(_print_status, parser.parse_args, words)


def _print_status(folder: str | None, other: str | None) -> int:
    """Print the jobs of a sweep, or in what two signatures differ; return the exit code."""
    if folder and other:
        lines, together = compare_signatures(folder, other)
        print("\n".join(map(printable, lines)))
        return int(not together)
    return _print_jobs(Path(folder or newest_sweep()))


def _print_jobs(folder: Path) -> int:
    """Print the jobs of a sweep; return 0 if all are done, else 1."""
    jobs = job_statuses(folder)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(listed(jobs).terminal(ruled=False), soft_wrap=False)
    console.print(f"{folder}: {summary(jobs)}")
    if cache := cache_of(jobs):
        console.print(cache)
    return int(any(job.state != "done" for job in jobs))


def listed(jobs: list[JobStatus]) -> Grid:
    """Return a table with one row per job: name, state, time, and its folder or error."""
    rows = [
        (job.name, job.state, _clock(job.seconds), job.error or getattr(job.folder, "name", ""))
        for job in jobs
    ]
    return Grid(("job", "state", "time", "folder or error"), rows, left=range(4))


def summary(jobs: list[JobStatus]) -> str:
    """Return the number of jobs per state and an estimate of the remaining time without training.

    The estimate scales the seconds per unit of work of the finished jobs.
    """
    counts = Counter(job.state for job in jobs)
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    done = [job for job in jobs if job.state == "done"]
    work = sum(job.work for job in done)
    if not work or len(done) == len(jobs):
        return f"{text}."
    pace = sum(job.seconds for job in done) / work
    rest = sum(max(0, pace * job.work - job.seconds) for job in jobs if job.state != "done")
    return f"{text}; at the pace of the finished jobs, about {duration(max(1, rest))} remain."


def cache_of(jobs: list[JobStatus]) -> str:
    """Return the size and limit of the rows in the jobs' cache; empty if no job has a config."""
    configs = [path for job in jobs if job.folder and (path := job.folder / CONFIG_OF_JOB).exists()]
    if not configs:
        return ""
    config = yaml.load(configs[0].read_bytes(), yaml.CSafeLoader)
    settings = CacheSettings.model_validate(config["cache"])
    cache = Path(settings.dir)
    rows = sum(Rows(cache).sizes().values())
    return f"{cache}: {rows / 1e9:.1f} of {settings.total_gb:g} GB of rows."


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds else ""


if __name__ == "__main__":
    sys.exit(main())
