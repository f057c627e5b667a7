"""All uses of Hydra's private names, with their reasons. `make canary` tries the next version.

If a name of a later version is gone, importing this module or its test fails with that name.
"""

import pickle
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigSource
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from ..utils.hydra_versions import OLD, VERSION_BASE
from .catalogue import Catalogue
from .command import parse
from .resolvers import CONF

flags_parser = get_args_parser
"""Function that returns Hydra's parser of flags, which alone knows the flags that take a value."""
MOST_VALUES = 100_000
"""Most values of one key in a sweep; more would take minutes to list, and all memory."""
_read_header = ConfigSource._get_header_dict
# Hydra does not find the first line's package behind a byte order mark, which some editors write.
# If Hydra stops calling this function, such files are refused again.
ConfigSource._get_header_dict = lambda text: _read_header(text.removeprefix("\ufeff"))  # type: ignore[method-assign, assignment]


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configs, with the files of named models and defences.

    The jobs of a sweep share what is composed of the same files: values are set in a copy, by
    Hydra's own rules. Composing each job alone would take ten times as long.

    Args:
        sources: Names in the `source` of the command, including those of all jobs of a sweep.
        more: Folder of more config files, as for `--config-dir`.
    """

    def __init__(self, sources: Sequence[str] = (), more: str | Path | None = None) -> None:
        if OLD:
            version.setbase(*VERSION_BASE.values())
        setup_globals()
        path = create_config_search_path(str(CONF))
        if more is not None:
            if not Path(more).is_dir():  # Hydra would only warn
                raise ValueError(f"config_dir={more}: there is no such folder.")
            place = f"file://{Path(more).resolve()}"
            path.prepend("command-line", place, SearchPathQuery(provider="schema"))
        super().__init__(path)
        self.sources = sources
        self.catalogue: Catalogue | None = None
        self.composed: dict[tuple[str, ...], bytes] = {}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        *rest: Any,
        **named: Any,
    ) -> DictConfig:
        """Compose a config; that of a sweep as a whole lacks the models."""
        config = super().load_configuration(config_name, overrides, run_mode, *rest, **named)
        return self._add_named(config) if run_mode == RunMode.RUN and config_name else config

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """Compose the config of a sweep's job."""
        hydra, overrides = master_config.hydra, [parse(word) for word in sweep_overrides]
        values = [word for word in overrides if not self.repository.group_exists(word.key_or_group)]
        files = [str(word.input_line) for word in overrides if word not in values]
        words = (*hydra.overrides.hydra, *files)
        if words not in self.composed:
            name = hydra.job.config_name
            config = super().load_configuration(name, [*words], RunMode.RUN)
            self.composed[words] = pickle.dumps(config)
        job: DictConfig = pickle.loads(self.composed[words])  # four times as fast as a copy
        self._apply_overrides_to_config(values, job)
        job.hydra.overrides.task = list(sweep_overrides)
        if OLD:  # 1.4 computes it when it is read
            style = job.hydra.job.config.override_dirname
            named = [word for word in overrides if word.key_or_group not in style.exclude_keys]
            name = style.item_sep.join(sorted(str(word.input_line) for word in named))
            job.hydra.job.override_dirname = name.replace("=", style.kv_sep)
        OmegaConf.copy_cache(master_config, job)  # e.g. the time in the folder's name
        return self._add_named(job)

    def get_group_options(self, *group: Any, **named: Any) -> list[str]:
        """Return the options of a group, without the files that only other files include."""
        options = super().get_group_options(*group, **named)
        return [option for option in options if not option.startswith("_")]

    def _add_named(self, config: DictConfig) -> DictConfig:
        sources = config.hydra.runtime.config_sources
        folders = [source.path for source in sources if source.schema == "file"]
        if self.catalogue is None or self.catalogue.folders != folders:
            self.catalogue = Catalogue(folders)
        self.catalogue.add_named(config, self.sources)
        return config


def split_jobs(loader: Loader, words: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a sweep; the values of the last key change first.

    Raises:
        ValueError: A sweep has no value, as with a pattern that no file has, or far too many.
    """
    choices = dict[str, list[str]]()
    for word in words:
        override = replace(parse(word), config_loader=loader)  # lists files for `glob(...)`
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
            continue
        values: list[str] = []
        with suppress(ValueError):  # a range with step 0
            if override.is_discrete_sweep():
                values = [*islice(override.sweep_string_iterator(), MOST_VALUES + 1)]
        if not 0 < len(values) <= MOST_VALUES:
            number = f"more than {MOST_VALUES:,} values" if values else "no value to run a job for"
            raise ValueError(f"{override.input_line}: it has {number}.")
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in product(*choices.values())]


def show(loader: Loader, arguments: Namespace) -> bool:
    """Print what a flag such as `--help` or `--cfg` asks for; return False if there is none."""
    hydra, name, words = Hydra("main", loader), "config", arguments.overrides
    if arguments.help:
        hydra.app_help(name, flags_parser(), arguments)
    elif arguments.hydra_help:
        hydra.hydra_help(name, flags_parser(), arguments)
    elif arguments.cfg:
        hydra.show_cfg(name, words, arguments.cfg, arguments.package, arguments.resolve)
    elif arguments.info:
        hydra.show_info(arguments.info, name, words)
    elif arguments.shell_completion:
        hydra.shell_completion(name, words)
    else:
        return False
    return True


def context_of(loader: Loader, config: DictConfig) -> HydraContext:
    """Return what Hydra's launchers and jobs need, with the callbacks that a config names."""
    return HydraContext(loader, Callbacks(config))
