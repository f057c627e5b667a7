"""All uses of Hydra's private names, with their reasons. `make canary` tries the next version.

If a name of a later version is gone, importing this module or its test fails with that name.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.grammar.gen.OverrideLexer import InputStream, OverrideLexer  # type: ignore[attr-defined]
from hydra.plugins.config_source import ConfigSource
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from ..utils.hydra_versions import OLD

flags_parser = get_args_parser
"""Function that returns Hydra's parser of flags, which alone knows the flags that take a value.

The overrides must be known before Hydra runs, because they decide which files it loads.
"""
MOST_VALUES = 100_000
"""Most values of one key in a sweep; more would take minutes to list, and all memory."""
_read_header = ConfigSource._get_header_dict
_load_job = ConfigLoaderImpl.load_sweep_config
_list_options = ConfigRepository.get_group_options
# Hydra does not find the first line's package behind a byte order mark, which some editors write.
# If Hydra stops calling this function, such files are refused again.
ConfigSource._get_header_dict = lambda text: _read_header(text.removeprefix("\ufeff"))  # type: ignore[method-assign, assignment]


def _list_choices(*arguments: Any, **keywords: Any) -> list[str]:
    """Return the options of a group, without the files that only other files include."""
    options = _list_options(*arguments, **keywords)
    return [option for option in options if not option.startswith("_")]


# `--help`, refusals and sweeps with `glob(*)` list options. If Hydra stops calling this function,
# they list bases such as `_small_network`, too.
ConfigRepository.get_group_options = _list_choices  # type: ignore[method-assign]


def value_tokens(value: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each token in an override's value, such as `("INT", 0, 4)`.

    Hydra's parser changes the text of numbers, and only its lexer knows where they are.
    """
    lexer = OverrideLexer(InputStream(value))
    lexer.mode(OverrideLexer.VALUE_MODE)
    for token in lexer.getAllTokens():
        yield OverrideLexer.symbolicNames[token.type], token.start, token.stop + 1


def split_jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in the order of Hydra's sweeper.

    All jobs are checked before the first one starts. If Hydra changed the order, the sweeper and
    this program would number the jobs differently.

    Raises:
        ValueError: A sweep has no value, as with a pattern that no file has, or far too many.
    """
    for override in filter(Override.is_sweep_override, overrides):
        values = 0
        with suppress(ValueError):  # a range with step 0
            if override.is_discrete_sweep():
                values = sum(1 for _ in islice(override.sweep_string_iterator(), MOST_VALUES + 1))
        if not 0 < values <= MOST_VALUES:
            number = f"more than {MOST_VALUES:,} values" if values else "no value to run a job for"
            raise ValueError(f"{override.input_line}: it has {number}.")
    ((*jobs,),) = BasicSweeper.split_arguments([*overrides], None)
    return jobs


def speed_up(parse: Callable[[str], Override], multirun: bool) -> None:
    """Compose each combination of files once per command, and check each job once.

    Hydra composes each job three times, 0.2 s each. This saves 3 s of CPU in six jobs. If Hydra
    stops calling these functions, commands are slower.

    Args:
        parse: Parser of an override.
        multirun: The command has `-m`, so Hydra need not compose a config to learn its mode.
    """
    if multirun:
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    ConfigLoaderImpl.load_sweep_config = job_composer(parse)  # type: ignore[method-assign]
    Sweeper.validate_batch_is_legal = lambda *_: None  # type: ignore[method-assign]


def job_composer(parse: Callable[[str], Override]) -> Callable[..., DictConfig]:
    """Return a faster `ConfigLoaderImpl.load_sweep_config` for the jobs of one command.

    Each combination of files is composed once. Values are set in a copy, by Hydra's own rules.
    """
    bases: dict[tuple[str, ...], bytes] = {}

    @cache
    def is_group(loader: Any, key: str) -> bool:
        return bool(loader.get_group_options(key))

    def compose_job(loader: Any, command: DictConfig, arguments: list[str]) -> DictConfig:
        overrides = [parse(word) for word in arguments]
        values = [word for word in overrides if not is_group(loader, word.key_or_group)]
        if any(word.is_hydra_override() for word in values):
            return _load_job(loader, command, arguments)
        files = [str(word.input_line) for word in overrides if word not in values]
        if tuple(files) not in bases:
            bases[tuple(files)] = pickle.dumps(_load_job(loader, command, files))
        job: DictConfig = pickle.loads(bases[tuple(files)])  # four times as fast as a copy
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
        job.hydra.overrides.task = list(arguments)
        if OLD:  # 1.4 computes it when it is read
            style = job.hydra.job.config.override_dirname
            named = [word for word in overrides if word.key_or_group not in style.exclude_keys]
            name = style.item_sep.join(sorted(str(word.input_line) for word in named))
            job.hydra.job.override_dirname = name.replace("=", style.kv_sep)
        OmegaConf.copy_cache(command, job)  # e.g. the time in the folder's name
        return job

    return compose_job
