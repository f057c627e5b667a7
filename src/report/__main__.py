"""Build the report of finished jobs from their tables: `python -m src.report`."""

import sys

import hydra
from omegaconf import DictConfig

from src.config.command import Command, quoted
from src.config.command_line import command_line
from src.config.errors import refuse
from src.config.resolvers import CONF
from src.utils import stopping


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="report")
def run(config: DictConfig) -> None:
    """Build a report from the composed config; exit with 2 if the settings are refused."""
    stopping.interrupt_at_once()
    from src.config.read import read_report_command
    from src.report.finished_jobs import report

    try:
        report(read_report_command(config))
    except ValueError as error:  # otherwise Hydra prints the overrides first
        refuse(str(error))


def _complete_words() -> None:
    """Put `folder=` before bare words, which are folders of sweeps, for Hydra."""
    words = []
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        if word[:1] == "-" or before[:1] == "-":  # a flag or its value
            words.append(word)
        else:
            is_override = "=" in word or word[:1] in "+~"
            words += Command.parse([word if is_override else f"folder={quoted(word)}"]).words
    sys.argv[1:] = words


def main() -> None:
    """Run the command line; exit with 130 on Ctrl-C or SIGTERM."""
    command_line(_complete_words, run)


if __name__ == "__main__":
    main()
