"""Jobs of a command line, composed before any of them runs."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig


def is_sweep(hydra: Any) -> bool:
    """Tell whether a command was given `-m`, by its Hydra's settings."""
    return str(hydra.mode).endswith("MULTIRUN")


def has_basic_sweeper(config: DictConfig) -> bool:
    """Tell whether Hydra's own sweeper runs the jobs, whose overrides are known beforehand."""
    return str(config.hydra.sweeper._target_).endswith("BasicSweeper")


def runs_here(config: DictConfig) -> bool:
    """Tell whether the jobs of a sweep run on this machine, by Hydra's own launcher or joblib's."""
    return str(config.hydra.launcher._target_).endswith(("BasicLauncher", "JoblibLauncher"))


def compose_jobs(config: DictConfig) -> Iterator[DictConfig]:
    """Yield the configs of a command's jobs; only the first if the sweeper chooses as it goes.

    Files are composed once for each choice of them, and values set in a copy, by Hydra's own rule.
    """
    if not is_sweep(config.hydra) or not has_basic_sweeper(config):
        yield config
        return
    if (most := config.hydra.sweeper.max_batch_size) is not None and most < 1:
        raise ValueError(f"hydra.sweeper.max_batch_size={most} must be 1 or more, or null.")
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(loader)
    parsed, options = cache(parser.parse_override), cache(loader.get_group_options)
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words = parser.parse_overrides([*fixed, *config.hydra.overrides.task])
    bases: dict[tuple[str, ...], DictConfig] = {}
    for job_words in BasicSweeper.split_arguments(words, None)[0]:
        overrides = [parsed(word) for word in job_words]
        values = [each for each in overrides if not options(each.key_or_group)]
        files = tuple(str(each.input_line) for each in overrides if options(each.key_or_group))
        if files not in bases:
            choices = [*config.hydra.overrides.hydra, *files]
            name = config.hydra.job.config_name
            bases[files] = compose(name, choices, return_hydra_config=True)
        job = deepcopy(bases[files])
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
        job.hydra.overrides.task = job_words
        yield job


def check_groups(words: Sequence[str], folder: Path) -> None:
    """Refuse what is no name for a group of files, for which Hydra has no sentence."""
    given = [word for word in words if "=" in word and not word.startswith("-")]
    for override in OverridesParser.create().parse_overrides(given):
        group = override.key_or_group
        if group in ("model", "experiment") or not (folder / group).is_dir():
            continue
        if not override.is_sweep_override() and not isinstance(override.value(), str):
            names = ", ".join(sorted(path.stem for path in (folder / group).glob("*.yaml")))
            raise ValueError(
                f"{override.input_line} names no file of {group}: {names}. Keys are set by "
                f"{group}.KEY=VALUE, and -m before the words runs {group}=A,B in turn."
            )


def compose_words(
    folder: Path, words: Sequence[str], config_dir: str | Path | None = None
) -> DictConfig:
    """Compose the config of a command line's words where no Hydra runs.

    `folder` holds the primary config, `config_dir` more files, as `--config-dir` names it.
    """
    if config_dir is not None:
        path = str(Path(config_dir).resolve()).replace("'", "\\'")
        words = [f"hydra.searchpath=['file://{path}']", *words]
    running = GlobalHydra.instance().hydra  # the caller's own
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            return compose("config", list(words), return_hydra_config=True)
    finally:
        if running is not None:
            GlobalHydra.instance().initialize(running)
