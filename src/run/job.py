"""Run one job: plan, images, models, the pass, files; or the record of its failure."""

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..artifacts.finished_job import FinishedJob
from ..artifacts.record import JobRecord, clear, record_of
from ..artifacts.sweep_state import fail, running, start_clock
from ..cache.rows import Rows
from ..config.errors import describe, refuse
from ..config.settings import Settings
from ..report.results import Results
from ..report.terminal import row_text
from ..tracking import Tracker, open_tracker
from ..utils.devices import is_out_of_memory
from ..utils.files import WriteError
from ..utils.processes import (
    command_key,
    from_first_process,
    is_first_process,
    is_one_of_several,
)
from ..utils.refusals import first_line, printable
from .check_job import check_weights, open_job
from .craft import fit_gradients
from .evaluate import Evaluation, JobTables
from .models import ModelPool, with_ensemble
from .outputs import choose_pictures, make_job, save_adversarial_images, write_results
from .plan import finished_key, planned_job
from .stages import JobContext, Planned
from .sweep import Sweep
from .track import publish_job
from .trainer import meet, note, on_free_gpu

log = logging.getLogger(__name__)


def run_job(planned: Planned, pool: ModelPool, tracker: Tracker, folder: Path) -> Results | None:
    """Run a job: compute the missing rows, write the files and publish it.

    Return its statistics, but None if another process writes the results.
    """
    typed, cache = planned.settings, Rows(Path(planned.settings.cache.dir))
    planned, evaluation = prepare_job(planned, pool, tracker, cache)
    start_clock(folder)
    finished = finish_job(planned, evaluation, folder)
    pictures = choose_pictures(evaluation, finished)
    if finished is None:
        return None  # the first process of this job writes the results
    job, settings = evaluation.job, planned.settings
    clear(folder)  # remove an earlier job's files
    statistics = write_results(evaluation, finished, pictures)
    if settings.save_adversarial:
        save_adversarial_images(evaluation, finished)
    key = finished_key(planned_job(replace(planned, settings=typed), job.images))
    cache.finish(evaluation.folder, key, job.images.digest())
    cache.shrink(settings.cache.total_gb)
    publish_job(tracker, statistics)
    return statistics


def prepare_job(
    planned: Planned, pool: ModelPool, tracker: Tracker, cache: Rows
) -> tuple[Planned, Evaluation]:
    """Open a job's images and get its models; those at hand are checked on the clean images first.

    If targets have to be trained, a first batch is attacked before, so that a broken attack fails.
    Return the plan, complete for the device, with the evaluation.
    """
    planned, job = open_job(planned, pool.sets)
    settings, images = planned.settings, job.images
    models = pool.train(planned, images, settings.source, tracker)
    meet(settings.trainer)
    command_key(from_first_process(command_key()))
    later = from_first_process(pool.untrained(planned, images))
    ready = [name for name in settings.models if name not in {*models, *later}]
    models |= pool.train(planned, images, ready, tracker)
    evaluation = Evaluation(replace(job, models=with_ensemble(settings, models)), cache)
    if later:
        evaluation.clean()
        evaluation.craft_first()
        models |= pool.train(planned, images, later, tracker)
        models = {name: models[name] for name in settings.models}
        evaluation.job = replace(job, models=with_ensemble(settings, models))
    if planned.saved is not None:
        check_weights(planned.saved, {name: model.digest for name, model in models.items()})
    return planned, evaluation


def finish_job(planned: Planned, evaluation: Evaluation, folder: Path | None) -> FinishedJob | None:
    """Compute a job's tables and what they give; None unless this is the first process."""
    evaluation.rest()
    if (tables := evaluation.tables) is None:
        return None
    job = evaluation.job
    if job.attack.function is not None and job.attack.stated(1) is None:
        note(job.cache_dir, job.cost_key, tables.gradients_per_image / len(job.budgets))
    return make_job(job, tables, make_record(planned, job, tables, folder), folder or Path())


def make_record(
    planned: Planned, job: JobContext, results: JobTables, folder: Path | None
) -> JobRecord:
    """Return the record of a finished job, with its overrides as read from its folder."""
    settings, saved = planned.settings, job.saved
    # A complete saved set is comparable with jobs that attack the same clean images.
    stated = saved.data if saved and len(job.images) == len(saved) else ""
    trainer = settings.trainer
    if results.batch_size:  # the batch size that fitted into memory
        trainer = trainer.model_copy(update={"batch_size": results.batch_size})
    if not trainer.distributed:  # which GPU the job has used is chance
        trainer = trainer.model_copy(update={"devices": 1})
    settings = settings.model_copy(update={"trainer": trainer})
    return record_of(
        settings,
        folder,
        key=job.key,
        key_parts=job.key_parts,
        crafting=job.attack_key,
        target_keys=job.target_keys,
        gradients=results.gradients,
        fit_gradients=fit_gradients(job),
        zero_gradients=None if math.isnan(results.zero_gradients) else results.zero_gradients,
        seconds=None if math.isnan(results.seconds) else results.seconds,
        code=dict(planned.code),
        weights={name: model.digest for name, model in job.models.items()},
        device=job.device.type,
        nondeterministic=tuple(results.kernels),
        data=stated or job.images.digest(),
        images=len(job.images),
        values=job.images[0].images.numel(),
        class_names=job.images.class_names,
    )


def attempt(config: DictConfig, folder: Path, sweep: Sweep) -> None:
    """Run a sweep's job; if it fails, the reason is written to its folder, and others continue."""
    # The GPU is released after a failure is written, which frees what the failed job has there.
    with ExitStack() as held, _noted_failures(folder):
        hydra = HydraConfig.get()
        planned = sweep.plan(config, hydra)
        settings = planned.settings
        named = any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
        if settings.trainer.distributed and is_one_of_several() and not named:
            raise ValueError("All processes of a job need one folder: hydra.run.dir=outputs/NAME")
        tracker = _tracker(settings) if is_first_process() else Tracker()
        targets = ", ".join(settings.targets)
        log.debug("%s -> %s on %s", settings.job, targets, settings.dataset.name)
        trainer = held.enter_context(on_free_gpu(settings.trainer))
        settings = settings.model_copy(update={"trainer": trainer})
        job = replace(planned, settings=settings)
        statistics = run_job(job, sweep.pool, tracker, folder)
        if statistics is not None:
            number = f"job {hydra.job.num + 1} of {sweep.jobs}: " if sweep.jobs else ""
            log.info("%s%s", number, ", ".join(filter(None, [settings.job, row_text(statistics)])))


@contextmanager
def _noted_failures(folder: Path) -> Iterator[None]:
    """Hold the lock of a job's folder; if the job fails, write the reason there."""
    try:
        with running(folder) if is_first_process() else nullcontext():
            try:
                yield
            except KeyboardInterrupt:
                if is_first_process():
                    _note(folder, "it was interrupted")
                raise
            except (ValueError, OSError) as error:
                _note(folder, describe(error))
            except (Exception, SystemExit) as error:
                if is_out_of_memory(error):  # in a fit
                    _note(folder, f"The device has too little free memory: {first_line(error)}.")
                    return
                log.exception("This should not happen; please report it with the lines below.")
                _note(folder, f"{type(error).__name__}: {error}")
    except ValueError as error:  # another process holds the lock
        log.error("%s", error)


def _tracker(settings: Settings) -> Tracker:
    """Return the tracker for the jobs of this process; one that tracks nothing if it fails."""
    try:
        return open_tracker(settings.tracking, settings.dataset.name)
    except ValueError as error:
        log.warning("%s The remaining jobs of this sweep are not tracked.", error)
        return Tracker()


def _note(folder: Path, sentence: str) -> None:
    """Write the failure to error.txt; any process but the first exits instead."""
    if not is_first_process():
        refuse(sentence)
    sentence = printable(sentence)
    try:
        fail(folder, sentence)
    except WriteError:  # a full disk, for example, perhaps the cause of the failure
        log.error(sentence)
