"""One job from top to bottom: images, models, clean predictions, adversarial images, tables."""

import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from src.analysis import wilson_interval
from src.artifacts.layout import SAVED, clear
from src.artifacts.record import JobRecord, record_of
from src.cache.keys import code_keys, job_key
from src.cache.rows import Rows
from src.config.settings import Settings
from src.data import ImageDataset
from src.defences import Defended
from src.images.configured_attack import attack_function
from src.images.saved_images import SavedImages, saved_dataset
from src.report.terminal import print_matrix
from src.run.attack import try_attack
from src.run.batches import Batches
from src.run.models import Model, open_dataset, prepare_models
from src.run.outputs import write_results
from src.run.passes import attacked_rows
from src.run.saved_set import check_weights, open_set, with_set
from src.run.stages import Job, Results, build_defences, mixing_pool
from src.run.track import track_job
from src.run.trainer import for_device, make_trainer, meet
from src.run.unattacked import clean_rows, unattacked_tables
from src.run.written_set import write_set
from src.tracking import Run, Tracker
from src.utils.call_target import check_target
from src.utils.defended_names import ABSTAINED, Evaluated
from src.utils.processes import is_first_process

log = logging.getLogger(__name__)


def run_job(
    settings: Settings, tracker: Tracker, run: Run, folder: Path, console: Console | None = None
) -> None:
    """Compute the rows of a job that are not stored, write its files, log its pairs.

    Its matrix is printed on a console, if there is one.
    """
    job = _prepared(settings, tracker)
    result = compute_results(job)
    if not is_first_process():
        return  # the first process of this job writes the results
    record = make_record(job, result, folder)
    clear(folder)  # of an earlier job
    summary = write_results(job, result, record, folder)
    if job.settings.save_adversarial:
        write_set(job, result, record, folder / SAVED)
        log.info("Saved the adversarial images in %s", folder / SAVED)
    track_job(summary.jobs[0], tracker, run)
    if console is not None:
        for matrix in summary.matrices:
            print_matrix(matrix, console)


def compute_results(job: Job) -> Results:
    """Return all rows of a job with its models; what is not stored is computed.

    Where processes share the job, the first one alone gets them.
    """
    unattacked = unattacked_tables(job)
    result = attacked_rows(job) if job.settings.budgets else Results()
    diagnostics = {**result.diagnostics, **unattacked}
    if len(diagnostics) < len(result.diagnostics) + len(unattacked):  # of attack and of noise
        parts = [result.diagnostics["filtered"], unattacked["filtered"]]
        diagnostics["filtered"] = pa.concat_tables(parts)
    networks = job.networks.items()
    return replace(
        result,
        diagnostics=diagnostics,
        unsteady=[pair for pair, network in networks if not getattr(network, "steady", True)],
        softmax=[pair for pair, network in networks if getattr(network, "softmax", False)],
    )


def _prepared(settings: Settings, tracker: Tracker) -> Job:
    """Open a job's data, prepare its models, and check their clean accuracy."""
    code_keys(settings)  # as in `check_job`: this may be a launcher's process
    saved = open_set(settings)
    settings = settings if saved is None else with_set(settings, saved)
    runner = make_trainer(settings.trainer)
    device = runner.strategy.root_device.type
    trainer = for_device(settings.trainer, device)
    settings = settings.model_copy(update={"trainer": trainer})
    images, diagnosed = _images(settings, saved, runner.world_size)
    attack = pool = None
    if settings.attack.kind == "crafted":
        attack = attack_function(settings.attack)
        pool = mixing_pool(open_dataset(settings, "test", whole=True), settings.seed)
    make_job = partial(
        Job,
        settings=settings,
        saved=saved,
        images=images,
        diagnosed=diagnosed,
        pool=pool,
        device=device,
        rows=Rows(Path(settings.cache_dir) / "rows"),
        attack=attack,
        defences=build_defences(settings),
    )

    def use_source(models: dict[str, Model]) -> None:
        try_attack(make_job(models=models), runner.strategy.root_device)

    models = prepare_models(settings, images, tracker, use_source)
    if saved is not None:
        check_weights(saved, {name: model.digest for name, model in models.items()})
    meet(trainer)
    job = make_job(models=models)
    _log_cost_of_defences(job)
    job = replace(job, clean=clean_rows(job))
    _check_clean_accuracies(job)
    return job


def make_record(job: Job, result: Results, folder: Path | None = None) -> JobRecord:
    """Return the record of a computed job, with the words of its command that its folder holds."""
    settings = job.settings
    names = [settings.attacked, *job.target_keys]
    # A whole set is comparable with the jobs that attack the images it says its clean ones are.
    stated = job.saved.data if job.saved and len(job.images) == len(job.saved) else ""
    if result.batch_size:  # the one that fitted into memory
        trainer = settings.trainer.model_copy(update={"batch_size": result.batch_size})
        settings = settings.model_copy(update={"trainer": trainer})
    return record_of(
        settings,
        folder,
        key=job_key(settings, job.crafting, job.target_keys, names),
        crafting=job.crafting,
        target_keys=job.target_keys,
        gradients=result.gradients,
        zero_gradients=result.zero_gradients,
        seconds=None if math.isnan(result.seconds) else result.seconds,
        code=code_keys(settings),
        weights={name: model.digest for name, model in job.models.items()},
        device=job.device,
        data=stated or job.images.digest(),
        images=len(job.images),
        values=job.images[0].images.numel(),
        class_names=job.images.class_names,
    )


def check_job(settings: Settings) -> None:
    """Refuse a job that cannot work before any job runs."""
    for name in settings.models:
        check_target(f"model.{name}.network", settings.model[name].network)
    build_defences(settings)
    code_keys(settings)  # of the code as it is loaded, which is kept: files may be edited later
    if settings.attack.kind == "crafted":
        attack_function(settings.attack)
    saved = open_set(settings)
    if saved is not None:
        with_set(settings, saved)


def _log_cost_of_defences(job: Job) -> None:
    """Log the number of predictions behind defences, before any of them is made."""
    defended = [network for network in job.networks.values() if isinstance(network, Defended)]
    if defended and is_first_process():
        passes = sum(each.repeats * int(getattr(each.defence, "copies", 1)) for each in defended)
        count = passes * len(job.images) * (1 + len(job.settings.budgets))
        log.info("%s: %s predictions behind defences", job.settings.job, f"{count:,}")


def _check_clean_accuracies(job: Job) -> None:
    """Compare the clean accuracies with those that are expected; warn, or stop where settings say.

    A model misses if the 95 % interval of its accuracy lies outside the expected one plus or
    minus the tolerance. What a weight file states warns alone: other copies may be harder.
    """
    frame = job.clean.select(["target", "defence", "label", "predicted"]).to_pandas()
    frame = frame[frame["predicted"] != ABSTAINED]
    correct = (frame["label"] == frame["predicted"]).groupby(
        [frame[name] for name in Evaluated._fields], sort=False
    )
    counts = correct.agg(["sum", "count"])
    shares = ", ".join(f"{Evaluated(*pair)} {k / n:.2%}" for pair, (k, n) in counts.iterrows())
    log.info("%d clean images, correct: %s", len(job.images), shares)
    check = job.settings.clean_accuracy_check
    for name in job.settings.models:  # defences have no such expectations
        k, n = (int(value) for value in counts.loc[Evaluated(name)])
        expected = job.models[name].expected_accuracy
        if expected is None:
            continue
        low, high = (float(bound) for bound in wilson_interval(k, n))
        if low > expected + check.tolerance or high < expected - check.tolerance:
            message = (
                f"model {name}: clean accuracy is {k} / {n} = {k / n:.2%}, but its file expects "
                f"{expected:.2%} +- {check.tolerance:.2%}; check weights, mean, std and input_size"
            )
            stated_by_user = job.settings.model[name].expected_accuracy is not None
            if stated_by_user and check.action == "stop":
                raise ValueError(f"{message}, or go on with clean_accuracy_check.action=warn.")
            log.warning("%s.", message)


def _images(
    settings: Settings, saved: SavedImages | None, processes: int
) -> tuple[ImageDataset, ImageDataset]:
    """Return the job's images and those of its diagnostics, before any model is trained."""
    if saved is None:
        images = open_dataset(settings, "test")
    else:
        wanted = {"num_classes", "class_names", "n_images", "images", "seed"}
        images = saved_dataset(saved, **settings.dataset.model_dump(include=wanted))
    images.digest()  # reads all files: a bad one is refused
    diagnosed = images.subset(settings.diagnostics.n_images, settings.seed)
    size = int(settings.trainer.batch_size)  # too small sets are refused
    Batches(images, size, processes, shuffle_seed=settings.seed if settings.controls else None)
    if settings.diagnostics.filters or settings.diagnostics.similarity:
        Batches(diagnosed, size, processes)
    return images, diagnosed
