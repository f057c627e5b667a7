"""Print a table of finished jobs for a paper: `python -m src.table`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api.frames import add_sweeps, distinct, warn
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.files import write_text
from .utils.package import command
from .utils.refusals import printable


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(
        command("table"), description="Print a table of finished jobs for a paper."
    )
    add = parser.add_argument
    add_sweeps(parser)
    axes = "one or more of attack, source, target, defence; default"
    add("--rows", nargs="+", default=["source", "attack"], help=f"{axes}: source attack")
    add("--columns", nargs="+", default=["target"], help=f"{axes}: target")
    add(
        "--value",
        default="success",
        help="success (default), accuracy, counts (1711 / 7448 = 22.97%%), confidence, "
        "success_confidence, conditional, gradients, rms, psnr or ssim",
    )
    add(
        "--eps",
        type=float,
        dest="eps_255",
        help="budget in 1/255; default: each job's reference budget",
    )
    add("--protocol", help="images to count; default: each job's; with --tries: target_correct")
    left_out = "leave out white boxes instead of showing them in grey"
    add("--no-average", action="store_false", dest="average", help="leave out the column of means")
    add("--no-white-boxes", action="store_false", dest="white_boxes", help=left_out)
    add("--intervals", action="store_true", help="add 95 %% intervals in small print")
    within = "instead: success within 1, 2, 5, ... candidates"
    add("--tries", action="store_true", help=within)
    clean = "add a first row with the accuracies on all clean images"
    add("--clean", action="store_true", help=clean)
    differences = "add a column of differences from the first in the ranking, with intervals"
    add("--differences", action="store_true", help=differences)
    published = "add grey rows with published success rates, and whether these agree"
    add("--published", action="store_true", help=published)
    add("--defence", help="show only targets behind this defence, such as none")
    add("--wide", action="store_true", help="LaTeX: span both columns of the page")
    add("--small", action="store_true", help="LaTeX: use smaller type")
    alike = "leave out pairs of networks with the same weights, architecture or family"
    add("--no-related", action="store_false", dest="related", help=alike)
    add("--beside", metavar="PRESET", help="rank each attack among stored ones, such as small")
    add("--against", nargs="+", default=[], help="stored attacks that this shows, such as mi")
    add("--to", default="markdown", help="latex, markdown (default) or csv")
    add("--out", type=Path, help="write the table to this file; default: print it")
    return run_command(_print_table, parser.parse_intermixed_args, words)


def _print_table(
    folder: list[Any],
    names: list[Any],
    out: Path | None,
    beside: str | None,
    against: list[str],
    **options: Any,
) -> None:
    from .artifacts.sweep_folders import named_folders
    from .report.beside import beside_text
    from .report.paper import table

    sweeps = folder or [newest_sweep(finished=True)]
    preset = "small" if beside is None else beside
    # First, as it may be refused.
    ranks = beside_text(sweeps, preset, against) if against or beside is not None else ""
    warn(named_folders(*sweeps), dict(names))
    text = printable(str(table(*sweeps, **options, names=distinct(names)))) + ranks
    if out:
        write_text(out, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    sys.exit(main())
