"""All uses of Hydra's private names, with their reasons; they are those of Hydra 1.3.

If one of them vanishes, importing this module fails with its name. pyproject.toml therefore allows
no later version of Hydra.
"""

from argparse import ArgumentParser
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigSource

_read_header = ConfigSource._get_header_dict


def flags_parser() -> ArgumentParser:
    """Return Hydra's parser of flags, the only place that knows which flags take a value.

    The overrides must be known before Hydra runs, because they decide which files it loads.
    """
    return get_args_parser()


def split_jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in the order of Hydra's sweeper.

    All jobs are checked before Hydra starts the first one. If the order changed, jobs would have
    wrong numbers in messages; `test_jobs_of_a_sweep_are_what_hydra_composes` would fail.
    """
    ((*jobs,),) = BasicSweeper.split_arguments([*overrides], None)
    return jobs


# Hydra does not find the first line's package behind a byte order mark, which some editors write.
# If Hydra calls another function, such files are refused again.
ConfigSource._get_header_dict = lambda text: _read_header(text.removeprefix("\ufeff"))  # type: ignore[method-assign, assignment]
