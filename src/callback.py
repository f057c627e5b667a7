"""Hydra callback: read a command's jobs before the slow imports, and report them at the end."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .config.compose import compose_jobs, overrides_of
from .config.errors import describe, refuse
from .config.read import check_applied, read_job
from .utils import stopping

if TYPE_CHECKING:
    from rich.console import Console

    from .config.settings import Settings
    from .report.results import Results
    from .run.sweep import Sweep


class SweepCallback(Callback):
    """Callback that hands the jobs of a command to a `Sweep`; a single run is a sweep of one job.

    Errors in the config are refused before torch and MLflow are imported, which takes seconds.
    """

    sweep: "Sweep"
    running: ClassVar["Sweep"]  # the sweep of the job that runs in this process

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Read and check every job of the command, and open the sweep."""
        try:
            gc.disable()  # garbage collection takes a fifth of the imports' time and frees nothing
            composed = compose_jobs(config)
            jobs = [(overrides_of(job.hydra), read_job(job, job.hydra)) for job in composed]
            check_applied(jobs)
            stopping.raise_if_interrupted()
            from .run.sweep import Sweep

            self.sweep = Sweep(jobs, report)
            self.sweep.start(config)
            gc.freeze()  # later collections skip loaded modules: saves over a second in nine jobs
        except Exception as error:  # Hydra would turn it into a warning and continue
            refuse(describe(error))
        finally:
            gc.enable()

    on_multirun_start = on_run_start

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hand the sweep to the job.

        A process that runs several jobs of another process's sweep keeps its first copy, with the
        models that it has built.
        """
        running = getattr(SweepCallback, "running", None)
        if running is None or running.manifest.id != self.sweep.manifest.id:
            SweepCallback.running = self.sweep

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise the finished jobs, unless an exception ends the command: `shut_down` does it.

        Hydra 1.3 does not call this on an exception, and 1.4 does.
        """
        if sys.exception():
            return
        if hasattr(SweepCallback, "running"):
            del SweepCallback.running  # frees its models
        self.sweep.end()

    on_multirun_end = on_run_end


def report(results: "Results", folder: Path, settings: "Settings", console: "Console") -> None:
    """Write the report of a command's finished jobs into its folder."""
    from .report.finished_jobs import write_report  # here: its statistics load slowly

    write_report(results, folder, settings.report, Path(settings.cache.dir), console)
