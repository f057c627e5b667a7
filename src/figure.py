"""Draw a figure of finished jobs for a paper: `python -m src.figure`."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api.frames import add_sweeps, distinct, warn
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .utils.package import command

KINDS = {
    "curves": "success, accuracy or confidence over the budget, a line per attack",
    "ranking": "mean success on other models, and intervals of the differences from the first",
    "matrix": "success, accuracy or confidence of one attack, sources x targets",
    "cost": "mean success over gradients per image, one point per attack",
    "confidence-groups": "accuracy and confidence of one pair, by initial confidence",
    "image": "confidence of one image over the budget, and its likeliest classes",
    "strip": "an image as a row of pictures: clean, perturbation and budgets, with classes",
    "profiles": "the five highest probabilities on clean images, by initial confidence",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(_draw, _parse, words)


def _parse(words: Sequence[str] | None) -> Namespace:
    """Parse the words; refuse an option of other kinds with the kinds that take it."""
    parser = CommandParser(
        command("figure"), description="Draw a figure of finished jobs for a paper."
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="kind")
    for kind, description in KINDS.items():
        kind_parser = kinds.add_parser(kind, help=description, description=f"Draw {description}.")
        add = kind_parser.add_argument
        if kind in ("image", "strip"):
            add("number", metavar="image", help="the image's number or file, as in images.csv")
        add_sweeps(kind_parser)
        best = "; figures of one pair: the pair that the first attack fools most often"
        add("--attack", nargs="+", help=f"attacks; default: all{best}")
        add("--source", nargs="+", help=f"sources; default: their mean, matrix: all{best}")
        if kind not in ("ranking", "cost"):
            add("--target", nargs="+", help=f"targets; default: mean on others, matrix: all{best}")
        if kind in ("curves", "matrix"):
            values = "success (default), accuracy, confidence or true_confidence"
            add("--value", default="success", help=values)
        if kind == "confidence-groups":
            add("--groups", type=int, default=3, help="number of equal groups; default: 3")
            add("--bins", type=float, help="width of fixed groups instead, in points, such as 5")
        elif kind == "strip":
            add("--eps", type=float, nargs="+", default=[], dest="budgets", help="budgets in 1/255")
        elif kind in ("matrix", "ranking", "cost"):
            add(
                "--eps",
                type=float,
                dest="eps_255",
                help="budget in 1/255; default: the reference budget",
            )
        width = (None, "the texts' width") if kind == "strip" else ("3.3in", "3.3in")
        add("--width", default=width[0], help=f"in in, cm, mm or pt; default: {width[1]}")
        if kind != "strip":  # whose height follows from its width
            add("--height", default="2in", help="printed height; default: 2in")
        add("--out", type=Path, required=True, help="file to write: .pdf, .svg or .png")
    for option in (word.partition("=")[0] for word in parser.parse_known_args(words)[1]):
        usages = {kind: its.format_usage() for kind, its in kinds.choices.items()}
        if takers := " or ".join(kind for kind, its in usages.items() if f"[{option} " in its):
            parser.error(f"{option}: only figures of the kind {takers} take it")
    return parser.parse_args(words)


def _draw(
    kind: str,
    folder: list[Any],
    names: list[Any],
    out: Path,
    number: str | None = None,
    **options: Any,
) -> None:
    from .artifacts.sweep_folders import named_folders
    from .report import figure as charts
    from .report.printed import writer
    from .utils.files import atomic_write

    write = writer(out)
    sweeps = folder or [newest_sweep(finished=True)]
    draw, first = getattr(charts, kind.replace("-", "_")), [] if number is None else [number]
    chart = draw(*first, *sweeps, **options, names=distinct(names))
    warn(named_folders(*sweeps), dict(names))
    with atomic_write(out) as temporary:
        temporary.write_bytes(write(chart.to_dict()))


if __name__ == "__main__":
    sys.exit(main())
