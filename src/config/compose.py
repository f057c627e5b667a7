"""Compose the jobs of a command line before any of them runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from .command import Command, parse_for
from .hydra_internals import split_jobs
from .names import with_files


def overrides_of(hydra: Any) -> list[str]:
    """Return the overrides of a job or command as text, with interpolations as typed."""
    words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return list(words)


def is_sweep(hydra: Any) -> bool:
    """Return True if the command has `-m`, according to Hydra's settings."""
    return str(hydra.mode).endswith("MULTIRUN")


def has_basic_sweeper(config: DictConfig) -> bool:
    """Return True if Hydra's own sweeper runs the jobs, so that their overrides are known."""
    return str(config.hydra.sweeper._target_).endswith("BasicSweeper")


def has_basic_launcher(config: DictConfig) -> bool:
    """Return True if the jobs run one after another in this process."""
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def runs_here(config: DictConfig) -> bool:
    """Return True if Hydra's own launcher or joblib's runs the jobs on this machine."""
    return str(config.hydra.launcher._target_).endswith(("BasicLauncher", "JoblibLauncher"))


def compose_jobs(config: DictConfig) -> Iterator[DictConfig]:
    """Yield the configs of a command's jobs; only the first one if the sweeper is adaptive."""
    if not is_sweep(config.hydra) or not has_basic_sweeper(config):
        yield config
        return
    loader = GlobalHydra.instance().config_loader()
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    for job in split_jobs(parse_for(loader, [*fixed, *overrides_of(config.hydra)])):
        yield loader.load_sweep_config(config, job)


def compose_words(
    folder: Path, overrides: Sequence[str], config_dir: str | Path | None = None
) -> DictConfig:
    """Compose a config from overrides, outside of a Hydra run.

    Args:
        folder: Folder of the primary config.
        overrides: Overrides, as on the command line.
        config_dir: Folder of more config files, as for `--config-dir`.
    """
    command = Command.parse(overrides)
    overrides = with_files(command, [folder, *([] if config_dir is None else [config_dir])])
    if config_dir is not None:
        path = str(Path(config_dir).resolve()).replace("'", "\\'")
        overrides = [f"hydra.searchpath=['file://{path}']", *overrides]
    running = GlobalHydra.instance().hydra  # the caller's Hydra, if any
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            return compose("config", list(overrides), return_hydra_config=True)
    finally:
        if running is not None:
            GlobalHydra.instance().initialize(running)
