"""Compare accuracy in two finished sweeps on the same images: `python -m src.compare OLD NEW`.

exit codes:
  0          no accuracy fell significantly; with --max-fall, a larger fall is excluded
  1          an accuracy fell significantly; with --max-fall, a larger fall is not excluded
  2 or more  nothing was compared, or the command failed

With --equal the exit code is 0 if all outcomes of the images in common are equal, and 1 if not.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api.frames import NEW_NAMES, distinct
from .config.command_line import CommandParser, run_command
from .utils.package import command
from .utils.refusals import printable


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
    fall = "largest fall that passes, in points; a larger one must be excluded in every row"
    add("--max-fall", type=float, metavar="POINTS", help=fall)
    add("--equal", action="store_true", help="count equal outcomes of the images in common")
    add("--json", action="store_true", dest="json_only", help="print one JSON object")
    return run_command(_print_changes, parser.parse_intermixed_args, words)


def _print_changes(
    old: Path, new: Path, pairs: list[Any], max_fall: float | None, json_only: bool, **options: Any
) -> int:
    if options.pop("equal"):
        typed = [pairs, json_only, options["common"]]
        typed += [value is not None for value in (max_fall, options["eps_255"])]
        return _print_equal(old, new, any(typed))
    if max_fall is not None and not 0 < max_fall < 100:
        raise ValueError(f"--max-fall {max_fall:g}: it must be above 0 and below 100, in points.")
    from rich.console import Console

    from .api.comparison import NOTES, as_json, change_table, compare, gate
    from .report.words import change_sentence

    changes = compare(old, new, pairs=distinct(pairs), **options)
    passed, verdict = gate(changes, max_fall)
    code = int(not passed)
    if json_only:
        facts = {"exit_code": code, "verdict": verdict, "max_fall": max_fall}
        facts |= {"old": str(old), "new": str(new), NOTES: changes.attrs[NOTES]}
        print(json.dumps(facts | {"rows": json.loads(as_json(changes, max_fall))}))
        return code
    width = None if sys.stdout.isatty() else 200  # logs do not fold lines
    console = Console(markup=False, highlight=False, width=width)
    budgets = changes[["eps_255", "norm"]].dropna().drop_duplicates().to_numpy()
    where = ", ".join(f"{eps:g}/255 ({norm})" for eps, norm in budgets)
    images = " to ".join(f"{eps:g}" for eps in sorted({*changes["images"].agg(["min", "max"])}))
    notes = [f"{images} images at {where}", *changes.attrs[NOTES], ""]
    firsts = (change_sentence(row) for _, row in changes.drop_duplicates("measure").iterrows())
    console.print(*notes, *firsts, sep="\n", soft_wrap=True)
    units = "In points. Intervals hold together for each accuracy, and `fall <=` for each row."
    console.print("", change_table(changes).terminal(), "", units, sep="\n")
    console.print(verdict, soft_wrap=True)
    return code


def _print_equal(old: Path, new: Path, more: bool) -> int:
    if more:
        raise ValueError("--equal goes with no other option. Type two folders or cards alone.")
    from .api.comparison import equal_outcomes

    are_equal, lines = equal_outcomes(old, new)
    print("\n".join(map(printable, lines)))
    return int(not are_equal)


if __name__ == "__main__":
    sys.exit(main())
