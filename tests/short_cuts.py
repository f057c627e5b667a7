"""Short cuts of libraries, because many tests run jobs of few combinations of config files."""

import os
import pickle
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import omegaconf
import pytest
import vl_convert
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.conf import ConfigSourceInfo
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

from src.utils.hydra_versions import OLD

CONF = Path(__file__).resolve().parents[1] / "conf"
load_whole = ConfigLoaderImpl._load_configuration_impl
_composed: dict[tuple[Any, ...], bytes] = {}


def speed_up_libraries() -> None:
    """Halve what a command costs besides its computing: many tests run some.

    Config files are parsed by libyaml, and each combination of them is composed once. Lightning
    asks for entry points whenever it makes a trainer, and each new cache folder gets a script for
    charts.
    """
    vl_convert.javascript_bundle = cache(vl_convert.javascript_bundle)
    metadata.entry_points = cache(metadata.entry_points)  # type: ignore[assignment]
    if hasattr(omegaconf._utils, "get_yaml_loader"):  # OmegaConf 2.4 takes libyaml by itself
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
            loader = omegaconf._utils.get_yaml_loader()
        omegaconf._utils.get_yaml_loader = lambda: loader
    ConfigLoaderImpl._load_configuration_impl = load_configuration  # type: ignore[method-assign]


def load_configuration(
    loader: ConfigLoaderImpl,
    config_name: str | None,
    overrides: list[str],
    run_mode: RunMode,
    **rest: Any,
) -> DictConfig:
    """Return what `load_whole` returns; each combination of files is composed once per process."""
    words = [_parse(word) for word in overrides]
    fixed = [word for word in words if not word.is_sweep_override()]
    path = [word for word in fixed if word.key_or_group == "hydra.searchpath"]
    files = [word for word in fixed if loader.repository.group_exists(word.key_or_group)]
    values = [word for word in fixed if word not in files and word not in path]
    rest.pop("parsed_overrides", None)  # of Hydra 1.4, which parses them again
    refused = run_mode == RunMode.RUN and len(words) > len(fixed)
    if refused or any(map(Override.is_delete, fixed)):
        return load_whole(loader, config_name, overrides, run_mode, **rest)
    lines = [str(word.input_line) for word in (*path, *files)]
    folders = [source.path for source in loader.repository.get_sources()]
    folders += [str(folder).removeprefix("file://") for word in path for folder in word.value()]
    key = (config_name, run_mode, *lines, *_own_files(folders))
    if key not in _composed:
        _composed[key] = pickle.dumps(load_whole(loader, config_name, lines, run_mode, **rest))
    config: DictConfig = pickle.loads(_composed[key])
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    task = [word for word in words if not word.is_hydra_override()]
    hydra = config.hydra
    hydra.overrides.task = [word.input_line for word in task]
    hydra.overrides.hydra = [word.input_line for word in words if word not in task]
    if OLD:
        hydra.job.override_dirname = ",".join(sorted(str(word.input_line) for word in task))
    hydra.runtime.cwd = os.getcwd()
    if not path:
        hydra.runtime.config_sources = [
            ConfigSourceInfo(source.path, source.scheme(), source.provider)
            for source in loader.repository.get_sources()
        ]
    return config


@cache
def _parse(word: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def _own_files(folders: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the config files that are not the program's."""
    for folder in map(Path, folders):
        if folder != CONF and folder.is_absolute():  # Hydra's own are not
            for file in sorted(folder.rglob("*.yaml")):
                yield str(file.relative_to(folder)), file.read_bytes()
