"""Rank the sources of finished sweeps for an unseen target."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.package import command


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(_print_choice, _parse, words)


def _parse(words: Sequence[str] | None) -> Namespace:
    parser = CommandParser(command("sources"), description=__doc__)
    add = parser.add_argument
    add("folder", nargs="*", type=Path, help="folders of sweeps; default: the newest")
    add("--attack", nargs="+", help="attacks to use; default: all that every source has")
    add("--eps", dest="eps_255", type=float, help="budget in 1/255; default: the reference budget")
    related = "leave out pairs of models that share weights, architecture or family"
    add("--no-related", dest="related", action="store_false", help=related)
    return parser.parse_intermixed_args(words)


def _print_choice(folder: list[Path], **options: Any) -> None:
    from .report.source_choice import choose_source

    grids = choose_source(folder or [newest_sweep(finished=True)], **options)
    first, *others = (grid.terminal(ruled=False) for grid in grids)
    lines = [line for grid in others for line in ("", grid)]
    Console(markup=False, highlight=False).print(first, *lines)


if __name__ == "__main__":
    sys.exit(main())
