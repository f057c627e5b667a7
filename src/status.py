"""List the jobs of a sweep, their states and the remaining time.

`python -m src.status why JOB` prints why the rows of a finished job are not reused.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from src.artifacts.sweep_state import CONFIG_OF_JOB, JobStatus, job_statuses, newest_sweep
from src.cache.rows import FOLDER, Rows
from src.config.command_line import command_line
from src.config.errors import refuse
from src.config.sections import StoreSettings
from src.utils.refusals import printable
from src.utils.terminal import duration, text_table


def main() -> None:
    """Run the command line; exit with 0 if all jobs are done, else 1, or 2 for refused input."""
    if sys.argv[1:2] == ["why"]:
        _print_differences(sys.argv[2:])
        return
    parser = argparse.ArgumentParser("python -m src.status", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="folder of a sweep; default: the newest"
    )
    folder = parser.parse_args().folder
    try:
        folder = folder or newest_sweep()
        jobs = job_statuses(folder)
    except ValueError as error:
        refuse(str(error))
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(listed(jobs), soft_wrap=False)
    console.print(f"{folder}: {summary(jobs)}")
    if cache := cache_of(jobs):
        console.print(cache)
    sys.exit(any(job.state != "done" for job in jobs))


def _print_differences(arguments: Sequence[str]) -> None:
    """Print what differs between finished jobs and what this program would compute now."""
    parser = argparse.ArgumentParser(
        "python -m src.status why", description="Print why the rows of a job are not reused."
    )
    parser.add_argument("folder", type=Path, help="folder of a job or a sweep")
    parser.add_argument("words", nargs="*", help="overrides of its command that name code")
    parser.add_argument("--config-dir", type=Path, help="folder of its command's config files")
    options = parser.parse_intermixed_args(arguments)
    from src.run.why import compare_jobs  # here: loads torch

    def show() -> None:
        for folder, lines in compare_jobs(options.folder, options.words, options.config_dir):
            print(f"{folder}:", *map(printable, lines), sep="\n  ")

    command_line(show)


def listed(jobs: list[JobStatus]) -> Table:
    """Return a table with one row per job: name, state, time, and its folder or error."""
    columns = ["job", "state", "time", "folder or error"]
    rows = []
    for job in jobs:
        where = job.folder.name if job.folder else ""
        rows.append([job.name, job.state, _clock(job.seconds), job.error or where])
    return text_table(columns, rows, left=columns)


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
    rest = 0.0
    for job in jobs:
        if job.state != "done":
            rest += max(0, pace * job.work - job.seconds)
    return f"{text}; at the pace of the finished jobs, about {duration(max(1, rest))} remain."


def cache_of(jobs: list[JobStatus]) -> str:
    """Return the size and limit of the rows in the jobs' cache; empty if no job has a config."""
    configs = [path for job in jobs if job.folder and (path := job.folder / CONFIG_OF_JOB).exists()]
    if not configs:
        return ""
    config = yaml.load(configs[0].read_bytes(), yaml.CSafeLoader)
    cache = Path(config["cache_dir"])
    rows = sum(Rows(cache).sizes().values())
    limit = StoreSettings.model_validate(config["store"]).total_gb
    text = f"{cache}: {rows / 1e9:.1f} of {limit:g} GB of rows."
    others = [path for path in sorted(cache.glob("rows*")) if path.name != FOLDER]
    size = sum(path.stat().st_size for other in others for path in other.rglob("*.parquet"))
    if others:
        names = ", ".join(map(str, others))
        text += f" {names}: {size / 1e9:.1f} GB from another version, safe to delete."
    return text


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds else ""


if __name__ == "__main__":
    main()
