"""Compare accuracy in two finished sweeps on the same images: `python -m src.compare OLD NEW`.

exit codes:
  0          no accuracy fell significantly
  1          an accuracy fell significantly
  2 or more  nothing was compared, or the command failed
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api.frames import NEW_NAMES, distinct
from .config.command_line import CommandParser, run_command
from .utils.package import command


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(command("compare"), description=__doc__)
    add = parser.add_argument
    for name in ("old", "new"):
        add(name, type=Path, metavar=name.upper(), help="a folder with finished jobs")
    same = "a model's name in OLD and its name in NEW, if they differ"
    add("--pair", **NEW_NAMES, dest="pairs", metavar="NAME=NAME", help=same)
    add("--eps", type=float, dest="eps_255", help="budget in 1/255; default: the reference budget")
    add("--common", action="store_true", help="compare although NEW lacks cells of OLD")
    return run_command(_print_changes, parser.parse_intermixed_args, words)


def _print_changes(old: Path, new: Path, pairs: list[Any], **options: Any) -> int:
    from rich.console import Console

    from .api.comparison import NOTES, change_table, compare, sentence
    from .api.frames import load_sweep

    changes = compare(load_sweep(old), load_sweep(new), pairs=distinct(pairs), **options)
    console = Console(markup=False, highlight=False)
    budgets = changes[["eps_255", "norm"]].dropna().drop_duplicates().to_numpy()
    where = ", ".join(f"{eps:g}/255 ({norm})" for eps, norm in budgets)
    head = f"{changes['images'].max()} images at {where}"
    console.print(head, *changes.attrs[NOTES], "", sep="\n", soft_wrap=True)
    for _, row in changes[~changes["measure"].duplicated()].iterrows():
        console.print(sentence(row), soft_wrap=True)
    console.print("", change_table(changes), "", sep="\n")
    falls = int((changes["high"] < 0).sum())
    console.print("In points; the 95 % intervals hold for all rows together.")
    console.print(f"Significant falls: {falls} of {len(changes)}.")
    return int(falls > 0)


if __name__ == "__main__":
    sys.exit(main())
