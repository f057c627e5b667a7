"""Command line that builds the report of finished jobs from their tables."""

import sys

import hydra
from omegaconf import DictConfig

from src.config.command_line import command_line
from src.config.errors import REFUSED
from src.config.resolvers import CONF
from src.utils import stopping


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="report")
def run(config: DictConfig) -> None:
    """Build one report."""
    stopping.interrupt_at_once()
    from src.config.read import read_report_command
    from src.report.finished_jobs import report

    try:
        report(read_report_command(config))
    except ValueError as error:  # else Hydra prints the overrides first
        print(error, file=sys.stderr)
        sys.exit(REFUSED)


def main() -> None:
    """Run the command line; Ctrl-C or SIGTERM exits with 130."""
    sys.argv[1:] = [  # a word alone, no value of a flag, is a sweep's folder
        word if "=" in word or word[:1] in "-+~" or before[:1] == "-" else f"folder={word}"
        for before, word in zip(sys.argv, sys.argv[1:], strict=False)
    ]
    command_line(run)


if __name__ == "__main__":
    main()
