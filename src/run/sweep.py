"""Jobs of one command as a whole: checks before the first job, summary after the last one."""

import io
import logging
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ..artifacts import sweep_state
from ..artifacts.jobs import find_jobs
from ..artifacts.layout import FAILURE, MANIFEST, PAGE, PAPER, SUMMARY, files_of_sweep
from ..artifacts.record import files_of_job, job_record, public
from ..config.compose import has_basic_launcher, is_sweep
from ..config.errors import refuse
from ..config.read import read_job
from ..config.settings import Settings
from ..models.providers import fetch_missing
from ..report.audit import audited, print_audits
from ..report.beside import beside
from ..report.paper import jobs_of, paper_text, primary_of, ranks_of
from ..report.results import Results, results_of
from ..report.terminal import print_alarms, print_matrices, print_rankings, write_tables
from ..tracking import Tracker, open_tracker
from ..utils import stopping
from ..utils.files import WriteError, held, write_text, writing
from ..utils.package import command
from ..utils.processes import command_key, is_first_process, set_shared
from ..utils.refusals import first_line
from ..utils.terminal import LastingConsole
from .check_job import check_job
from .data import DataSets
from .models import ModelPool
from .outputs import clear_sweep
from .plan import Plan, make_plan, print_jobs, print_plan
from .stages import Planned
from .track import publish_failure, publish_sweep

log = logging.getLogger(__name__)

_WIDE, _WIDEST = 160, 10_000
"""Characters per line of what is printed to a pipe, and of the texts for files and MLflow."""


class Sweep:
    """Jobs of one command: checked first, summarised and published at the end."""

    def __init__(self, jobs: Sequence[Settings], words: Sequence[Sequence[str]]) -> None:
        self.settings, self.words = jobs, words
        self.pool = ModelPool()
        self.planned: list[Planned] = []  # the jobs, checked; empty in other processes
        self.tracker = Tracker()
        self.folder = Path()
        self.manifest = sweep_state.SweepManifest(jobs=[], single=True, id="")
        self.stopped = ""
        self.jobs = 0  # 0: a single run
        self.held = ExitStack()  # the lock of a sweep that has begun
        self.overrides = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Send other processes what they need: no lock, store, models or functions."""
        return _in_other_process, (self.manifest.id, self.jobs)

    def plan(self, config: DictConfig, hydra: Any) -> Planned:
        """Return the job of a config: checked already, or checked here in another process."""
        if not self.planned:
            return check_job(read_job(config, hydra), self.pool.sets)
        return self.planned[hydra.job.num if self.jobs else 0]

    def start(self, config: DictConfig) -> None:
        """Check the jobs, lock the sweep's folder, and write its manifest."""
        sweep, jobs = is_sweep(config.hydra), self.settings
        distributed = any(job.trainer.distributed for job in jobs)
        set_shared(distributed)
        self.pool.sets = DataSets(download=not jobs[0].plan.only)
        if not is_first_process():
            return
        self.manifest.id = command_key(uuid4().hex)
        self.folder = Path(config.hydra.sweep.dir if sweep else config.hydra.run.dir)
        _check_places(config, self.folder, sweep)
        if sweep and distributed:
            raise ValueError(
                "trainer.devices and trainer.strategy split one job across devices, so they do not "
                "work for a sweep. Give every job one device: trainer=default"
            )
        self.planned = [check_job(job, self.pool.sets) for job in jobs]
        models = (model for job in jobs for model in job.model.values())
        if not jobs[0].plan.only:
            fetch_missing(model.network for model in models if model.weights in (None, "included"))
            open_tracker.cache_clear()
            self.tracker = open_tracker(jobs[0].tracking, jobs[0].dataset.name)
            self.pool.sets.open_all(jobs)
        plan = self._make_plan(has_basic_launcher(config) and not distributed)
        stopping.raise_if_interrupted()
        self.jobs = len(jobs) if sweep else 0
        names = _name_jobs(self.words) if sweep else [jobs[0].job]
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as taken:
            taken.enter_context(held(sweep_state.lock_of_sweep(self.folder)))
            self._open(config, names, plan)
            stopping.set_shutdown_hook(self._stop_early)
            self.held = taken.pop_all()
        if sweep and not has_basic_launcher(config):
            stopping.interrupt_at_once()

    def _make_plan(self, here: bool) -> Plan:
        """Print and return the plan of the command; `plan=only`: exit."""
        jobs, console = self.settings, Console(markup=False, highlight=False, soft_wrap=True)
        plan = make_plan(self.planned, self.pool, here)
        if not all(job.stored for job in plan.jobs):
            cache = Path(jobs[0].cache.dir)
            with writing(cache), held(cache / ".lock"):  # or the file system has no locks
                pass
        if jobs[0].plan.only:
            print_jobs(plan, console)
            sys.exit(any(job.refused for job in plan.jobs))
        refused = {job.refused for job in plan.jobs}
        if len(refused) == 1 and all(refused):
            raise ValueError(*refused)  # the same error awaits every job
        print_plan(plan, console)
        return plan

    def _open(self, config: DictConfig, names: list[str], plan: Plan) -> None:
        """Write the manifest, and pass the decisions of this process on to the jobs."""
        self.overrides = " ".join(public(config.hydra.overrides.task))
        single, key = not self.jobs, self.manifest.id
        self.manifest = sweep_state.SweepManifest(jobs=names, single=single, id=key, work=plan.work)
        sweep_state.write_manifest(self.folder, self.manifest)
        config.sweep = self.manifest.id
        for number, job in enumerate(self.planned):
            settings = job.settings.model_copy(update={"sweep": key})
            tell = partial(plan.tell_time_left, number)
            self.planned[number] = replace(job, settings=settings, on_first_batch=tell)

    def _stop_early(self, error: BaseException) -> None:
        """Print why the command stops early, and summarise the finished jobs."""
        interrupted = isinstance(error, KeyboardInterrupt)
        self.stopped = "Interrupted." if interrupted else f"{first_line(error)}."
        way = "Run the same command to resume."
        print(f"\n{self.stopped} Finished jobs are in {self.folder}. {way}")
        self._sum_up()

    def summarise(self) -> None:
        """Summarise the jobs, and exit with code 1 if one has failed."""
        if not is_first_process():
            return
        stopping.interrupt_at_once()
        try:
            complete = self._sum_up()
        except Exception:  # a second summary would fail, too
            refuse(traceback.format_exc())
        stopping.set_shutdown_hook(lambda error: None)
        if self.stopped:
            raise KeyboardInterrupt
        if not complete:
            sys.exit(1)

    def _sum_up(self) -> bool:
        """Report and publish the jobs; return True if nothing failed."""
        try:
            return self._report_jobs()
        except BaseException as error:  # Ctrl-C too
            self._publish(Results([]), "", f"No summary: {first_line(error) or 'interrupted'}")
            raise
        finally:
            self.held.close()

    def _report_jobs(self) -> bool:
        """Print, write and publish the summary of finished jobs; publish those that failed."""
        begun = sweep_state.job_folders(self.folder, self.manifest)
        jobs = list(begun.values())
        reasons = zip(jobs, map(sweep_state.failure_of, jobs), strict=True)
        failures = {job: failure for job, failure in reasons if failure is not None}
        width = None if sys.stdout.isatty() else _WIDE
        console = LastingConsole(markup=False, soft_wrap=True, width=width)
        finished = [job for job in jobs if job not in failures]
        results = self._rank(_results_of(finished, console), console)
        if self.settings[0].report.tries:
            results = audited(results)
        undone = max(self.jobs, len(begun)) - len(finished)
        paper = paper_text(results, undone) if jobs_of(results) else ""
        if paper:
            console.print(paper.partition("\n")[0], style="bold")
        texts, shown_results = [], primary_of(results)
        for show in (print_matrices, print_rankings, print_alarms, print_audits):
            show(shown_results, console)
            wide = io.StringIO()
            show(shown_results, Console(file=wide, markup=False, soft_wrap=True, width=_WIDEST))
            texts.append(wide.getvalue())
        contents = {PAPER: paper, SUMMARY: "".join(texts).strip("\n")}
        written = self._write_files(results, jobs, contents, console)
        if results.jobs and self.settings[0].report.name != "none":
            written &= self._report(results, console)
        for job, failure in failures.items():
            console.print(f"FAILED {job.name}: {failure}", style="red")
        if any((job / FAILURE).exists() for job in failures):
            console.print("See the traceback in error.txt in each job's folder.")
        missing = 0 if self.stopped else max(0, self.jobs - len(jobs))
        if missing:
            console.print(f"FAILED {missing} of {self.jobs} jobs: their folders are missing.")
        for number, job in begun.items():
            if job in failures:
                settings = self.settings[number]
                publish_failure(self.tracker, self.manifest.id, settings, failures[job])
        failed = f"{len(failures) + missing} of {len(jobs) + missing} jobs failed."
        matrices, rankings, alarms, audits = texts
        note = "".join([audits, rankings, matrices, alarms]).strip("\n")  # may be truncated
        self._publish(results, note, self.stopped or failed * bool(failures or missing))
        if results.jobs and (link := self.tracker.link(self.manifest.id)):
            console.print(link)
        page = self.folder / PAGE
        console.print(f"report: {page}" if page.exists() else f"files: {self.folder}")
        return written and not failures and not missing

    def _publish(self, results: Results, note: str, error: str) -> None:
        """Publish the sweep; `error` says why it has failed."""
        place = self.manifest.id, self.settings, results, self.folder
        publish_sweep(self.tracker, *place, self.overrides, note, error)

    def _rank(self, results: Results, console: Console) -> Results:
        """Rank the attacks beside a preset; if nothing can be compared, print why."""
        preset = self.settings[0].beside
        if preset and results.attacked:
            try:
                paper = self.settings[0].base is not None
                ranks = ranks_of(results) if paper else beside(results.jobs, preset)
                return replace(results, ranks=ranks)
            except ValueError as error:
                console.print(f"beside={preset}: {error}", style="yellow")
        return results

    def _write_files(
        self, results: Results, jobs: Sequence[Path], texts: Mapping[str, str], console: Console
    ) -> bool:
        """Write a sweep's tables, and texts by file; return False if they cannot be written."""
        try:
            if jobs != [self.folder]:  # a single job has already cleared its folder
                clear_sweep(self.folder)
            write_tables(results, self.folder)
            for name in filter(texts.get, texts):
                write_text(self.folder / name, texts[name])
        except WriteError as error:
            console.print(str(error), style="yellow")
            return False
        return True

    def _report(self, results: Results, console: Console) -> bool:
        """Build the report; a failure does not affect the jobs' results."""
        words = f"{command('report')} {shlex.quote(f'folder={self.folder}')}"
        if self.stopped:
            console.print(f"{words} builds a report of the finished jobs.")
            return True
        try:
            from ..report.finished_jobs import write_report  # here: its statistics load slowly

            settings = self.settings[0]
            write_report(results, self.folder, settings.report, Path(settings.cache.dir), console)
        except KeyboardInterrupt:
            self.stopped = reason = "Interrupted."
        except Exception as error:
            if not isinstance(error, ValueError | OSError):
                log.exception("This should not happen; please report it with the lines below.")
            reason = first_line(error)
        else:
            return True
        text = f"No report: {reason} The jobs' files are complete. To build it: {words}"
        console.print(text, style="yellow")
        return False


@lru_cache(maxsize=1)
def _in_other_process(key: str, jobs: int) -> Sweep:
    """Return a command's sweep in a launcher's process, which keeps its models from job to job."""
    command_key(key)
    sweep = Sweep([], [])
    sweep.jobs = jobs
    return sweep


def _results_of(folders: Sequence[Path], console: Console) -> Results:
    """Return the results of the jobs in `folders`; if a file is damaged, name it, and use none."""
    try:
        return results_of(find_jobs(folders, of_jobs=True))
    except ValueError as error:
        console.print(str(error), style="yellow")
        return Results()


def _check_places(config: DictConfig, folder: Path, sweep: bool) -> None:
    """Refuse folders in which jobs would not be found again."""
    key, start = "hydra.sweep.dir" if sweep else "hydra.run.dir", "${hydra:job.num}-"
    if not str(OmegaConf.select(config, key) or "").strip() or config.hydra.output_subdir is None:
        raise ValueError(f"{key} and hydra.output_subdir must not be empty.")
    raw: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if sweep and not str(raw["subdir"]).startswith(start):
        raise ValueError(f"hydra.sweep.subdir must begin with {start}, so that jobs can be found.")
    is_job = (folder / MANIFEST).exists() or job_record(folder) is not None
    files = [*files_of_sweep(folder), *([] if sweep else files_of_job(folder))]
    if files and not is_job:
        raise ValueError(
            f"{folder} is not a sweep's folder, and its file {files[0].name} would be replaced. "
            "Use another folder."
        )


def _name_jobs(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return each job's name: its overrides that are not common to all jobs of the sweep."""
    overrides = [public(job) for job in jobs]
    shared = set.intersection(*map(set, overrides))
    names = [" ".join(word for word in job if word not in shared) for job in overrides]
    return [name or " ".join(job) for name, job in zip(names, overrides, strict=True)]
