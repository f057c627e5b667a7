"""Sweep of jobs in place of a sweeper of Hydra's: compose, check, plan, launch, summarise."""

import gc
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .config.command import Command
from .config.command_line import ignore_harmless_warnings
from .config.hydra_internals import Loader, context_of, split_jobs
from .config.read import check_applied, read_job
from .utils import stopping

if TYPE_CHECKING:
    from .run.sweep import Sweep


def run_sweep(loader: Any, words: list[str]) -> None:
    """Run the jobs of a command with `-m`: compose, check and plan all first, summarise last.

    It stands for a sweeper of Hydra's. Hydra would instantiate one from a package named
    `hydra_plugins` only, which each program with Hydra in this environment would import.
    """
    words = [*words, "hydra.mode=MULTIRUN"]
    config = loader.load_configuration("config", words, RunMode.MULTIRUN)
    settings = config.hydra.sweeper
    if not str(settings._target_).endswith("BasicSweeper"):
        raise ValueError("hydra/sweeper: the program has a sweeper. Leave this word out.")
    fixed = [f"{key}={value}" for key, value in (settings.params or {}).items()]
    jobs = split_jobs(loader, [*fixed, *Command.of(config.hydra).words])
    if config.base is not None:
        from .run.paper import paper_jobs  # here: loads torch

        plan = partial(_plan, loader, config)
        jobs = paper_jobs(jobs, plan, lambda: loader.catalogue.files["model"])
    sweep = begin(config, (loader.load_sweep_config(config, job) for job in jobs))
    OmegaConf.save(config, sweep.folder / "multirun.yaml")
    context = context_of(loader, config)
    launcher = Plugins.instance().instantiate_launcher(context, partial(_run, sweep), config)
    size = settings.max_batch_size or len(jobs)
    for first in range(0, len(jobs), size):
        batch = [[*job, f"sweep='{sweep.manifest.id}'"] for job in jobs[first : first + size]]
        for job in launcher.launch(batch, initial_job_idx=first):
            _ = job.return_value  # raises an error that the job's folder does not have
    sweep.summarise()


def _plan(loader: Any, config: DictConfig, words: Sequence[str]) -> Any:
    """Check a job of some overrides."""
    from .run.check_job import check_job  # here: loads torch
    from .run.data import DataSets

    job = loader.load_sweep_config(config, words)
    return check_job(read_job(job, job.hydra), DataSets())


def run_alone(loader: Loader, words: list[str]) -> None:
    """Run a single job, as a sweep of one."""
    config = loader.load_configuration("config", words, RunMode.RUN)
    config.hydra.mode = RunMode.RUN
    if config.base is not None or config.hydra.sweeper.params:
        raise ValueError("This command is a sweep of several jobs: add -m.")
    sweep = begin(config, [config])
    context = context_of(loader, config)
    _ = run_job(partial(_run, sweep), config, "hydra.run.dir", None, context).return_value
    sweep.summarise()


def begin(config: DictConfig, composed: Iterable[DictConfig]) -> "Sweep":
    """Check and plan the jobs of a command, and open their sweep.

    Errors in a config are refused before torch and MLflow are imported, which takes seconds.
    """
    gc.disable()  # garbage collection takes a fifth of the imports' time and frees nothing
    try:
        jobs = [(read_job(job, job.hydra), Command.of(job.hydra)) for job in composed]
        settings, commands = zip(*jobs, strict=True)
        check_applied(commands[0], settings)
        stopping.raise_if_interrupted()
        from .run.sweep import Sweep

        sweep = Sweep(settings, [command.words for command in commands])
        sweep.start(config)
        gc.freeze()  # later collections skip loaded modules: saves over a second in nine jobs
        return sweep
    finally:
        gc.enable()


def _run(sweep: "Sweep", config: DictConfig) -> None:
    """Run one job; a failure is recorded beside the job's files, and the sweep continues."""
    stopping.raise_if_interrupted()
    ignore_harmless_warnings()
    os.chdir(HydraConfig.get().runtime.cwd)  # where the plan was made, see `hydra.job.chdir`
    from .run.job import attempt  # here: loads torch
    from .utils.processes import keep_freed_memory

    keep_freed_memory()
    attempt(config, Path(HydraConfig.get().runtime.output_dir), sweep)
