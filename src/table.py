"""Print a table of finished jobs for a paper: `python -m src.table`."""

import re
import sys
from argparse import SUPPRESS, ArgumentError, Namespace
from collections.abc import Mapping, Sequence
from inspect import Parameter
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
    return run_command(_print_table, _parse, words)


def _parse(words: Sequence[str] | None) -> Namespace:
    """Parse the words; `table` refuses an option that the chosen table does not take."""
    from .report.named_tables import TABLES, keywords_of

    choice: dict[str, Any] = {"dest": "name", "metavar": "NAME", "default": "transfer"}
    choice["help"] = f"{', '.join(TABLES)}, or MODULE.FUNCTION of yours; default: transfer"
    first = CommandParser(command("table"), add_help=False)
    first.add_argument("--as", **choice)
    name = first.parse_known_args(words)[0].name
    parser = CommandParser(
        command("table"),
        description="Print a table of finished jobs for a paper.",
        argument_default=SUPPRESS,
    )
    add_sweeps(parser)
    add = parser.add_argument
    add("--as", **choice)
    add("--to", default="markdown", help="latex, markdown (default), html or csv")
    add("--out", type=Path, help="write the table to this file; default: print it")
    add("--wide", action="store_true", help="LaTeX: span both columns of the page")
    add("--small", action="store_true", help="LaTeX: use smaller type, less space between columns")
    related = "leave out pairs of networks with the same weights, architecture or family"
    add("--no-related", dest="related", action="store_false", help=related)
    add("--beside", metavar="PRESET", help="rank each attack among stored ones, such as small")
    add("--against", nargs="+", help="stored attacks that this shows, such as mi")
    if name in TABLES:
        _add_contents(parser)
    else:
        _add_keywords(parser, keywords_of(name))
    return parser.parse_intermixed_args(words)


def _add_contents(parser: CommandParser) -> None:
    """Add the options of the tables of `TABLES`."""
    add = parser.add_argument_group("contents of the table transfer").add_argument
    axes = "of attack, source (both by default), target, defence and budget (all budgets)"
    add("--rows", nargs="+", help=f"one or more {axes}")
    add("--columns", nargs="+", help="one or more of the same; default: target")
    value = "success (default), accuracy (robust accuracy), confidence, success_confidence (over "
    value += "fooled images), conditional (success on images that fool the source), gradients (per "
    value += "image), counts (1711 / 7448 = 22.97%%); with diagnostics=full also rms, psnr, ssim"
    add("--value", help=value)
    for option, text in {
        "average": "leave out the column with the mean over targets",
        "white-boxes": "leave out white boxes instead of showing them in grey",
    }.items():
        add(f"--no-{option}", dest=option.replace("-", "_"), action="store_false", help=text)
    for option, text in {
        "intervals": "add the 95 %% intervals of pairs and means in small print",
        "clean": "add a first row with the accuracies on all clean images",
        "differences": "add the differences from the first attack in the ranking, in points",
        "networks": "fold the trainings of one network into one row or column; also of sources",
    }.items():
        add(f"--{option}", action="store_true", help=text)
    add = parser.add_argument_group("contents of the tables transfer and tries").add_argument
    add("--eps", dest="eps_255", type=float, help="budget in 1/255; default: the reference budget")
    add("--protocol", help="images to count; default: each job's protocol")
    add("--defence", help="show only targets behind this defence, such as none")
    add = parser.add_argument_group("contents of the tables matrix and defences").add_argument
    add("--attack", help="the attack; default: the first")
    add = parser.add_argument_group("contents of the table paper").add_argument
    add("--question", help="question of experiment=paper that the table answers")


def _add_keywords(parser: CommandParser, keywords: Mapping[str, Parameter]) -> None:
    """Add an option for each keyword of a user's function, read as its type and default say.

    Raises:
        ValueError: A keyword has the name of an option that the command has for all functions.
    """
    for key, keyword in keywords.items():
        if key == "names":  # which all tables have
            continue
        default, option = keyword.default, key.replace("_", "-")
        kind: dict[str, Any] = {"dest": key, "required": default is Parameter.empty}
        kinds = {*re.findall(r"\w+", f"{keyword.annotation} {type(default).__name__}")}
        if isinstance(default, bool):
            option = f"no-{option}" if default else option
            kind["action"] = "store_false" if default else "store_true"
        else:
            kind["type"] = float if "float" in kinds else int if "int" in kinds else str
            kind |= {"nargs": "+"} if {"Sequence", "list", "tuple"} & kinds else {}
        try:
            parser.add_argument(f"--{option}", **kind)
        except ArgumentError as error:
            raise ValueError(f"{key} is an option of every table. Rename the keyword.") from error


def _print_table(
    folder: list[Any],
    names: list[Any],
    out: Path | None = None,
    beside: str | None = None,
    against: Sequence[str] = (),
    **options: Any,
) -> None:
    from .artifacts.sweep_folders import named_folders
    from .report.beside import beside_text
    from .report.named_tables import table

    numbers = [str(name) for name in folder if str(name).replace(".", "").isdigit()]
    if numbers and "eps_255" in options and not Path(numbers[0]).exists():
        raise ValueError(f"--eps takes one budget, not {numbers[0]}, too. All: --columns budget.")
    sweeps = folder or [newest_sweep(finished=True)]
    preset = "small" if beside is None else beside
    # First, as it may be refused.
    ranks = beside_text(sweeps, preset, against) if against or beside is not None else ""
    if names:
        options["names"] = distinct(names)
    warn(named_folders(*sweeps), dict(names))
    text = printable(str(table(*sweeps, **options))) + ranks
    if out:
        write_text(out, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    sys.exit(main())
