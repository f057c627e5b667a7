"""The command line that builds the report of finished jobs from their tables."""

import sys

import hydra
from omegaconf import DictConfig

from src.main import CONF, command_line
from src.utils import stopping


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="report")
def run(config: DictConfig) -> None:
    """Build one report; an error is one sentence."""
    from src.config.read import read_report_command
    from src.report.command import report

    message = "\nInterrupted. The jobs' files are untouched, and this command builds the report."
    stopping.on_stop(lambda error: print(message))
    try:
        report(read_report_command(config))
    except OSError as error:
        print(f"A file could not be read or written: {error}.", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Run the command line; Ctrl-C or SIGTERM exits with 130."""
    command_line(run)


if __name__ == "__main__":
    main()
