"""One job from top to bottom: images, models, clean predictions, adversarial images, tables."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
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
from src.run.models import Model, check_images, open_dataset, prepare_models
from src.run.outputs import write_results
from src.run.passes import attacked_rows
from src.run.saved_set import check_weights, open_set, with_set
from src.run.stages import Job, Results, built_defences, mixing_pool
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
    result = computed(job)
    if not is_first_process():
        return  # the first process of this job writes the results
    record = described(job, result, folder)
    clear(folder)  # of an earlier job
    summary = write_results(job, result, record, folder)
    if job.settings.save_adversarial:
        write_set(job, result, record, folder / SAVED)
        log.info("Saved the adversarial images in %s", folder / SAVED)
    track_job(summary.jobs[0], tracker, run)
    if console is not None:
        for matrix in summary.matrices:
            print_matrix(matrix, console)


def computed(job: Job) -> Results:
    """Return all rows of a job with its models; what is not stored is computed.

    Where processes share the job, the first one alone gets them.
    """
    unattacked = unattacked_tables(job)
    result = attacked_rows(job) if job.settings.budgets else Results()
    unsteady = [pair for pair, one in job.networks.items() if not getattr(one, "steady", True)]
    softmax = [pair for pair, one in job.networks.items() if getattr(one, "softmax", False)]
    diagnostics = _joined(result.diagnostics, unattacked)
    return replace(result, diagnostics=diagnostics, unsteady=unsteady, softmax=softmax)


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
    rows = Rows(Path(settings.cache_dir) / "rows")
    defences = built_defences(settings)
    job = Job(settings, saved, images, diagnosed, pool, {}, device, rows, attack, defences)

    def use_source(models: dict[str, Model]) -> None:
        try_attack(replace(job, models=models), runner.strategy.root_device)

    models = prepare_models(settings, images, tracker, use_source)
    if saved is not None:
        check_weights(saved, {name: model.digest for name, model in models.items()})
    job = replace(job, models=models)
    meet(trainer)
    _log_cost_of_defences(job)
    clean = clean_rows(job)
    check_clean_accuracies(
        settings, clean, {name: models[name].expected_accuracy for name in models}
    )
    return replace(job, clean=clean)


def described(job: Job, result: Results, folder: Path | None = None) -> JobRecord:
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
    built_defences(settings)
    code_keys(settings)  # of the code as it is loaded, which is kept: files may be edited later
    if settings.attack.kind == "crafted":
        attack_function(settings.attack)
    saved = open_set(settings)
    if saved is not None:
        with_set(settings, saved)


def _log_cost_of_defences(job: Job) -> None:
    """Log the number of predictions behind defences, before any of them is made."""
    behind = [one for one in job.networks.values() if isinstance(one, Defended)]
    if behind and is_first_process():
        passes = sum(one.repeats * int(getattr(one.defence, "copies", 1)) for one in behind)
        count = passes * len(job.images) * (1 + len(job.settings.budgets))
        log.info("%s: %s predictions behind defences", job.settings.job, f"{count:,}")


def check_clean_accuracies(
    settings: Settings, clean: pa.Table, expectations: Mapping[str, float | None]
) -> None:
    """Compare the clean accuracies with those that are expected; warn, or stop where settings say.

    What a weight file states of its test images warns alone: other copies of them may be harder.

    A model misses if the 95 % interval of its accuracy lies outside the expected one plus or
    minus the tolerance, so that a small subset does not stop a job by chance.
    """
    frame = clean.select(["target", "defence", "label", "predicted"]).to_pandas()
    frame = frame[frame["predicted"] != ABSTAINED]
    correct = (frame["label"] == frame["predicted"]).groupby(
        [frame[name] for name in Evaluated._fields], sort=False
    )
    counts = correct.agg(["sum", "count"])
    words = [f"{Evaluated(*pair)} {k / n:.2%}" for pair, (k, n) in counts.iterrows()]
    number = pc.count_distinct(clean["index"]).as_py()
    log.info("%d clean images, correct: %s", number, ", ".join(words))
    for name in settings.models:  # defences have no such expectations
        k, n = (int(value) for value in counts.loc[Evaluated(name)])
        expected = expectations[name]
        if expected is None:
            continue
        low, high = (float(bound) for bound in wilson_interval(k, n))
        tolerance = settings.clean_accuracy_check.tolerance
        if low > expected + tolerance or high < expected - tolerance:
            message = (
                f"model {name}: clean accuracy is {k} / {n} = {k / n:.2%}, but its file expects "
                f"{expected:.2%} +- {tolerance:.2%}; check weights, mean, std and input_size"
            )
            own = settings.model[name].expected_accuracy is not None
            if own and settings.clean_accuracy_check.action == "stop":
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
    check_images(images, together=2 if settings.controls else 1)
    diagnosed = images.subset(settings.diagnostics.n_images, settings.seed)
    size = int(settings.trainer.batch_size)  # too small sets are refused
    Batches(images, size, processes, shuffle_seed=settings.seed if settings.controls else None)
    if settings.diagnostics.attack_independent:
        Batches(diagnosed, size, processes)
    return images, diagnosed


def _joined(first: Mapping[str, pa.Table], second: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Concatenate tables of equal names from two mappings."""
    parts = {
        name: [each[name] for each in (first, second) if name in each]
        for name in {**first, **second}
    }
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}
