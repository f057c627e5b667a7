"""Print a table of finished jobs for a paper: `python -m src.table`."""

import argparse
from pathlib import Path

from src.api.paper_line import add_sweeps, refusing, warn_of_unfinished, warn_of_unknown_names
from src.artifacts.sweep_state import newest_sweep
from src.utils.files import write_text
from src.utils.refusals import printable


def main() -> None:
    """Run the command line; exit with 0, or with 2 if the input is refused."""
    parser = argparse.ArgumentParser(
        "python -m src.table", description="Print a table of finished jobs for a paper."
    )
    add = parser.add_argument
    add_sweeps(parser)
    axes = "one or more of attack, source, target, defence; default"
    add("--rows", nargs="+", default=["source", "attack"], help=f"{axes}: source attack")
    add("--columns", nargs="+", default=["target"], help=f"{axes}: target")
    add(
        "--value",
        default="success",
        help="success (default), accuracy, confidence, success_confidence, gradients, rms, psnr or "
        "ssim",
    )
    add(
        "--eps",
        type=float,
        dest="eps_255",
        help="budget in 1/255; default: each job's reference budget",
    )
    add("--protocol", help="images to count; default: each job's protocol")
    left_out = "leave out white boxes instead of showing them in grey"
    add("--no-average", action="store_false", dest="average", help="leave out the column of means")
    add("--no-white-boxes", action="store_false", dest="white_boxes", help=left_out)
    add("--intervals", action="store_true", help="add 95 %% intervals in small print")
    add("--strongest", action="store_true", help="add rows for the strongest attacker")
    differences = "add a column of differences from the first in the ranking, with intervals"
    add("--differences", action="store_true", help=differences)
    add("--defence", help="show only targets behind this defence, such as none")
    add("--wide", action="store_true", help="LaTeX: span both columns of the page")
    add("--small", action="store_true", help="LaTeX: use smaller type")
    alike = "exclude: treat networks with the source's weights, architecture or family as its own"
    add("--related", default="keep", help=f"keep (default), or {alike}")
    add("--to", default="markdown", help="latex, markdown (default) or csv")
    add("--out", type=Path, help="write the table to this file; default: print it")
    options = vars(parser.parse_args())
    sweeps, out = options.pop("folder"), options.pop("out")
    names = dict(options.pop("names") or ())
    from src.artifacts.frame_jobs import named_folders
    from src.report.paper import table

    with refusing():
        sweeps = sweeps or [newest_sweep(finished=True)]
        text = printable(str(table(*sweeps, **options, names=names)))
        warn_of_unfinished([*named_folders(*sweeps)])
        warn_of_unknown_names(names, named_folders(*sweeps))
        if out:
            write_text(out, text)
    if not out:
        print(text, end="")


if __name__ == "__main__":
    main()
