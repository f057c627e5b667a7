"""Command line that draws a figure of finished jobs for a paper: `python -m src.figure`."""

import argparse
import sys
from pathlib import Path

from src.artifacts.sweep_state import newest_sweep
from src.config.errors import REFUSED


def main() -> None:
    """Run the command line; the exit code is 0, or 2 for a refusal."""
    parser = argparse.ArgumentParser(
        "python -m src.figure", description="Draw a figure of finished jobs for a paper."
    )
    add = parser.add_argument
    add("kind", help="curves, ranking, cost or matrix")
    add("folder", nargs="*", type=Path, help="of sweeps; the newest in outputs/")
    for name in ("attack", "source", "target"):
        add(f"--{name}", nargs="+", help=f"{name}s that are shown; all")
    add("--eps", type=float, dest="eps_255", help="budget in 1/255; the reference budget")
    add("--protocol", help="images that are counted; the first job's")
    add("--width", default="3.3in", help="as printed: in, cm, mm or pt; 3.3in")
    add("--height", default="2in", help="2in")
    add("--names", nargs="+", default=[], type=_pair, help="NAME=SHOWN: what is printed for a name")
    add("--out", type=Path, help="file, .pdf, .svg or .png; KIND.pdf")
    options = vars(parser.parse_args())
    kind, folders = options.pop("kind"), options.pop("folder")
    out = options.pop("out") or Path(f"{kind}.pdf")
    from src.report.paper_figures import figure, save_figure

    try:
        names = dict(options.pop("names"))
        chart = figure(kind, *(folders or [newest_sweep(finished=True)]), names=names, **options)
        save_figure(chart, out)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    print(f"figure: {out}")


def _pair(word: str) -> tuple[str, str]:
    name, sign, shown = word.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{word}: write NAME=SHOWN")
    return name, shown


if __name__ == "__main__":
    main()
