"""What surrounds the jobs of one command: checks before them, the matrix after them."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pyarrow.parquet as pq
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from src.analysis import matrix, rates
from src.evaluation import PREDICTIONS
from src.job import Job, read_job
from src.pipeline import run_job
from src.report import heat_map, matrix_table, save_figure, write_matrix_csv
from src.tracking import Tracker, open_tracker

log = logging.getLogger(__name__)

FAILURE = "error.txt"
REFUSED = 2


def attempt(config: DictConfig, folder: Path) -> None:
    """Run one job; why it failed, if it did, is noted beside its files, and a sweep goes on.

    Args:
        config: The composed config.
        folder: Where the job's files go.
    """
    try:
        job = read_job(config)
        tracker = open_tracker(job.section("tracking"), config.dataset.name)
        parameters = {
            "source": job.source,
            "targets": ",".join(job.targets),
            "attack": job.attack["name"],
            "budgets_255": ",".join(f"{budget:g}" for budget in job.budgets),
            "seed": job.seed,
        }
        log.info("%s -> %s on %s", job.name, ", ".join(job.targets), config.dataset.name)
        with tracker.job(job.name, config.sweep, parameters) as tracked:
            run_job(job, tracker, tracked, folder)
    except ValueError as error:
        (folder / FAILURE).write_text(f"{error}\n")
        log.debug("where it happened", exc_info=True)
    except Exception as error:
        (folder / FAILURE).write_text(f"{type(error).__name__}: {error}\n")
        log.exception("This should not happen; please report it with the lines below.")


class SweepCallback(Callback):
    """Refuse what cannot run, open the sweep's run, and sum up when its jobs are done.

    A single run is a sweep of one job.
    """

    def __init__(self) -> None:
        self.tracker: Tracker | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the job and open the sweep, on the first process of the job."""
        if _is_first_process():
            self._start(config, [_without_hydra(config)])

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check every job that the command stands for, and open the sweep."""
        self._start(config, _compose_all(config))
        if config.sweep:
            with open_dict(config):
                config.hydra.overrides.task.append(f"sweep={config.sweep}")

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Sum up."""
        if _is_first_process():
            self._end(config, Path(config.hydra.run.dir), [Path(config.hydra.run.dir)])

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Sum up."""
        folder = Path(config.hydra.sweep.dir)
        self._end(config, folder, sorted(path for path in folder.iterdir() if path.is_dir()))

    def _start(self, config: DictConfig, composed: Sequence[DictConfig]) -> None:
        try:
            jobs = [read_job(job) for job in composed]
            if len(jobs) > 1 and any(job.distributed for job in jobs):
                raise ValueError(
                    "trainer.devices and trainer.strategy share one job among several devices, "
                    "which works for a single run only; in a sweep give every job one device "
                    "(trainer=default) and let a Hydra launcher run jobs side by side."
                )
            self.tracker = open_tracker(jobs[0].section("tracking"), config.dataset.name)
            parameters = {
                "command": " ".join(config.hydra.overrides.task),
                "jobs": len(jobs),
                "folder": str(_folder(config)),
            }
            with open_dict(config):
                config.sweep = self.tracker.start_sweep(_folder(config).name, parameters)
        except ValueError as error:
            _stop(str(error))
        except Exception:  # Hydra would turn it into a warning and go on
            _stop(traceback.format_exc())

    def _end(self, config: DictConfig, folder: Path, jobs: Sequence[Path]) -> None:
        try:
            failed = self._sum_up(config, folder, jobs)
        except Exception:  # Hydra would turn it into a warning and report success
            _stop(traceback.format_exc())
        if failed:
            sys.exit(1)

    def _sum_up(self, config: DictConfig, folder: Path, jobs: Sequence[Path]) -> list[Path]:
        """Report the finished jobs, close the sweep, and return the jobs that failed."""
        failed = [job for job in jobs if not (job / PREDICTIONS).exists()]
        done = [job for job in jobs if job not in failed]
        console = Console()
        try:
            report(done, folder, console, figures=config.report.name != "none")
        except ValueError as error:
            console.print(f"No matrix: {error}", style="yellow")
        for job in failed:
            note = job / FAILURE
            reason = note.read_text().strip() if note.exists() else "it left no word why"
            console.print(f"FAILED {job.name}: {reason}", style="red", soft_wrap=True, markup=False)
        console.print(f"files: {folder}", soft_wrap=True)
        if self.tracker is not None and config.sweep:
            files = folder if folder not in jobs else None
            self.tracker.end_sweep(config.sweep, "FAILED" if failed else "FINISHED", files)
            for what, link in self.tracker.links(config.sweep).items():
                console.print(f"{what}: {link}", soft_wrap=True, markup=False)
        return failed


def report(
    jobs: Sequence[Path], folder: Path, console: Console, *, figures: bool
) -> None:
    """Print the matrix of every attack among finished jobs and write it as CSV and heat map.

    Args:
        jobs: Folders of finished jobs.
        folder: Where the files go.
        console: Where the tables are printed.
        figures: Whether to draw heat maps.

    Raises:
        ValueError: The jobs' tables do not fit into one matrix.
    """
    groups: dict[str, dict[str, pd.DataFrame]] = {}
    first: dict[str, Job] = {}
    for path in jobs:
        job = read_job(OmegaConf.load(path / "config.yaml"))
        table = pq.read_table(path / PREDICTIONS).drop_columns(["top5_classes", "top5_confidences"])
        groups.setdefault(job.attack["name"], {})[job.source] = rates(
            table.to_pandas(), job.source, job.targets, job.protocol
        )
        first.setdefault(job.attack["name"], job)
    for attack, by_source in groups.items():
        job = first[attack]
        cells = matrix(by_source, job.standard)
        words = {
            "dataset": str(job.config.dataset.name),
            "attack": attack,
            "protocol": job.protocol,
        }
        table = matrix_table(cells, **words, eps_255=job.standard, width=console.width)
        console.print()
        console.print(table)
        write_matrix_csv(cells, folder / f"matrix-{attack}.csv")
        if figures:
            save_figure(heat_map(cells, **words), folder / f"matrix-{attack}.png")
    console.print()


def _compose_all(config: DictConfig) -> list[DictConfig]:
    """Compose every job of Hydra's basic sweeper; of other sweepers, the first job's config."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
        return [_without_hydra(config)]
    loader = GlobalHydra.instance().config_loader()
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(
        [*fixed, *config.hydra.overrides.task]
    )
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return [_without_hydra(loader.load_sweep_config(config, list(job))) for job in batch]


def _without_hydra(config: DictConfig) -> DictConfig:
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
    return config


def _folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir if _is_sweep(config) else config.hydra.run.dir)


def _is_sweep(config: DictConfig) -> bool:
    return str(config.hydra.mode).endswith("MULTIRUN")


def _is_first_process() -> bool:
    """Tell whether this is not one that Lightning or torchrun started beside the first."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0"


def _stop(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(REFUSED)
