"""Build the report of finished jobs from their tables: `python -m src.report`."""

import sys
from collections.abc import Sequence
from os.path import exists
from typing import Any

import hydra
from omegaconf import DictConfig

from ..config.command import Command, quoted
from ..config.command_line import parse_flags, run_command
from ..config.errors import refuse
from ..config.resolvers import CONF
from ..utils.hydra_versions import VERSION_BASE


@hydra.main(config_path=str(CONF), config_name="report", **VERSION_BASE)
def run(config: DictConfig) -> None:
    """Build a report from the composed config; exit with 2 if the settings are refused."""
    from ..config.read import read_report_command
    from .finished_jobs import report

    try:
        report(read_report_command(config))
    except ValueError as error:  # otherwise Hydra prints the overrides first
        refuse(str(error))


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(_start, parse_flags, words)


def _start(overrides: list[str], flags: list[str], **keywords: Any) -> Any:
    """Make bare words, which are folders of sweeps, one `folder=[...]`, and hand all to Hydra."""
    words = [word for word in overrides if ("=" in word or word[:1] in "+~") and not exists(word)]
    if folders := [quoted(word) for word in overrides if word not in words]:
        words.append(f"folder=[{','.join(folders)}]")
    sys.argv[1:] = [*flags, *Command.parse(words).words]
    try:
        run()
    except SystemExit as stop:  # of Hydra's --help
        return stop.code
    return None


if __name__ == "__main__":
    sys.exit(main())
