"""The jobs that one command line stands for, composed before any of them runs."""

import itertools

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig


def has_basic_sweeper(config: DictConfig) -> bool:
    """Tell whether Hydra's own sweeper runs the jobs, whose overrides are known beforehand."""
    return str(config.hydra.sweeper._target_).endswith("BasicSweeper")


def compose_jobs(config: DictConfig) -> list[DictConfig]:
    """Compose every job of a sweep; of a sweeper that chooses as it goes, the first job alone.

    Args:
        config: What Hydra composed for the sweep, with its own section; Hydra must be running.
    """
    if not has_basic_sweeper(config):
        return [config]
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


def _choices(words: list[str]) -> list[list[str]]:
    """Return for each key the overrides that it has in the jobs of a sweep; the last word wins."""
    choices = {}
    for override in OverridesParser.create().parse_overrides(words):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    return list(choices.values())
