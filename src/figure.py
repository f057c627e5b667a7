"""Draw a figure of finished jobs for a paper: `python -m src.figure`."""

import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from inspect import getdoc, signature
from pathlib import Path
from typing import Any

from .api.frames import add_sweeps, distinct, warn
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.package import command

OPTIONS: dict[str, dict[str, Any]] = {
    "attack": {"nargs": "+", "help": "attacks; default: all, or the first in the ranking"},
    "source": {"nargs": "+", "help": "sources; default: all, or that of the most fooled pair"},
    "target": {"nargs": "+", "help": "targets; default: all, or that of the most fooled pair"},
    "eps_255": {"type": float, "help": "budget in 1/255; default: the reference budget"},
    "budgets": {"nargs": "+", "type": float, "help": "budgets in 1/255; default: all stored ones"},
    "protocol": {"help": "images to count; default: the job's protocol"},
    "value": {"help": "success (default), accuracy, confidence or true_confidence"},
    "groups": {"type": int, "help": "number of groups of equal size; default: 3"},
    "bins": {"type": float, "help": "width of fixed groups instead, in points of confidence"},
    "width": {"help": "printed width: 3.3in (default), 84mm or 240pt; the text is set in 7 pt"},
    "height": {"help": "printed height; default: 2in"},
}
"""Options of figures by the keywords that they set; a kind of figure has those that it takes."""


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
        one = kinds.add_parser(
            kind, help=text.partition("\n")[0], description=text, argument_default=SUPPRESS
        )
        keywords = signature(draw).parameters
        if "number" in keywords:
            one.add_argument("number", metavar="image", help="number or file, as in images.csv")
        add_sweeps(one)
        for key in filter(keywords.__contains__, OPTIONS):
            option = "eps" if key in ("eps_255", "budgets") else key
            one.add_argument(f"--{option}", dest=key, metavar=option.upper(), **OPTIONS[key])
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
