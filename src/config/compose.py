"""Compose the jobs of a command line before any of them runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig

from src.config.fields import distinct
from src.config.names import with_files

_read_header = ConfigSource._get_header_dict
# Hydra does not find the first line's package behind a byte order mark, which some editors write.
ConfigSource._get_header_dict = lambda text: _read_header(text.removeprefix("\ufeff"))  # type: ignore[method-assign, assignment]


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
    texts = [*fixed, *config.hydra.overrides.task]
    overrides = OverridesParser.create(loader).parse_overrides(texts)
    for job in BasicSweeper.split_arguments(overrides, None)[0]:
        yield loader.load_sweep_config(config, job)


def first_job(arguments: Sequence[str]) -> list[str]:
    """Return the overrides of a sweep's first job."""
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    return list(BasicSweeper.split_arguments(overrides, None)[0][0])


def check_words(arguments: Sequence[str], folder: Path) -> None:
    """Refuse repeated overrides of attack or source, and options without a file in their group."""
    if wrong := [word for word in arguments if word.encode(errors="ignore").decode() != word]:
        raise ValueError(f"{wrong[0]}: it is not valid UTF-8. Rename the file or folder.")
    settings = [word for word in arguments if not word.startswith("~")]
    overrides = OverridesParser.create().parse_overrides(settings)
    keys = [override.get_key_element() for override in overrides]
    distinct(tuple(key for key in keys if key in ("attack", "source")))
    for override in overrides:
        group = override.key_or_group
        if group in ("model", "defence", "experiment") or not (folder / group).is_dir():
            continue
        if not override.is_sweep_override() and not isinstance(override.value(), str):
            names = ", ".join(sorted(path.stem for path in (folder / group).glob("*.yaml")))
            raise ValueError(
                f"{override.input_line} is not an option of {group}: {names}. To set a key, use "
                f"{group}.KEY=VALUE; to run two options, use -m {group}=A,B."
            )


def compose_words(
    folder: Path, overrides: Sequence[str], config_dir: str | Path | None = None
) -> DictConfig:
    """Compose a config from overrides, outside of a Hydra run.

    Args:
        folder: Folder of the primary config.
        overrides: Overrides, as on the command line.
        config_dir: Folder of more config files, as for `--config-dir`.
    """
    overrides = with_files(overrides, [folder, *([] if config_dir is None else [config_dir])])
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
