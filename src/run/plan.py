"""Plan of a sweep, from settings and lists of files: no network is run."""

import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ..cache.code_digest import code_of
from ..cache.keys import content_key
from ..cache.rows import Rows
from ..config.sections import ModelSettings, network_settings
from ..config.settings import Settings
from ..data import ImageDataset
from ..models.providers import LOADER, find
from ..report.grid import Grid
from ..utils import stopping
from ..utils.devices import device_of
from ..utils.files import remembered, sha256_of
from ..utils.package import command
from ..utils.refusals import first_line
from ..utils.terminal import duration
from .check_job import build_job, open_job
from .data import DataSets, open_images
from .models import ModelPool, build, fetches, with_ensemble
from .stages import GRADIENT, JobContext, Model, Part, Planned, parts_of, work_of
from .trainer import read_notes

log = logging.getLogger(__name__)

_SHOWN = 30  # maximum number of jobs in the table


@dataclass(frozen=True)
class JobPlan:
    """Work of a job.

    Attributes:
        images: Number of images; 0: unknown, and `gradients` is per image.
        gradients: Number of gradients; None: the attack states none.
        predictions: Number of predictions; None: unknown without the images.
        seconds: Duration by the speed of earlier jobs; NaN: unknown.
        stored: True if a job with equal settings has finished, and its rows are stored.
        refused: Why the job cannot run; empty if it can.
    """

    name: str
    images: int = 0
    gradients: float | None = 0
    predictions: int | None = 0
    seconds: float = math.nan
    stored: bool = False
    refused: str = ""

    @property
    def work(self) -> float:
        """Number of gradients, with three predictions for one; at least 1."""
        return max(1.0, (self.gradients or 0) + (self.predictions or 0) / GRADIENT)


@dataclass
class Plan:
    """Jobs of a sweep, and what they need first.

    Attributes:
        here: True if the jobs run in this process, which can tell hours.
        first: Trainings of which no file is stored.
        fits: Jobs whose attack is fitted.
        files: Missing files, each with the command that fetches it.
    """

    here: bool
    jobs: list[JobPlan] = field(default_factory=list)
    first: dict[str, None] = field(default_factory=dict)
    fits: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    _told: bool = False

    @property
    def seconds(self) -> float:
        """Seconds for all jobs, without trainings and fits; NaN if a speed is unknown."""
        return sum(job.seconds for job in self.jobs)

    @property
    def work(self) -> list[float]:
        """Work per job: seconds if all are known, else gradients."""
        has_times = not any(math.isnan(job.seconds) for job in self.jobs)
        return [job.seconds if has_times else job.work for job in self.jobs]

    def tell_time_left(self, number: int, seconds: float, left: float) -> None:
        """Log the time left for the command, once: after the first batch that is attacked.

        The jobs that follow job `number` have its pace; sources whose speeds are known have theirs.

        Args:
            number: Number of the job.
            seconds: Seconds per gradient in its first batch.
            left: Number of gradients that the job still needs.
        """
        job, work = self.jobs[number], self.work
        if self._told:
            return
        self._told = True
        others = sum(work[number + 1 :]) / work[number] if work[number] else 0.0
        rest = seconds * (left + job.work * others)
        if rest >= 1:
            log.info("Time left for all jobs: about %s", duration(rest))


def make_plan(jobs: Sequence[Planned], pool: ModelPool, here: bool) -> Plan:
    """Plan jobs; hours only for jobs of this process (`here`).

    Without `plan=only`, models of these jobs are built for them, so that those that do not fit are
    refused before the first job. With it, only names and shapes in weight files are checked.
    """
    first, sets = jobs[0].settings.plan, pool.sets
    plan, seen, missing = Plan(here), set[Any](), dict[str, None]()
    for planned in jobs:
        stopping.raise_if_interrupted()
        settings = planned.settings
        try:
            if reason := _why_no_images(settings, sets):
                missing[reason] = None
                plan.jobs.append(_count_gradients(settings))
            else:
                images = open_images(planned, sets)
                if first.only:
                    _check_files(settings, images, seen)
                elif here:
                    opened, job = open_job(planned, sets)
                    pool.build(opened, job.images)
                plan.jobs.append(_plan_job(planned, images, plan, seen))
        except ValueError as error:  # this job will fail with the same error; the others run
            plan.jobs.append(JobPlan(settings.job, seconds=0, refused=first_line(error)))
        plan.first |= dict.fromkeys(_list_trainings(planned))
        plan.fits += [settings.job] * (planned.attack.is_fitted and not plan.jobs[-1].stored)
    models = {name: model for job in jobs for name, model in job.settings.model.items()}
    if not sets.download:
        plan.files = [*filter(None, map(_how_to_fetch, models, models.values()))]
    plan.files += missing
    return plan


def planned_job(planned: Planned, images: ImageDataset) -> JobContext:
    """Return a job whose models stand for those that its settings and weight files describe.

    So its rows have keys before any model is built. The images stand for those of a fit.
    """
    settings, trainer = planned.settings, planned.settings.trainer
    if trainer.batch_size == "auto":
        trainer = trainer.model_copy(update={"batch_size": 1000})
    planned = replace(planned, settings=settings.model_copy(update={"trainer": trainer}))
    models = {
        name: Model(nn.Identity(), digest="", parts={"settings": _model_key(settings, name)})
        for name in settings.models
    }
    device = torch.device(device_of(trainer.accelerator))
    return build_job(planned, images, device, with_ensemble(settings, models), fit_images=images)


def finished_key(job: JobContext) -> str:
    """Return a key of all rows of a `planned_job`."""
    parts = parts_of(job, job.measurements)
    return content_key([(str(part.target), *_place_of(part)) for part in parts])


def _place_of(part: Part) -> tuple[str, ...]:
    """Return what tells a part's rows apart from others."""
    return *part.place, sha256(part.index.tobytes()).hexdigest()


def _model_key(settings: Settings, name: str) -> str:
    """Return a key of what a plan knows of a model's logits, with a digest of its weight file."""
    model, recipe = settings.model[name], settings.training
    weights, path = model.weights or recipe.model_dump(exclude={"device"}), Path(str(model.weights))
    if path.is_file():
        weights = str(remembered("weights", [path], lambda: sha256_of(path)))
    network = network_settings(model.model_dump())
    return content_key([network, code_of(network), weights, model.averaged])


def _plan_job(planned: Planned, images: ImageDataset, plan: Plan, seen: set[Any]) -> JobPlan:
    """Plan a job whose images are there; clean predictions in `seen` are another job's."""
    settings, job = planned.settings, planned_job(planned, images)
    rows = Rows(Path(settings.cache.dir))
    if rows.is_finished(finished_key(job), images.digest) and not settings.rerun:
        return JobPlan(settings.job, len(images), seconds=0, stored=True)
    data = settings.dataset.model_dump_json()
    places = {part: (data, *_place_of(part)) for part in parts_of(job, job.measurements)}
    clean = {part for part in places if not part.measurement.attacked}
    missing = {part: part.index for part in places if part not in clean or places[part] not in seen}
    seen |= {places[part] for part in clean}
    work = work_of(job, missing)
    result = JobPlan(settings.job, len(images), work.gradients, work.predictions)
    if work.gradients is None or not plan.here:
        return result
    speed = read_notes(job.cache_dir).get(job.speed_key, math.nan)
    return replace(result, seconds=result.work * speed)


def _check_files(job: Settings, images: ImageDataset, seen: set[Any]) -> None:
    """Refuse a weight file that does not fit its network; the models in `seen` fit."""
    for name in job.models:
        model = job.model[name]
        in_file = model.weights not in (None, "included") and not model.missing
        key = content_key([name, model.model_dump(), job.dataset.model_dump()])
        if in_file and not fetches(model) and key not in seen:
            build(job, name, images, tried=False)
            seen.add(key)


def _count_gradients(job: Settings) -> JobPlan:
    """Plan a job without its images."""
    each = job.gradients(len(job.budgets))
    count = job.n_images or 0
    gradients = each if each is None or not job.source else each * max(1, count)
    return JobPlan(job.job, count, gradients, None)


def _list_trainings(planned: Planned) -> list[str]:
    """Return the trainings of a job that have no file of their name."""
    settings, folder = planned.settings, Path(planned.settings.cache.dir)
    names = {name for name in settings.models if not settings.model[name].weights}
    files = {name: f"checkpoints/{name}-{settings.dataset.name}-*.safetensors" for name in names}
    return [name for name, pattern in files.items() if not any(folder.glob(pattern))]


def _why_no_images(job: Settings, sets: DataSets) -> str:
    """Return why a job's images cannot be opened; empty if they can."""
    if not job.dataset.has_loader:
        return ""
    try:
        sets.open(job, "test")
    except ValueError as error:
        extra, reason = job.dataset.model_extra or {}, first_line(error)
        if extra.get("download") and not sets.download:
            reason = f"not in {extra.get('root')}; the command downloads it"
        return f"dataset={job.dataset.name}: {reason}"
    return ""


def _how_to_fetch(name: str, model: ModelSettings) -> str:
    """Return the command that fetches a model's missing weights; empty if none are missing."""
    if model.missing and model.url:
        arguments = ["curl", "-L", "--create-dirs", "-o", model.missing, str(model.url)]
        return shlex.join(arguments)
    if model.network.get("_target_") == LOADER:
        public = find(model.network["name"])
        text = f"{command('models')} --fetch {model.network['name']}  # {public.source}"
        return text * (not public.path.exists())
    text = f"model {name}: weights that its library has or downloads; the plan does not need them"
    return text * fetches(model)


def print_plan(plan: Plan, console: Console) -> None:
    """Print the summary that precedes every sweep."""
    jobs = plan.jobs
    counted = [job for job in jobs if job.images or job.refused] or jobs
    stated = [job.gradients for job in counted if job.gradients is not None]
    images = max(job.images for job in jobs)
    parts = [f"{len(jobs)} jobs" if len(jobs) > 1 else "1 job"]
    parts.append(f"{images:,} images" if images else "number of images unknown")
    parts.append(f"{sum(stated):,.0f} gradients" + " per image" * (not images))
    if unknown := len(jobs) - len(stated):
        of = f"{unknown} jobs" if unknown > 1 else "1 job"
        why = "attack states no number" if len(counted) == len(jobs) else "images are not there"
        parts[-1] += f" plus those of {of} whose {why}"
    if all(job.predictions is not None for job in jobs):
        parts.append(f"{sum(job.predictions or 0 for job in jobs):,} predictions")
    if plan.seconds > 0:
        parts.append(f"about {duration(max(1, plan.seconds))} at the pace of earlier jobs")
    elif plan.here and math.isnan(plan.seconds):
        parts.append("hours unknown until the first batch")
    if not all(job.refused for job in jobs):
        console.print(f"Plan: {', '.join(parts)}.")
    if plan.first:
        console.print(f"Trained first: {', '.join(plan.first)}. Their time is not known.")
    if plan.fits:
        console.print(
            f"Fitted at the first batch, unless the fit is stored: {', '.join(plan.fits)}. "
            "A fit must end within its job: one that is stopped begins again."
        )
    if plan.files:
        console.print("Files to download or missing:")
        for line in plan.files:
            console.print(f"  {line}")
    for reason in dict.fromkeys(job.refused for job in jobs if job.refused):
        console.print(f"A job will fail: {reason}")
    if stored := sum(job.stored for job in jobs):
        plural = "s" * (stored > 1)
        console.print(f"Already stored: all rows of {stored} job{plural} with these settings.")


def print_jobs(plan: Plan, console: Console) -> None:
    """Print the work of each job, then the plan."""
    rows = []
    for job in plan.jobs[:_SHOWN]:
        each = "" if job.images else " per image"
        row = [
            f"{job.images:,}" if job.images else "?",
            "?" if job.gradients is None else f"{job.gradients:,.0f}{each}",
            "?" if job.predictions is None else f"{job.predictions:,}",
            "?" if math.isnan(job.seconds) else duration(job.seconds),
            "yes" if job.stored else "no",
        ]
        rows.append([job.name, *([f"refused: {job.refused}"] if job.refused else row)])
    heads = ["job", "images", "gradients", "predictions", "time", "stored"]
    console.print(Grid(heads, rows).terminal(ruled=False), soft_wrap=False)
    if (left := len(plan.jobs) - _SHOWN) > 0:
        console.print(f"... and {left} more job{'s' * (left > 1)}")
    print_plan(plan, console)
