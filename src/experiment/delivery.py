"""Delivery of sweeps from their folders to a tracking store, at once or later, each job once."""

from collections.abc import Collection, Sequence
from pathlib import Path

from src.analysis import explained
from src.analysis.summary import JobSummary, Summary, summarise
from src.config.settings import Settings, TrackingSettings, job_name
from src.experiment.metrics import named, sweep_points, track_pairs
from src.experiment.outputs import METRICS, SUMMARY, files_of_job, files_of_sweep
from src.store.jobs import find_jobs
from src.store.keys import content_key
from src.store.record import JobRecord
from src.store.state import Plan, job_statuses, lock_of, lock_of_sweep, read_plan
from src.store.tables import read_metrics
from src.tracking import Run, Tracker, open_tracker
from src.utils.locks import held


def start_sweep(folder: Path, plan: Plan, tracker: Tracker) -> str | None:
    """Open a sweep's run and return its id; None where nothing is tracked."""
    parameters = {
        "command": plan.command,
        "jobs": len(plan.jobs),
        "folder": str(folder.absolute()),
        **plan.parameters,
    }
    return tracker.start_sweep(folder.name, plan.id, parameters, lock_of_sweep(folder))


def end_sweep(folder: Path, sweep: str, status: str, tracker: Tracker, done: Summary) -> None:
    """Close a sweep's run with the curves of its finished jobs and its folder's files."""
    text = folder / SUMMARY
    note = text.read_text(encoding="utf-8") if text.exists() else ""
    tracker.end_sweep(sweep, status, files_of_sweep(folder), note, sweep_points(done))


def sweep_parameters(jobs: Sequence[Settings]) -> dict[str, str]:
    """Return the parameters of a sweep's run, as far as they are known before the jobs run."""
    crafted = [job for job in jobs if job.attack.kind == "crafted"]  # a saved set knows its own
    values: dict[str, list[str]] = {
        "dataset": [job.dataset.name for job in jobs],
        "sources": [job.source_name for job in jobs],
        "targets": [name for job in jobs for name in job.targets],
        "attacks": [job.attack.label for job in jobs],
        "budgets_255": [f"{budget:g}" for job in crafted for budget in job.budgets],
        "protocol": [job.protocol or "" for job in jobs],
        "n_images": [str(job.dataset.n_images or "all") for job in jobs],
        "seed": [str(job.seed) for job in jobs],
    }
    known = {name: list(filter(None, dict.fromkeys(each))) for name, each in values.items()}
    return {name: ", ".join(each) for name, each in known.items() if each}


def job_parameters(
    source: str, label: str, targets: Sequence[str], budgets: Sequence[float], seed: int
) -> dict[str, str | int]:
    """Return the parameters of a job's run; budgets are in units of 1/255, without 0."""
    return {
        "source": source,
        "attack": label,
        "targets": ", ".join(targets),
        "budgets_255": ", ".join(f"{budget:g}" for budget in budgets),
        "seed": seed,
    }


def track_job(summary: JobSummary, tracker: Tracker, run: Run, known: Collection[str] = ()) -> None:
    """Log a finished job: its pairs, its own metrics, its files.

    The store has the pairs of the `known` targets.
    """
    if tracker.store is None:
        return
    record, folder = summary.job.record, summary.job.folder
    tags = {"delivery": _delivery(record)}
    metrics: dict[str, float] = {}
    if record.attack:
        missing = [name for name in record.targets if name not in known]
        track_pairs(summary, missing, tags["delivery"], tracker, run)
        for alarm in summary.alarms:  # as much of one name as a tag may hold
            name = f"alarm.{alarm.name}"
            tags[name] = "\n".join(filter(None, [tags.get(name), explained(alarm)]))[:7900]
        tags["crafting"] = record.crafting
        tags["mlflow.runName"] = named(job_name(record.label, record.source), record)
        metrics = {**summary.cost, **read_metrics(folder / METRICS)}
    tracker.log_job(run, metrics, tags)
    tracker.log_files(run, files_of_job(folder))


def deliver(folder: Path, settings: TrackingSettings) -> int:
    """Deliver a sweep and its finished jobs to a store, and return how many jobs it lacked.

    Refuse a sweep that still runs, and a store that cannot be used or goes away.
    """
    plan = read_plan(folder)
    open_tracker.cache_clear()
    tracker = open_tracker(settings, plan.dataset)  # of the sweep; jobs may be on other data
    with held(lock_of_sweep(folder)):
        tracker.close_orphans()
        jobs = job_statuses(folder)
        sweep = tracker.sweep_of(plan.id) or start_sweep(folder, plan, tracker) or ""
        done = [job.folder for job in jobs if job.folder is not None and job.state == "done"]
        count, trackers = 0, [tracker]
        summary = summarise(find_jobs(done, none_is_fine=True, below=False))
        for one in summary.jobs:
            record = one.job.record
            own = open_tracker(settings, record.dataset)
            trackers.append(own)
            if own.has_job(_delivery(record)):
                continue
            count += 1
            name = job_name(record.label, record.source)
            parameters = job_parameters(
                record.source, record.label, record.targets, record.budgets[1:], record.seed
            )
            with own.job(name, sweep, parameters, lock_of(one.job.folder)) as run:
                track_job(one, own, run, own.pairs_of(_delivery(record)))
        states = {job.state for job in jobs}
        never_begun = {"missing", "waiting"} & states
        ended = "KILLED" if never_begun else "FAILED" if "failed" in states else "FINISHED"
        end_sweep(folder, sweep, ended, tracker, summary)
    if any(each.store is None for each in trackers):
        raise ValueError(f"{folder} is not delivered; the same command goes on with it.")
    return count


def _delivery(record: JobRecord) -> str:
    """Return a key that tells a job's run from all others, in any store."""
    return content_key(record.key, record.created, record.protocol, record.reference)
