"""Jobs of a command line, composed before any of them runs."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig


def is_sweep(config: DictConfig) -> bool:
    """Tell whether a command was given `-m`."""
    return str(config.hydra.mode).endswith("MULTIRUN")


def has_basic_sweeper(config: DictConfig) -> bool:
    """Tell whether Hydra's own sweeper runs the jobs, whose overrides are known beforehand."""
    return str(config.hydra.sweeper._target_).endswith("BasicSweeper")


def runs_here(config: DictConfig) -> bool:
    """Tell whether the jobs of a sweep run on this machine, by Hydra's own launcher or joblib's."""
    return str(config.hydra.launcher._target_).endswith(("BasicLauncher", "JoblibLauncher"))


def compose_jobs(config: DictConfig) -> list[DictConfig]:
    """Compose a running command's jobs; only the first if the sweeper chooses as it goes."""
    if not is_sweep(config) or not has_basic_sweeper(config):
        return [config]
    if (most := config.hydra.sweeper.max_batch_size) is not None and most < 1:
        raise ValueError(f"hydra.sweeper.max_batch_size={most} must be 1 or more, or null.")
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    choices = _choices([*fixed, *config.hydra.overrides.task])
    return [
        compose(
            config.hydra.job.config_name,
            [*config.hydra.overrides.hydra, *words],
            return_hydra_config=True,
        )
        for words in itertools.product(*choices)
    ]


def check_groups(words: Sequence[str], folder: Path) -> None:
    """Refuse a list, a number or null for a group, for which Hydra has no sentence."""
    for word in words:
        group, _, value = word.partition("=")
        if group in ("model", "experiment") or not (group and (folder / group).is_dir()):
            continue
        if re.fullmatch(r"\[.*\]|[\d.]+|null", value):
            names = ", ".join(sorted(path.stem for path in (folder / group).glob("*.yaml")))
            several = {
                "epsilon": f" The budgets are epsilon.grid=[{value.strip('[]')}].",
                "attack": " With -m before the keys, attack=fgsm,bim runs each in turn.",
            }
            raise ValueError(f"{word} names no file of {group}: {names}.{several.get(group, '')}")


def _choices(words: list[str]) -> list[list[str]]:
    """Return for each key the overrides that it has in the jobs of a sweep; the last word wins."""
    choices = {}
    loader = GlobalHydra.instance().config_loader()  # finds what glob(...) names
    for override in OverridesParser.create(loader).parse_overrides(words):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    return list(choices.values())


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
