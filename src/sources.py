"""Rank the sources of finished sweeps for an unseen target."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.package import command


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(command("sources"), description=__doc__)
    parser.add_argument(
        "folder", nargs="*", type=Path, help="folders of sweeps; default: the newest"
    )
    parser.add_argument(
        "--attack", nargs="+", help="attacks to use; default: all that every source has"
    )
    parser.add_argument(
        "--eps", type=float, dest="eps_255", help="budget in 1/255; default: the reference budget"
    )
    alike = "leave out pairs of networks with the same weights, architecture or family"
    parser.add_argument("--no-related", action="store_false", dest="related", help=alike)
    return run_command(_print_choice, parser.parse_intermixed_args, words)


def _print_choice(folder: list[Path], **options: Any) -> None:
    from .report.source_choice import choose_source, source_tables

    choice = choose_source(folder or [newest_sweep(finished=True)], **options)
    ranking, choices = (grid.terminal(ruled=False) for grid in source_tables(choice))
    Console(markup=False, highlight=False).print(ranking, "", choices)


if __name__ == "__main__":
    sys.exit(main())
