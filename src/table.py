"""Print a table of finished jobs for a paper: `python -m src.table`."""

import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api.frames import add_options, add_sweeps, distinct, warn
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.files import write_text
from .utils.package import command
from .utils.refusals import printable


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(_print_table, _parse, words)


def _parse(words: Sequence[str] | None) -> Namespace:
    """Parse the words; options are the keywords of the chosen table, as `table` explains them."""
    from .report.named_tables import TABLES, keywords_of, table

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
    parser.add_argument("--as", **choice)
    keywords = [parameter for key, parameter in keywords_of(name).items() if key != "names"]
    add_options(parser, keywords, table)
    add = parser.add_argument
    add("--beside", metavar="PRESET", help="rank each attack among stored ones, such as small")
    add("--against", nargs="+", help="stored attacks that this shows, such as mi")
    add("--to", default="markdown", help="latex, markdown (default), html or csv")
    add("--out", type=Path, help="write the table to this file; default: print it")
    return parser.parse_intermixed_args(words)


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
