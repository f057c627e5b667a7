"""Estimate a sweep before its first job: trainings, gradients, hours and disk space."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from src.artifacts.tables import named
from src.cache.rows import Rows
from src.config.sections import ModelSettings
from src.config.settings import Settings
from src.data import ImageDataset
from src.measure.adversarial_images import AdversarialImages
from src.measure.clean import Clean
from src.measure.protocol import RowRequest
from src.models import PixelClassifier, tensors_of
from src.models.providers import LOADER, find
from src.run.adversarial_images import attacked_again
from src.run.check_job import check_job
from src.run.data import open_data, open_dataset
from src.run.fit import fit_files
from src.run.models import (
    build_models,
    checkpoint_path,
    settings_of_attack,
    train_models,
    trained_files,
    training_images,
    with_ensemble,
)
from src.run.results import ask_for, finish
from src.run.speeds import Speeds, WorkType
from src.run.stages import JobContext, Model
from src.run.stored_rows import find_missing, read_rows
from src.run.trainer import for_device
from src.run.work import GRADIENT, Work, work_of
from src.tracking import Tracker
from src.utils import stopping
from src.utils.model_names import ModelRef
from src.utils.refusals import first_line

_ROW_BYTES = 120  # per prediction, in cache, results and tracking store together
_ATTACK = 1.15  # time for an attack divided by the time for its gradients alone
_JOB_SECONDS, _END_SECONDS = 1.0, 10.0  # per job for tables and tracking; for the report


@dataclass(frozen=True)
class Training:
    """Training that a sweep needs; its seconds are NaN if the speed is unknown."""

    name: str
    images: int
    epochs: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class JobEstimate:
    """Work, time and disk space of a job, without trainings.

    Attributes:
        images: Number of images; 0: unknown, and `gradients` is per image.
        seconds: Duration; NaN if a speed is unknown.
        stored: Share of the job's rows that are stored.
        bytes: Additional disk space.
        refused: Why the job cannot run; empty if it can.
    """

    name: str
    images: int
    gradients: float | None
    predictions: int = 0
    seconds: float = math.nan
    stored: float = 0.0
    bytes: float = 0.0
    refused: str = ""


@dataclass
class Estimate:
    """Jobs and trainings of a sweep, with the missing files.

    Attributes:
        device: Name of the device whose speeds were used; empty: none.
        files: Missing files, each with the command that fetches it.
        untrained: Models without weights, if no images are there to tell whether they were trained.
    """

    jobs: list[JobEstimate] = field(default_factory=list)
    trainings: dict[Path, Training] = field(default_factory=dict)
    device: str = ""
    files: list[str] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds for the whole sweep; NaN if a speed is unknown."""
        return sum(part.seconds for part in self._parts) + _END_SECONDS

    @property
    def work(self) -> list[float]:
        """Work per job: seconds if all are known, else gradients."""
        seconds = [job.seconds for job in self.jobs]
        if not any(map(math.isnan, seconds)):
            return seconds
        return [max(1, job.gradients or 0) for job in self.jobs]

    @property
    def bytes(self) -> float:
        """Bytes on disk, all folders together."""
        return sum(part.bytes for part in self._parts)

    @property
    def _parts(self) -> list["JobEstimate | Training"]:
        return [*self.jobs, *self.trainings.values()]


def estimate(jobs: Sequence[Settings], here: bool) -> Estimate:
    """Estimate jobs; hours and disk space only for jobs that run in this process (`here`).

    Other jobs, and all jobs if images are missing, have only numbers of gradients.
    """
    result, seen = Estimate(), dict[tuple[str, str], np.ndarray]()
    no_images = {reason for job in jobs if (reason := _why_no_images(job))}
    for settings in jobs:
        stopping.raise_if_interrupted()
        try:
            if here and not no_images:
                result.jobs.append(_estimate_job(for_device(settings), result, seen))
            else:
                result.jobs.append(_count_gradients(settings))
        except ValueError as error:  # this job will fail with the same error; the others run
            refused = first_line(error)
            result.jobs.append(JobEstimate(settings.job, 0, 0, seconds=0, refused=refused))
    models = {name: model for job in jobs for name, model in job.model.items()}
    result.files = [*filter(None, map(_how_to_fetch, models, models.values())), *no_images]
    if no_images:
        used = {name for job in jobs for name in job.models}
        result.untrained = [name for name in models if name in used and not models[name].weights]
    return result


def _why_no_images(job: Settings) -> str:
    """Return why a job's images cannot be opened; empty if they can."""
    if not job.dataset.has_loader:
        return ""
    try:
        open_dataset(job, "test")
    except ValueError as error:
        extra = job.dataset.model_extra or {}
        if extra.get("download") is False:  # the plan sets this
            return (
                f"dataset={job.dataset.name}: not in {extra.get('root')}; the command downloads it"
            )
        return f"dataset={job.dataset.name}: {first_line(error)}"
    return ""


def _how_to_fetch(name: str, model: ModelSettings) -> str:
    """Return the command that fetches a model's missing weights; empty if none are missing."""
    if model.missing and model.url:
        arguments = ["curl", "-L", "--create-dirs", "-o", model.missing, str(model.url)]
        return shlex.join(arguments)
    if model.network.get("_target_") == LOADER:
        public = find(model.network["name"])
        command = f"python -m src.models --fetch {model.network['name']}  # {public.source}"
        return command * (not public.path.exists())
    text = f"model {name} downloads its weights when first built; the plan does not need them"
    return text * bool(model.missing)


def _count_gradients(job: Settings) -> JobEstimate:
    """Estimate a job without its models; if its images cannot be opened, assume `n_images` or 0."""
    images, members = job.dataset.n_images or 0, len(job.source)
    if job.dataset.has_loader and not _why_no_images(job):
        images = len(open_dataset(job, "test"))
    stated = job.attack.gradients(len(job.budgets), members)
    total = None if stated is None else stated * members * job.source_draws * (images or 1)
    return JobEstimate(job.job, images, total if job.source else 0)


def _estimate_job(
    settings: Settings, result: Estimate, seen: dict[tuple[str, str], np.ndarray]
) -> JobEstimate:
    """Estimate a job; `seen` maps places in the cache to the rows that earlier jobs compute."""
    planned = check_job(settings)
    settings = planned.settings
    data = open_data(planned)
    built = build_models(planned, data)
    files = trained_files(settings, built, data.images)
    untrained = {name: file for name, file in files.items() if not file.exists()}
    speeds = Speeds(settings, data.device)
    result.device = speeds.device
    for name in untrained:
        base = ModelRef((name,)).base
        path = checkpoint_path(settings, name, built[name], data.images, at_end=True)
        if path not in result.trainings:
            training = _estimate_training(settings, base, built[name], data.images, speeds)
            result.trainings[path] = training
    trained = [name for name in settings.models if name not in untrained]
    models = train_models(planned, data, built, trained, Tracker())
    models |= {
        name: Model(built[name], "", f"untrained {file}") for name, file in untrained.items()
    }
    job = JobContext(planned, data, with_ensemble(settings, models))
    missing, rows = _find_missing(job)
    stored = 1 - sum(map(len, missing.values())) / max(1, rows)
    if any(request.attacked for request in missing):
        _add_fits(job, result, speeds)
    missing = _leave_out(job, missing, seen)
    again = attacked_again(job, missing, Rows(Path(settings.cache_dir)))
    work = work_of(job, {**missing, **again})
    return JobEstimate(
        settings.job,
        len(data.images),
        work.gradients,
        work.predictions.total(),
        _count_seconds(job, work, speeds) + _JOB_SECONDS,
        stored,
        _count_bytes(job, missing),
    )


def _estimate_training(
    settings: Settings,
    name: str,
    classifier: PixelClassifier,
    images: ImageDataset,
    speeds: Speeds,
) -> Training:
    recipe, train = settings.training, training_images(settings, images)
    test = open_dataset(settings, "test", whole=True)
    seconds = speeds.seconds("training", name, classifier, train.image_size)
    if recipe.attack is not None:
        taken = settings_of_attack(recipe).gradients(1, 1)
        gradient = speeds.seconds("gradient", name, classifier, train.image_size)
        seconds += (1 - recipe.clean_share) * gradient * (math.nan if taken is None else taken)
    test_images = min(recipe.evaluate_on or len(test), len(test))  # test images per epoch
    evaluated = (recipe.epochs * test_images + len(test)) / GRADIENT
    size = sum(4 * value.numel() for _, value in tensors_of(classifier.network))
    total = seconds * (recipe.epochs * len(train) + evaluated)
    return Training(name, len(train), recipe.epochs, total, size)


def _add_fits(job: JobContext, result: Estimate, speeds: Speeds) -> None:
    """Add to `result` the fits of a job's attack whose states are missing."""
    part, images, source = job.planned.fitted, job.data.fit_images, job.settings.source
    for eps, file in fit_files(job).items():
        assert part is not None and images is not None
        missing = job.settings.rerun or not file.exists()
        if missing and file not in result.trainings:
            work_type: WorkType = "training" if part.as_built else "gradient"
            durations = [
                speeds.seconds(work_type, name, job.models[name].classifier, images.image_size)
                for name in source
            ]
            gradients = job.fit_gradients / len(fit_files(job)) / len(source)
            name = f"{job.settings.job} at {eps:g}/255" if eps else job.settings.job
            seconds = gradients * sum(durations)
            result.trainings[file] = Training(name, len(images), part.epochs, seconds, 0)


def _find_missing(job: JobContext) -> tuple[dict[RowRequest, np.ndarray], int]:
    """Return the missing rows of a job by request, and the job's total number of rows."""
    cache, first = Rows(Path(job.settings.cache_dir)), ask_for(job, None)
    rows = {} if job.settings.rerun else read_rows(job, first, cache)
    missing = find_missing(first, rows)
    stored = not any(request.table == Clean.name for request in missing)
    clean = finish(job, first, rows)[Clean.name] if stored else _all_correct(job)
    later = ask_for(job, clean)
    rows = {} if job.settings.rerun else read_rows(job, later, cache)
    missing |= find_missing(later, rows)
    return missing, sum(len(request.index) for request in first | later)


def _leave_out(
    job: JobContext,
    missing: Mapping[RowRequest, np.ndarray],
    seen: dict[tuple[str, str], np.ndarray],
) -> dict[RowRequest, np.ndarray]:
    """Return the missing rows that no earlier job computes, and add them to `seen`."""
    new = dict[RowRequest, np.ndarray]()
    for request, index in missing.items():
        place = job.place(request)
        before = seen.get(place, np.array([], np.int64))
        seen[place] = np.union1d(before, index)
        if len(rest := np.setdiff1d(index, before)):
            new[request] = rest
    return new


def _all_correct(job: JobContext) -> pa.Table:
    """Return hypothetical clean predictions, all correct, so that every image is counted."""
    same = pa.table({name: job.images.indices for name in ("index", "label", "predicted")})
    return pa.concat_tables(named(same, target) for target in job.settings.evaluated)


def _count_seconds(job: JobContext, work: Work, speeds: Speeds) -> float:
    """Return the seconds for a job's attack and predictions; NaN if a speed is unknown."""
    if work.gradients is None:
        return math.nan
    side, source, seconds = job.images.image_size, job.settings.source, 0.0

    def time(work_type: WorkType, name: str) -> float:
        return speeds.seconds(work_type, name, job.models[name].classifier, side)

    for name in source if work.gradients else ():
        seconds += _ATTACK * work.gradients / len(source) * time("gradient", name)
    for target, count in work.predictions.items():
        each = [time("prediction", name) for name in target.members]
        seconds += sum(each) * count / len(each)
    return seconds


def _count_bytes(job: JobContext, missing: Mapping[RowRequest, np.ndarray]) -> float:
    """Return the disk space for a job's rows and images in bytes."""
    image, total = 3 * job.images.image_size**2, 0.0
    for request, index in missing.items():
        also_store = index if request.also_store is None else request.also_store
        total += 4 * image * len(also_store) if request.table == AdversarialImages.name else 0
        total += _ROW_BYTES * len(index)
    if job.settings.save_adversarial:
        total += image * len(job.images) * len(job.settings.budgets)
    return total
