"""Compose a config from the words of a command, and what Hydra's section of it says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig

from .command import Command
from .hydra_internals import Loader


def compose_words(overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """Compose a config from overrides, outside of a command.

    Args:
        overrides: Overrides, as on the command line.
        config_dir: Folder of more config files, as for `--config-dir`.

    Raises:
        ValueError: There is no such folder.
    """
    command = Command.parse(overrides)
    loader = Loader(command.sources, config_dir)
    return loader.load_configuration("config", command.words, RunMode.RUN, from_shell=False)


def is_sweep(hydra: Any) -> bool:
    """Return True if the command has `-m`, according to Hydra's settings."""
    return str(hydra.mode).endswith("MULTIRUN")


def has_basic_launcher(config: DictConfig) -> bool:
    """Return True if the jobs run one after another in this process."""
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")
