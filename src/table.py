"""Command line that prints a table of finished jobs for a paper: `python -m src.table`."""

import argparse
from pathlib import Path

from src.api.paper_line import add_sweeps, refusing, warn_of_unfinished
from src.artifacts.sweep_state import newest_sweep
from src.utils.files import write_text
from src.utils.refusals import printable


def main() -> None:
    """Run the command line; the exit code is 0, or 2 for a refusal."""
    parser = argparse.ArgumentParser(
        "python -m src.table", description="Print a table of finished jobs for a paper."
    )
    add = parser.add_argument
    add_sweeps(parser)
    axes = "one or more of attack, source, target, defence"
    add("--rows", nargs="+", default=["source", "attack"], help=f"{axes}; source attack")
    add("--columns", nargs="+", default=["target"], help=f"{axes}; target")
    add(
        "--value",
        default="success",
        help="success, accuracy, confidence, success_confidence, gradients, rms, psnr or ssim",
    )
    add("--eps", type=float, dest="eps_255", help="budget in 1/255; each job's reference budget")
    add("--protocol", help="images that are counted; each job's own")
    left_out = "white boxes left out, not grey"
    add("--no-average", action="store_false", dest="average", help="no column of means")
    add("--no-white-boxes", action="store_false", dest="white_boxes", help=left_out)
    add("--intervals", action="store_true", help="95 %% intervals in small print")
    add("--strongest", action="store_true", help="rows of the strongest attacker")
    differences = "column of differences from the first in the ranking, with intervals"
    add("--differences", action="store_true", help=differences)
    add("--defence", help="targets behind this defence alone, such as none")
    add("--wide", action="store_true", help="LaTeX: over both columns of the page")
    add("--small", action="store_true", help="LaTeX: smaller type")
    alike = "exclude: networks with the source's weights, architecture or family as white boxes"
    add("--related", default="keep", help=f"keep; {alike}")
    add("--to", default="markdown", help="latex, markdown or csv; markdown")
    add("--out", type=Path, help="file that gets the table; it is printed")
    options = vars(parser.parse_args())
    sweeps, out = options.pop("folder"), options.pop("out")
    names = dict(options.pop("names") or ())
    from src.artifacts.frame_jobs import named_folders
    from src.report.paper import table

    with refusing():
        sweeps = sweeps or [newest_sweep(finished=True)]
        text = printable(str(table(*sweeps, **options, names=names)))
        warn_of_unfinished([*named_folders(*sweeps)])
        if out:
            write_text(out, text)
    if not out:
        print(text, end="")


if __name__ == "__main__":
    main()
