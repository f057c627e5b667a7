"""Draw a figure of finished jobs for a paper: `python -m src.figure`."""

import argparse
from pathlib import Path

from src.api.paper_line import add_sweeps, refusing, warn_of_unfinished, warn_of_unknown_names
from src.artifacts.sweep_state import newest_sweep

KINDS = {
    "curves": "success over the budget, one line per named attack, source and target",
    "ranking": "mean success on other models with its interval, one row per attack",
    "matrix": "success of one attack, sources x targets, with white boxes in grey",
    "cost": "mean success over gradients per image, one point per attack",
}


def main() -> None:
    """Run the command line; exit with 0, or with 2 if the input is refused."""
    parser = argparse.ArgumentParser(
        "python -m src.figure", description="Draw a figure of finished jobs for a paper."
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
        if kind != "curves":
            add(
                "--eps",
                type=float,
                dest="eps_255",
                help="budget in 1/255; default: the reference budget",
            )
        add("--width", default="3.3in", help="printed width in in, cm, mm or pt; default: 3.3in")
        add("--height", default="2in", help="printed height; default: 2in")
        add("--out", type=Path, required=True, help="file to write: .pdf, .svg or .png")
    options = vars(parser.parse_args())
    kind, sweeps, out = (options.pop(key) for key in ("kind", "folder", "out"))
    from src.api import charts
    from src.artifacts.frame_jobs import named_folders
    from src.report.printed import writer
    from src.utils.files import atomic_write

    with refusing():
        write = writer(out)
        sweeps = sweeps or [newest_sweep(finished=True)]
        names = dict(options.pop("names") or ())
        chart = getattr(charts, kind)(*sweeps, **options, names=names)
        warn_of_unfinished([*named_folders(*sweeps)])
        warn_of_unknown_names(names, named_folders(*sweeps))
        with atomic_write(out) as temporary:
            temporary.write_bytes(write(chart.to_dict()))


if __name__ == "__main__":
    main()
