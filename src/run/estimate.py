"""Estimate a sweep before its first job: trainings, gradients, hours and disk space."""

import math
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..cache.rows import Rows
from ..config.sections import DatasetSettings, ModelSettings
from ..config.settings import Settings
from ..data.published import stand_in
from ..measure.attack_cost import AdversarialImages, most_pictures
from ..measure.protocol import RowRequest
from ..models import PixelClassifier, tensors_of
from ..models.providers import LOADER, find
from ..utils import stopping
from ..utils.package import command
from ..utils.refusals import first_line
from .build import fetches
from .compute import attacked_again
from .costs import UNKNOWN, Cost, Costs, WorkType
from .data import DataSets
from .fit import fit_files
from .models import ModelPool
from .pictures import find_again
from .results import find_all_work
from .stages import JobContext, Planned
from .train import Trainings, settings_of_attack
from .work import Work, work_of

_ROW_BYTES = 120  # per prediction, in cache, results and tracking store together
_JOB_SECONDS, _END_SECONDS = 1.0, 10.0  # per job for tables and tracking; for the report


@dataclass(frozen=True)
class Training:
    """Training or fit that a sweep needs."""

    name: str
    images: int
    epochs: int
    cost: Cost
    bytes: int


@dataclass(frozen=True)
class JobEstimate:
    """Work, time and disk space of a job, without trainings.

    Attributes:
        images: Number of images; 0: unknown, and `gradients` is per image.
        stored: Share of the job's rows that are stored; NaN: unknown.
        bytes: Additional disk space.
        refused: Why the job cannot run; empty if it can.
    """

    name: str
    images: int
    gradients: float | None
    predictions: int = 0
    cost: Cost = UNKNOWN
    stored: float = math.nan
    bytes: float = 0.0
    refused: str = ""


@dataclass
class Estimate:
    """Jobs and trainings of a sweep, with the missing files.

    Attributes:
        basis: Text that says where the seconds come from; empty: there are none.
        files: Missing files, each with the command that fetches it.
        untrained: Models without weights, if no images are there to tell whether they were trained.
        rows: Images whose rows the jobs compute, by place in the cache.
        operations: Operations of networks, see `Costs`.
        pictures: How many examples each job stores, if they are fewer than asked for.
    """

    jobs: list[JobEstimate] = field(default_factory=list)
    trainings: dict[Path, Training] = field(default_factory=dict)
    basis: str = ""
    files: list[str] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    rows: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    operations: dict[str, dict[WorkType, float]] = field(default_factory=dict)
    pictures: str = ""

    @property
    def seconds(self) -> float:
        """Seconds for the whole sweep; NaN if a speed is unknown."""
        return sum(part.cost.seconds for part in self._parts) + _END_SECONDS

    @property
    def tflop(self) -> float:
        """Operations of the whole sweep, in 10^12; NaN if they are unknown or were not counted."""
        return sum(part.cost.tflop for part in self._parts)

    @property
    def work(self) -> list[float]:
        """Work per job: seconds if all are known, else gradients."""
        seconds = [job.cost.seconds for job in self.jobs]
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


def estimate(jobs: Sequence[Planned], pool: ModelPool, here: bool) -> Estimate:
    """Estimate jobs; hours and disk space only for jobs of this process (`here`) or `plan.tflops`.

    Other jobs have only numbers of gradients, and so have all jobs if images of unknown number are
    missing. The jobs get the pool's models later, so that each is built once.
    """
    result, sets, every = Estimate(), pool.sets, [planned.settings for planned in jobs]
    no_images = {reason for job in every if (reason := _why_no_images(job, sets))}
    known = [_with_blank_images(job) if _why_no_images(job, sets) else job for job in every]
    complete = not any(_why_no_images(job, sets) for job in known)
    for planned, settings in zip(jobs, known, strict=True):
        stopping.raise_if_interrupted()
        try:
            if complete and (here or settings.plan.tflops):
                job = replace(planned, settings=settings)
                result.jobs.append(_estimate_job(job, pool, result))
            else:
                result.jobs.append(_count_gradients(settings, sets))
        except ValueError as error:  # this job will fail with the same error; the others run
            refused = first_line(error)
            result.jobs.append(JobEstimate(settings.job, 0, 0, cost=Cost(0, 0), refused=refused))
    models = {name: model for job in every for name, model in job.model.items()}
    if not sets.download:
        result.files = [*filter(None, map(_how_to_fetch, models, models.values()))]
    result.files += no_images
    if not complete:
        used = {name for job in every for name in job.models}
        result.untrained = [name for name in models if name in used and not models[name].weights]
    elif no_images:
        result.files[-1] += ". The plan assumes the published images, and that nothing is stored"
    return result


def _with_blank_images(job: Settings) -> Settings:
    """Return a job with blank images in place of missing ones, if their number is known."""
    if (keys := stand_in(job.dataset.model_extra or {})) is None:
        return job
    section = job.dataset.model_dump(include=set(DatasetSettings.model_fields)) | keys
    return job.model_copy(update={"dataset": DatasetSettings.model_validate(section)})


def _why_no_images(job: Settings, sets: DataSets) -> str:
    """Return why a job's images cannot be opened; empty if they can."""
    if not job.dataset.has_loader:
        return ""
    try:
        sets.open(job, "test")
    except ValueError as error:
        extra = job.dataset.model_extra or {}
        if extra.get("download") and not sets.download:
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
        text = f"{command('models')} --fetch {model.network['name']}  # {public.source}"
        return text * (not public.path.exists())
    text = f"model {name}: weights that its library has or downloads; the plan does not need them"
    return text * fetches(model)


def _count_gradients(job: Settings, sets: DataSets) -> JobEstimate:
    """Estimate a job without its models; if its images cannot be opened, assume `n_images` or 0."""
    images, members = job.n_images or 0, len(job.source)
    if job.dataset.has_loader and not _why_no_images(job, sets):
        images = len(sets.open(job, "test"))
    stated = job.attack.gradients(len(job.budgets), members)
    total = None if stated is None else stated * members * job.source_draws * (images or 1)
    return JobEstimate(job.job, images, total if job.source else 0)


def _estimate_job(planned: Planned, pool: ModelPool, result: Estimate) -> JobEstimate:
    """Estimate a job, and add its trainings and rows to the result."""
    job, untrained = pool.prepare(planned)
    settings, images = job.settings, job.images
    wanted = min(settings.report.examples, len(images)) if settings.source else 0
    if (count := most_pictures(job)) < wanted:
        result.pictures = f"{count} of {wanted} examples per job, to store at most 10 MB"
    costs = Costs(settings, job.data.device, result.operations)
    result.basis = costs.basis
    trainings = Trainings(settings, images, pool.sets)
    for name, classifier in untrained.items():
        path = trainings.file(name, classifier)
        if path not in result.trainings:
            result.trainings[path] = _estimate_training(trainings, name, classifier, costs)
    missing, rows = find_all_work(job, Rows(Path(settings.cache.dir)))
    stored = 1 - sum(map(len, missing.values())) / max(1, rows)
    if any(request.attacked for request in missing):
        _add_fits(job, result, costs)
    missing = _leave_out(job, missing, result.rows)
    again = attacked_again(job, missing, Rows(Path(settings.cache.dir)))
    if any(request.attacked for request in missing):
        missing |= find_again(job)
    work = work_of(job, {**missing, **again})
    cost = _cost_of(job, work, costs)
    return JobEstimate(
        settings.job,
        len(images),
        work.gradients,
        work.predictions.total(),
        cost._replace(seconds=cost.seconds + _JOB_SECONDS),
        stored,
        _count_bytes(job, missing),
    )


def _cost_of(job: JobContext, work: Work, costs: Costs) -> Cost:
    """Return the cost of a job's attack and predictions."""
    if work.gradients is None:
        return UNKNOWN
    images, source = defaultdict[tuple[WorkType, str], float](float), job.settings.source
    for name in source:
        images["gradient", name] += work.gradients / len(source)
    for target, count in work.predictions.items():
        for name in target.members:
            images["prediction", name] += count / len(target.members)
    classifiers = {name: model.classifier for name, model in job.models.items()}
    return costs.of(images, classifiers, job.images.image_size)


def _estimate_training(
    trainings: Trainings, name: str, classifier: PixelClassifier, costs: Costs
) -> Training:
    settings, sets = trainings.settings, trainings.sets
    recipe, train = settings.training, sets.training_images(settings, trainings.images)
    test = sets.open(settings, "test", whole=True)
    evaluated = min(recipe.evaluate_on or len(test), len(test))  # test images per epoch
    work: dict[tuple[WorkType, str], float] = {
        ("training", name): recipe.epochs * len(train),
        ("prediction", name): recipe.epochs * evaluated + len(test),
    }
    if recipe.attack is not None:
        taken = settings_of_attack(recipe).gradients(1, 1)
        attacked = (1 - recipe.clean_share) * recipe.epochs * len(train)
        work["gradient", name] = attacked * (math.nan if taken is None else taken)
    size = sum(4 * value.numel() for _, value in tensors_of(classifier.network))
    cost = costs.of(work, {name: classifier}, train.image_size)
    return Training(name, len(train), recipe.epochs, cost, size)


def _add_fits(job: JobContext, result: Estimate, costs: Costs) -> None:
    """Add to `result` the fits of a job's attack whose states are missing."""
    part, images, source = job.planned.fitted, job.data.fit_images, job.settings.source
    classifiers = {name: model.classifier for name, model in job.models.items()}
    for eps, file in fit_files(job).items():
        assert part is not None and images is not None
        missing = job.settings.rerun or not file.exists()
        if missing and file not in result.trainings:
            work_type: WorkType = "training" if part.as_built else "gradient"
            gradients = job.fit_gradients / len(fit_files(job)) / len(source)
            work = {(work_type, member): gradients for member in source}
            cost = costs.of(work, classifiers, images.image_size)
            name = f"{job.settings.job} at {eps:g}/255" if eps else job.settings.job
            result.trainings[file] = Training(name, len(images), part.epochs, cost, 0)


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
