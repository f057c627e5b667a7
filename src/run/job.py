"""Run one job: plan, images, models, the pass over the images, files."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from ..artifacts.record import JobRecord, clear, record_of
from ..artifacts.sweep_state import start_clock
from ..cache.keys import code_keys
from ..cache.rows import Rows
from ..report.summary import Summary
from ..tracking import Run, Tracker
from .attack import try_attack
from .check_job import check_weights
from .data import open_data
from .freeze import with_ensemble
from .models import ModelPool
from .outputs import make_job, save_adversarial_images, write_results
from .pictures import choose_pictures
from .results import Results, compute_results
from .stages import Data, JobContext, Model, Planned
from .track import track_job
from .trainer import meet

log = logging.getLogger(__name__)


def run_job(
    planned: Planned,
    pool: ModelPool,
    tracker: Tracker,
    run: Run,
    folder: Path,
) -> Summary | None:
    """Run a job: compute the missing rows, write the files and log its pairs.

    Return its summary, but None if another process writes the results.
    """
    cache = Rows(Path(planned.settings.cache.dir))
    planned, data = open_data(planned, pool.sets)
    models = _prepare_models(planned, data, pool, tracker, cache)
    start_clock(folder)
    meet(planned.settings.trainer)
    job = JobContext(planned, data, models)
    results = compute_results(job, cache)
    if results is None:
        choose_pictures(job, None, cache)
        return None  # the first process of this job writes the results
    record = make_record(job, results, folder)
    finished = make_job(job, results, record, folder)
    pictures = choose_pictures(job, finished, cache)
    clear(folder)  # remove an earlier job's files
    summary = write_results(job, results, finished, pictures, cache)
    if planned.settings.save_adversarial:
        save_adversarial_images(job, results, record, folder, cache)
    cache.shrink(planned.settings.cache.total_gb)
    track_job(summary.jobs[0], tracker, run)
    return summary


def _prepare_models(
    planned: Planned, data: Data, pool: ModelPool, tracker: Tracker, cache: Rows
) -> Mapping[str, Model]:
    """Return a job's models; try the attack on the source before the targets are trained."""
    settings = planned.settings
    source = pool.train(planned, data, settings.source, tracker)
    if planned.attack is not None:
        try_attack(JobContext(planned, data, with_ensemble(settings, source)), cache)
    others = [name for name in settings.models if name not in source]
    models = {**source, **pool.train(planned, data, others, tracker)}
    if planned.saved is not None:
        check_weights(planned.saved, {name: model.digest for name, model in models.items()})
    return with_ensemble(settings, models)


def make_record(job: JobContext, results: Results, folder: Path | None = None) -> JobRecord:
    """Return the record of a finished job, with its overrides as read from its folder."""
    settings, saved = job.settings, job.planned.saved
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
        fit_gradients=job.fit_gradients,
        zero_gradients=None if math.isnan(results.zero_gradients) else results.zero_gradients,
        seconds=None if math.isnan(results.seconds) else results.seconds,
        code=code_keys(settings),
        weights={name: model.digest for name, model in job.models.items()},
        device=job.data.device.type,
        nondeterministic=tuple(results.kernels),
        data=stated or job.images.digest(),
        images=len(job.images),
        values=job.images[0].images.numel(),
        class_names=job.images.class_names,
    )
