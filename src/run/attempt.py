"""Run one job of a command: a failure is recorded beside its files, and other jobs continue."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..artifacts.sweep_state import fail, running
from ..config.errors import refuse
from ..config.settings import Settings
from ..report.terminal import row_text
from ..tracking import Tracker, open_tracker
from ..utils.devices import is_out_of_memory
from ..utils.files import WriteError
from ..utils.processes import is_first_process, is_one_of_several
from ..utils.refusals import first_line, printable
from .job import run_job
from .sweep import Sweep
from .track import job_parameters
from .trainer import on_free_gpu

log = logging.getLogger(__name__)


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
        with tracker.job(settings.job, settings.sweep, job_parameters(settings)) as run:
            job = replace(planned, settings=settings)
            summary = run_job(job, sweep.pool, tracker, run, folder)
        if summary is not None:
            number = f"job {hydra.job.num + 1} of {sweep.jobs}: " if sweep.jobs else ""
            log.info("%s%s", number, ", ".join(filter(None, [settings.job, row_text(summary)])))


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
            except ValueError as error:
                _note(folder, str(error))
            except OSError as error:
                _note(folder, f"A file could not be read or written: {error}.")
            except Exception as error:
                if is_out_of_memory(error):  # in the trial of two images, or in a fit
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
