"""Draw a figure of finished jobs for a paper: `python -m src.figure`."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from inspect import getdoc, signature, unwrap
from pathlib import Path
from typing import Any

from .api.frames import add_options, add_sweeps, distinct, warn
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.package import command

_ELSEWHERE = {"folder", "more", "number", "names"}
"""Keywords that are no options, or an option of several commands."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(_draw, _parse, words)


def _parse(words: Sequence[str] | None) -> Namespace:
    """Parse the words; refuse an option of other kinds with the kinds that take it."""
    from .report.figure import FIGURES

    about = "Draw a figure of finished jobs for a paper."
    parser = CommandParser(command("figure"), description=about)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="kind")
    for kind, draw in FIGURES.items():
        text = (getdoc(draw) or "").partition("\n\nKeywords:")[0]
        one = kinds.add_parser(kind, help=text.partition("\n")[0], description=text)
        keywords = signature(draw).parameters
        of = next(iter(signature(unwrap(draw)).parameters.values())).annotation
        if "number" in keywords:
            one.add_argument("number", metavar="image", help="number or file, as in images.csv")
        add_sweeps(one)
        options = [option for name, option in keywords.items() if name not in _ELSEWHERE]
        add_options(one, options, draw, of, FIGURES["matrix"], budgets="eps")
        one.add_argument("--out", type=Path, required=True, help="file: .pdf, .svg or .png")
    for option in (word.partition("=")[0] for word in parser.parse_known_args(words)[1]):
        usages = {kind: parser.format_usage() for kind, parser in kinds.choices.items()}
        if takers := " or ".join(kind for kind, usage in usages.items() if f"[{option} " in usage):
            parser.error(f"{option}: only figures of the kind {takers} take it")
    return parser.parse_args(words)


def _draw(
    kind: str, folder: list[Any], names: list[Any], out: Path, number: str = "", **options: Any
) -> None:
    from .artifacts.sweep_folders import named_folders
    from .report.figure import FIGURES
    from .report.printed import writer
    from .utils.files import atomic_write

    write = writer(out)
    sweeps = folder or [newest_sweep(finished=True)]
    first = [number] if number else []
    chart = FIGURES[kind](*first, *sweeps, **options, names=distinct(names))
    warn(named_folders(*sweeps), dict(names))
    with atomic_write(out) as temporary:
        temporary.write_bytes(write(chart.to_dict()))


if __name__ == "__main__":
    sys.exit(main())
