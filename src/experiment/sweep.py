"""The jobs of one command as a whole: checks before them, the matrix after them."""

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from src.analysis.summary import Summary, summarise
from src.config.compose import has_basic_sweeper, is_sweep, runs_here
from src.config.errors import refuse
from src.config.settings import Settings
from src.experiment.delivery import end_sweep, start_sweep, sweep_parameters
from src.experiment.job import check_job
from src.experiment.models import forget_models, open_datasets
from src.experiment.outputs import SUMMARY, clear_sweep, files_of_job, files_of_sweep
from src.experiment.summary import print_alarms, write_matrices
from src.store.jobs import find_jobs
from src.store.record import PAGE, job_record, public
from src.store.state import PLAN, Plan, failure_of, job_folders, lock_of_sweep, write_plan
from src.tracking import Tracker, open_tracker
from src.utils import stopping
from src.utils.checks import first_line
from src.utils.files import WriteError, reason, write_text, writing
from src.utils.locks import held
from src.utils.processes import is_first_process

log = logging.getLogger(__name__)


Report = Callable[[Summary, Path, Settings, Console], None]
"""Writer of the report of a summary into a folder."""


class Sweep:
    """The jobs of one command: checked, opened as a tracked run, summed up when they are done."""

    def __init__(self, jobs: Sequence[tuple[Sequence[str], Settings]], report: Report) -> None:
        self.words, self.settings = zip(*jobs, strict=True)
        self.report = report
        self.tracker: Tracker | None = None
        self.plan: Plan | None = None
        self.stopped = ""
        self.jobs = 0  # 0: a single run, or unknown with another sweeper
        self.held = ExitStack()  # the lock of a sweep that has begun

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock to this process when a launcher sends the sweep to others."""
        return {**self.__dict__, "held": ExitStack(), "words": ()}

    def begin_job(self, config: DictConfig) -> None:
        """Log the job's number."""
        if self.jobs:
            log.info("job %d of %d", config.hydra.job.num + 1, self.jobs)

    def start(self, config: DictConfig) -> None:
        """Check the jobs, and open the sweep."""
        if not is_first_process():
            return
        sweep, jobs = is_sweep(config.hydra), self.settings
        _check_places(config, sweep, jobs[0].cache_dir)
        _check(jobs, sweep)
        open_tracker.cache_clear()
        self.tracker = open_tracker(jobs[0].tracking, jobs[0].dataset.name)
        open_datasets(jobs)
        forget_models()
        stopping.raise_if_interrupted()
        self.jobs = len(jobs) if sweep and has_basic_sweeper(config) else 0
        names = _names(self.words) if self.jobs else [] if sweep else [jobs[0].job]
        try:
            self._open(config, names, jobs)
        except BaseException:
            self.held.close()
            raise

    def _open(self, config: DictConfig, names: list[str], jobs: Sequence[Settings]) -> None:
        """Take the sweep's folder, note what is to be done, and open the sweep's run."""
        assert self.tracker is not None
        sweep, folder = is_sweep(config.hydra), _folder(config)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.tracker.close_orphans()  # before the lock: a killed sweep may have left it here
        self.held.enter_context(held(lock_of_sweep(folder)))
        self.plan = Plan(
            jobs=names,
            single=not sweep,
            command=" ".join(public(config.hydra.overrides.task)),
            dataset=jobs[0].dataset.name,
            tracked=jobs[0].tracking.name != "none",
            parameters=sweep_parameters(jobs),
        )
        write_plan(folder, self.plan)
        stopping.set_shutdown_hook(lambda error: self._stop_early(config, error))
        with open_dict(config):  # handed on to the jobs, which may run in other processes
            config.sweep = start_sweep(folder, self.plan, self.tracker)
            if sweep and config.sweep:
                config.hydra.overrides.task.append(f"sweep={config.sweep}")
            devices = {job.training.device for job in jobs}
            if self.jobs and runs_here(config) and len(devices) == 1 and None not in devices:
                config.hydra.overrides.task.append(f"training.device={devices.pop()}")

    def _jobs(self, config: DictConfig) -> list[Path]:
        """Return the folders of the jobs that were begun, in their order."""
        assert self.plan is not None
        return list(job_folders(_folder(config), self.plan).values())

    def _stop_early(self, config: DictConfig, error: BaseException) -> None:
        """Say why the command stops here, and sum up the jobs that it has finished."""
        folder = _folder(config)
        words = (
            f"Interrupted. Finished jobs are in {folder}; the same command takes them over and "
            "goes on."
        )
        self.stopped = "KILLED"
        if isinstance(error, OSError):
            words = f"{error.filename or folder} cannot be written: {reason(error)}."
            self.stopped = "FAILED"
        elif not isinstance(error, KeyboardInterrupt):  # of a launcher, say
            words = f"{first_line(error)}\nFinished jobs are in {folder}; the same command goes on."
            self.stopped = "FAILED"
        print(f"\n{words}")  # below a progress bar
        self._sum_up(config)

    def end(self, config: DictConfig) -> None:
        """Sum up, and exit with code 1 if a job has failed."""
        if not is_first_process():
            return
        try:
            complete = self._sum_up(config)
        except Exception:  # Hydra would turn it into a warning and report success
            refuse(traceback.format_exc())
        stopping.set_shutdown_hook(lambda error: None)
        if self.stopped:
            raise KeyboardInterrupt
        if not complete:
            sys.exit(1)

    def _sum_up(self, config: DictConfig) -> bool:
        """Report the finished jobs, close the sweep, and tell whether nothing failed."""
        folder, jobs = _folder(config), self._jobs(config)
        failures = {job: failure for job in jobs if (failure := failure_of(job)) is not None}
        console = Console(markup=False, record=True)
        finished = [job for job in jobs if job not in failures]
        own = jobs == [folder]  # which the job itself has cleared
        written = own or _run_step(console, lambda: clear_sweep(folder))
        done = _summary_of(finished, console)
        print_alarms(done, console)
        alarms = console.export_text()
        written &= _run_step(console, lambda: write_matrices(done, folder, console))
        summary = f"{console.export_text()}{alarms}".strip("\n")
        if summary:
            written &= _run_step(console, lambda: write_text(folder / SUMMARY, summary))
        if done.jobs and self._wants_report():
            written &= self._report(done, folder, console)
        elif done.jobs and self.stopped:
            console.print(f"python -m src.report folder={folder} builds a report of what is done.")
        for job, failure in failures.items():
            words = f"FAILED {job.name}: {failure}"
            console.print(words, style="red", soft_wrap=True, markup=False)
        missing = 0 if self.stopped else max(0, self.jobs - len(jobs))
        if missing:
            console.print(
                f"FAILED {missing} of {self.jobs} jobs: no folder of theirs is to be seen."
            )
        console.print(f"files: {folder}", soft_wrap=True)
        if self.tracker is not None and config.sweep:
            status = self.stopped or ("FAILED" if failures or missing else "FINISHED")
            end_sweep(folder, config.sweep, status, self.tracker, done)
            attacks = list(dict.fromkeys(one.job.record.label for one in done.attacked))
            links = self.tracker.links(config.sweep, attacks) if done.jobs else {}
            for what, link in links.items():
                console.print(f"{what}: {link}", soft_wrap=True, markup=False)
        self.held.close()
        return written and not failures and not missing

    def _wants_report(self) -> bool:
        return self.settings[0].report.name != "none" and not self.stopped

    def _report(self, done: Summary, folder: Path, console: Console) -> bool:
        """Build the report; its failure leaves the jobs' results as they are."""
        again = f"python -m src.report folder={folder}"
        try:
            with stopping.reraise_interrupts():
                self.report(done, folder, self.settings[0], console)
        except KeyboardInterrupt:
            self.stopped = "KILLED"
            words = f"Interrupted. The jobs' files are complete, and {again} builds it."
            console.print(words, style="yellow", soft_wrap=True, markup=False)
            return False
        except Exception as error:
            if not isinstance(error, ValueError | OSError):
                log.exception("This should not happen; please report it with the lines below.")
            console.print(
                f"No report: {first_line(error)} The jobs' files are complete; when the cause is "
                f"gone, {again} builds it.",
                style="yellow",
                soft_wrap=True,
                markup=False,
            )
            return False
        console.print(f"report: {folder / PAGE}", soft_wrap=True, markup=False)
        return True


def _run_step(console: Console, step: Callable[[], None]) -> bool:
    """Run a step of the summary; print its failure, and tell whether its files are written."""
    try:
        step()
    except ValueError as error:
        console.print(str(error), style="yellow", soft_wrap=True, markup=False)
        return not isinstance(error, WriteError)
    return True


def _summary_of(folders: Sequence[Path], console: Console) -> Summary:
    """Return the summary of the jobs in some folders; name a damaged file, and sum up none."""
    try:
        return summarise(find_jobs(folders, none_is_fine=True, below=False))
    except ValueError as error:
        console.print(str(error), style="yellow", soft_wrap=True, markup=False)
        return Summary()


def _check_places(config: DictConfig, sweep: bool, cache_dir: str) -> None:
    """Refuse folders in which jobs would not be found again, or nothing can be kept."""
    with writing(Path(cache_dir)):
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
    key, start = "hydra.sweep.dir" if sweep else "hydra.run.dir", "${hydra:job.num}-"
    if not str(OmegaConf.select(config, key) or "").strip() or config.hydra.output_subdir is None:
        raise ValueError(f"{key} and hydra.output_subdir must name folders.")
    raw: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if sweep and not str(raw["subdir"]).startswith(start):
        raise ValueError(f"hydra.sweep.subdir must begin with {start}, by which jobs are found.")
    folder = _folder(config)
    known = (folder / PLAN).exists() or job_record(folder) is not None
    files = [*files_of_sweep(folder), *([] if sweep else files_of_job(folder))]
    if files and not known:
        raise ValueError(
            f"{folder} holds {files[0].name}, which would be replaced, and is no sweep's folder; "
            "name another one."
        )


def _check(jobs: Sequence[Settings], sweep: bool) -> None:
    """Refuse jobs that cannot work."""
    if sweep and any(job.trainer.distributed for job in jobs):
        raise ValueError(
            "trainer.devices and trainer.strategy share one job among several devices, "
            "which works for a single run only; in a sweep give every job one device "
            "(trainer=default) and let a Hydra launcher run jobs side by side."
        )
    for job in jobs:
        check_job(job)


def _names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return each job's own words, which not all jobs of the sweep have."""
    words = [public(job) for job in jobs]
    shared = set.intersection(*map(set, words))
    own = [" ".join(word for word in each if word not in shared) for each in words]
    return [name or " ".join(each) for name, each in zip(own, words, strict=True)]


def _folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir if is_sweep(config.hydra) else config.hydra.run.dir)
