"""Recompute a random sample of a card's outcomes on this machine: `python -m src.verify CARD`.

exit codes:
  0          what was recomputed agrees
  1          outcomes, images, weights or stated facts differ
  2 or more  nothing was recomputed, time was up before, or the command failed
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from random import randrange
from typing import Any

from .config.command_line import CommandParser, run_command
from .utils.package import command


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(command("verify"), description=__doc__)
    add = parser.add_argument
    add("card", type=Path, help="the card")
    add("words", nargs="*", metavar="KEY=TEXT", help="a file or code of yours that jobs may use")
    add("--images", type=int, default=16, help="images per job; default: 16")
    add("--jobs", type=int, default=20, help="jobs, drawn at random; default: 20")
    add("--seed", type=int, default=randrange(2**32), help="seed of the sample; default: a new one")
    add("--minutes", type=float, default=float("inf"), help="time limit; default: none")
    return run_command(_verify, parser.parse_intermixed_args, words)


def _verify(**arguments: Any) -> int:
    from .api.verification import verify  # here: loading it takes seconds

    return verify(**arguments)


if __name__ == "__main__":
    sys.exit(main())
