"""Printed form of a sweep's estimate."""

import math
from collections.abc import Sequence

from rich.console import Console

from ..analysis.multiple_comparisons import LEVEL, detectable
from ..config.settings import Settings
from ..utils.terminal import duration, text_table
from .estimate import Estimate, Training

_SHOWN = 30  # maximum number of jobs in the table
_DISCORDANCE = 0.2  # assumed share of images on which two attacks disagree, as in stored results


def print_estimate(estimate: Estimate, console: Console) -> None:
    """Print the summary that precedes every sweep."""
    jobs = estimate.jobs
    images = max(job.images for job in jobs)
    stated = [job.gradients for job in jobs if job.gradients is not None]
    parts = [f"{len(jobs)} jobs" if len(jobs) > 1 else "1 job"]
    parts.append(f"{images:,} images" if images else "number of images unknown")
    if images > 0 or sum(stated) > 0:
        parts.append(f"{sum(stated):,.0f} gradients" + " per image" * (not images))
    if unknown := len(jobs) - len(stated):
        of = f"{unknown} jobs" if unknown > 1 else "1 job"
        parts[-1] += f" plus those of {of} whose attack states no number"
    if not math.isnan(estimate.tflop):
        parts.append(f"{_rounded(estimate.tflop)} TFLOP")
    if estimate.basis:
        parts.append(f"{sum(job.predictions for job in jobs):,} predictions")
        parts.append(f"{estimate.bytes / 1e6:,.0f} MB")
    if estimate.basis and not math.isnan(estimate.seconds):
        parts.append(f"about {duration(estimate.seconds)} {estimate.basis}")
    if not all(job.refused for job in jobs):
        console.print(f"Plan: {', '.join(parts)}.")
    if estimate.pictures:
        console.print(f"Pictures: {estimate.pictures}. Name others with report.images.")
    if estimate.trainings:
        listed = "; ".join(map(_describe, estimate.trainings.values()))
        console.print(f"Trainings and fits: {listed}.")
    if estimate.untrained:
        names = ", ".join(estimate.untrained)
        console.print(
            f"Trained on first use: {names}. To plan trainings and hours, the images must be there."
        )
    if estimate.files:
        console.print("Files to download or missing:")
        for line in estimate.files:
            console.print(f"  {line}")
    for reason in dict.fromkeys(job.refused for job in jobs if job.refused):
        console.print(f"A job will fail: {reason}")
    if stored_jobs := sum(job.stored == 1 for job in jobs):
        console.print(f"Already stored: all rows of {stored_jobs} job{'s' * (stored_jobs > 1)}.")


def print_plan(estimate: Estimate, jobs: Sequence[Settings], console: Console) -> None:
    """Print the cost of each job, and the smallest difference that its images can detect."""
    counted = any(job.images for job in estimate.jobs)
    gradients = "gradients" if counted else "gradients per image"
    columns = ["job", "images", gradients, "predictions", "TFLOP", "time", "stored"]
    columns = columns if estimate.basis else columns[:3]
    rows = []
    for job in estimate.jobs[:_SHOWN]:
        row = [
            f"{job.images:,}" if counted else "?",
            "?" if job.gradients is None else f"{job.gradients:,.0f}",
            f"{job.predictions:,}",
            "?" if math.isnan(job.cost.tflop) else _rounded(job.cost.tflop),
            "?" if math.isnan(job.cost.seconds) else duration(job.cost.seconds),
            f"{job.stored:.0%}",
        ]
        row = [f"refused: {job.refused}"] if job.refused else row[: len(columns) - 1]
        rows.append([job.name, *row])
    console.print(text_table(columns, rows, left=["job"]), soft_wrap=False)
    if (left := len(estimate.jobs) - _SHOWN) > 0:
        console.print(f"... and {left} more job{'s' * (left > 1)}")
    print_estimate(estimate, console)
    images = max(job.images for job in estimate.jobs)
    attacks, sources = {job.attack.label for job in jobs}, {job.source_name for job in jobs}
    compared, kind = (attacks, "attacks") if len(attacks) > 1 else (sources, "sources")
    if images and len(compared) > 1:
        from scipy.stats import studentized_range  # slow to import

        cutoff = studentized_range.ppf(1 - LEVEL, len(compared), math.inf) / math.sqrt(2)
        difference = detectable(cutoff, _DISCORDANCE, images)
        console.print(
            f"{images:,} images can detect differences of {100 * difference:.1f} points between "
            f"{len(compared)} {kind} that disagree on {_DISCORDANCE:.0%} of the images. "
            "For other differences see images_needed."
        )


def check_hours(estimate: Estimate, hours: float | None) -> None:
    """Refuse a sweep that takes longer than `hours`, and suggest what to leave out."""
    if hours is None or estimate.seconds <= 3600 * hours:
        return
    if math.isnan(estimate.seconds):
        raise ValueError(
            f"plan.max_hours={hours:g}: the plan cannot tell the duration. Set plan.tflops."
        )
    fixed = sum(training.cost.seconds for training in estimate.trainings.values())
    rest = sum(job.cost.seconds for job in estimate.jobs)  # grows with the images
    longest = max(estimate.jobs, key=lambda job: job.cost.seconds)
    text = (
        f"plan.max_hours={hours:g}: the plan takes {duration(estimate.seconds)}. The longest job "
        f"is {longest.name} with {duration(longest.cost.seconds)}."
    )
    if fixed:
        text += f" Trainings take {duration(fixed)}: lower training.n_images or training.epochs."
    share = 1 - (estimate.seconds - 3600 * hours) / rest if rest else 0
    if (images := int(share * max(job.images for job in estimate.jobs))) > 0:
        text += f" n_images={images} fits."
    raise ValueError(text)


def _describe(training: Training) -> str:
    parts = [f"{training.images:,} images", f"{training.epochs} epoch{'s' * (training.epochs > 1)}"]
    if not math.isnan(training.cost.tflop):
        parts.append(f"{_rounded(training.cost.tflop)} TFLOP")
    if not math.isnan(training.cost.seconds):
        parts.append(duration(training.cost.seconds))
    return f"{training.name} ({', '.join(parts)})"


def _rounded(number: float) -> str:
    """Return a number with three digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
