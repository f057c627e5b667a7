"""What of a job goes to the tracker: a run a target, the job's own figures and alarms."""

from collections.abc import Mapping

import pandas as pd

from src.analysis import rates, usable_protocols
from src.analysis.areas import curve_areas
from src.evaluation import CONTROLS
from src.job import Job
from src.record import JobRecord
from src.results import Outcome
from src.tracking import Run, Tracker, pair_metrics


def track_results(
    job: Job, record: JobRecord, outcome: Outcome, tracker: Tracker, run: Run
) -> None:
    """Log a run per target, and the job's own figures and alarms."""
    frame = next(iter(outcome.frames.values()))
    by_protocol = {
        protocol: rates(frame, job.source, job.targets, protocol)
        for protocol in usable_protocols(frame, job.source)
    }
    others = {
        form: rates(rows, job.source, job.targets, job.protocol)
        for form, rows in list(outcome.frames.items())[1:]
        if form not in CONTROLS
    }
    areas = _areas(job, frame) if "target_correct" in by_protocol else {}
    for target in job.targets:
        curves, metrics = pair_metrics(
            _of(target, by_protocol),
            job.protocol,
            job.standard,
            controls=_of(target, outcome.excess),
            forms=_of(target, others),
        )
        metrics |= areas.get(target, {})
        metrics["gradients_per_image"] = outcome.figures["gradients_per_image"]
        tracker.log_pair(
            run,
            f"{job.name} -> {target}",
            tags=_tags(job, record, target),
            parameters=_parameters(job, record, target),
            curves=curves,
            metrics=metrics,
        )
    tracker.log_metrics(run, outcome.figures)
    tracker.set_tags(run, {f"alarm.{alarm.name}": alarm.sentence for alarm in outcome.alarms})


def _areas(job: Job, frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return by target the areas under its curves with their intervals, as far as known."""
    rows = curve_areas(frame, job.source, job.targets, job.protocol).set_index("target")
    return {
        str(target): {str(name): value for name, value in row.drop("n").dropna().items()}
        for target, row in rows.iterrows()
    }


def _of(target: str, frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {name: rows[rows["target"] == target] for name, rows in frames.items()}


def _tags(job: Job, record: JobRecord, target: str) -> dict[str, str]:
    return {
        "dataset": job.config.dataset.name,
        "source": job.source,
        "target": target,
        "attack": job.attack.label,
        "target_label": job.attack.aim or "none",
        "seed": str(job.seed),
        "precision": str(job.config.trainer.precision),
        "protocol": job.protocol,
        "storage": job.forms.headline,
        "source_weights": record.weights.get(job.source, "unknown"),
        "target_weights": record.weights[target],
        "data_digest": record.data,
        "job_key": record.key,
        "git_commit": record.commit,
    }


def _parameters(job: Job, record: JobRecord, target: str) -> dict[str, object]:
    return {
        **{f"attack.{key}": value for key, value in job.attack.settings.items()},
        "source": job.source,
        "target": target,
        "dataset": job.config.dataset.name,
        "n_images": record.images,
        "seed": job.seed,
        "standard_eps_255": job.standard,
    }
