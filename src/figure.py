"""Draw a figure of finished jobs for a paper: `python -m src.figure`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api.paper_line import add_sweeps, warn
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.package import command

KINDS = {
    "curves": "success, accuracy or confidence over the budget, a line per attack",
    "ranking": "mean success on other models with its interval, one row per attack",
    "matrix": "success of one attack, sources x targets, with white boxes in grey",
    "cost": "mean success over gradients per image, one point per attack",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(
        command("figure"), description="Draw a figure of finished jobs for a paper."
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="kind")
    for kind, description in KINDS.items():
        kind_parser = kinds.add_parser(kind, help=description, description=f"Draw {description}.")
        add_sweeps(kind_parser)
        add = kind_parser.add_argument
        add("--attack", nargs="+", help="attacks; default: all (matrix: the first in the ranking)")
        add("--source", nargs="+", help="sources; default: their mean (matrix: all)")
        if kind in ("curves", "matrix"):
            add("--target", nargs="+", help="targets; default: mean on other models (matrix: all)")
        if kind == "curves":
            values = "success (default), accuracy, confidence or true_confidence"
            add("--value", default="success", help=values)
        else:
            add(
                "--eps",
                type=float,
                dest="eps_255",
                help="budget in 1/255; default: the reference budget",
            )
        add("--width", default="3.3in", help="printed width in in, cm, mm or pt; default: 3.3in")
        add("--height", default="2in", help="printed height; default: 2in")
        add("--out", type=Path, required=True, help="file to write: .pdf, .svg or .png")
    return run_command(_draw, parser.parse_args, words)


def _draw(kind: str, folder: list[Any], names: list[Any], out: Path, **options: Any) -> None:
    from .api import charts
    from .artifacts.frame_jobs import named_folders
    from .report.printed import writer
    from .utils.files import atomic_write

    write = writer(out)
    sweeps = folder or [newest_sweep(finished=True)]
    chart = getattr(charts, kind)(*sweeps, **options, names=dict(names))
    warn(named_folders(*sweeps), dict(names))
    with atomic_write(out) as temporary:
        temporary.write_bytes(write(chart.to_dict()))


if __name__ == "__main__":
    sys.exit(main())
