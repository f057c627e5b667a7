"""Command line that lists the jobs of a sweep, and the size of the store of rows."""

import argparse
import re
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from src.config.errors import REFUSED
from src.store.state import JobStatus, job_statuses, newest_sweep


def main() -> None:
    """Run the command line; the exit code is 0 if all jobs are done, else 1, or 2 for a refusal."""
    parser = argparse.ArgumentParser("python -m src.status", description=__doc__)
    parser.add_argument("folder", nargs="?", help="a sweep's; the newest in outputs/")
    parser.add_argument("more", nargs="*", metavar="prune=DAYS", help="remove rows older than that")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), help="of the rows: cache")
    given = parser.parse_args()
    words = [word for word in (given.folder, *given.more) if word is not None]
    ages = [word.removeprefix("prune=") for word in words if word.startswith("prune=")]
    folders = [Path(word) for word in words if not word.startswith("prune=")]
    if len(folders) > 1 or not all(re.fullmatch(r"\d+(\.\d+)?", age) for age in ages):
        parser.error("give one folder at most, and prune=DAYS as a number")
    from src.store.rows import Rows  # here, so that --help answers at once

    console = Console(markup=False, highlight=False)
    rows = Rows(given.cache_dir / "rows")
    for age in ages:
        freed = f"removed {_megabytes(rows.prune(float(age)))} older than {age} days."
        console.print(f"{rows.folder}: {freed}", soft_wrap=True)
    try:
        folder = folders[0] if folders else newest_sweep()
        jobs = job_statuses(folder)
    except ValueError as error:
        if ages and not folders:
            return
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    console.print(listed(jobs))
    console.print(f"{folder}: {summary(jobs)}", soft_wrap=True)
    console.print(f"{rows.folder}: {_megabytes(rows.size())} of rows and images.", soft_wrap=True)
    sys.exit(any(job.state != "done" for job in jobs))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def listed(jobs: list[JobStatus]) -> Table:
    """Return a table with a row for each job."""
    table = Table("job", "state", "time", "folder or error", box=None, pad_edge=False)
    for job in jobs:
        where = job.folder.name if job.folder else ""
        table.add_row(job.name, job.state, _clock(job.seconds), job.error or where)
    return table


def summary(jobs: list[JobStatus]) -> str:
    """Return the number of jobs in each state, and the time that remains."""
    counts = Counter(job.state for job in jobs)
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    done = [job.seconds for job in jobs if job.state == "done"]
    left = len(jobs) - len(done)
    if not done or not left:
        return f"{words}."
    running = sum(job.seconds for job in jobs if job.state == "running")
    rest = max(0, sum(done) / len(done) * left - running)
    return f"{words}; by the time of those, about {_clock(rest)} remain."


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds else ""


if __name__ == "__main__":
    main()
