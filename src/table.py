"""Command line that prints a table of finished jobs for a paper: `python -m src.table`."""

import argparse
import sys
from pathlib import Path

from src.artifacts.layout import PLAN
from src.artifacts.sweep_state import job_statuses, newest_sweep
from src.config.errors import REFUSED
from src.utils.files import write_text


def main() -> None:
    """Run the command line; the exit code is 0, or 2 for a refusal."""
    parser = argparse.ArgumentParser(
        "python -m src.table", description="Print a table of finished jobs for a paper."
    )
    add = parser.add_argument
    add("folder", nargs="*", type=Path, help="folders of sweeps; the newest in outputs/")
    axes = "one or more of attack, source, target, defence"
    add("--rows", nargs="+", default=["source", "attack"], help=f"{axes}; source attack")
    add("--columns", nargs="+", default=["target"], help=f"{axes}; target")
    add(
        "--value",
        default="success",
        help="success, accuracy, confidence, success_confidence, gradients, rms, psnr or ssim",
    )
    add("--eps", type=float, help="budget in 1/255; each job's reference budget")
    add("--protocol", help="images that are counted; each job's own")
    add("--no-average", action="store_true", help="no column of means")
    add("--no-white-boxes", action="store_true", help="white boxes left out, not grey")
    add("--intervals", action="store_true", help="95 %% intervals in small print")
    add("--strongest", action="store_true", help="rows of the strongest attacker")
    add("--to", default="markdown", help="latex, markdown or csv; markdown")
    add("--out", type=Path, help="file that gets the table; it is printed")
    given = parser.parse_args()
    from src.report.paper import table

    try:
        folders = given.folder or [newest_sweep(finished=True)]
        text = table(
            *folders,
            rows=given.rows,
            columns=given.columns,
            value=given.value,
            eps_255=given.eps,
            protocol=given.protocol,
            average=not given.no_average,
            white_boxes=not given.no_white_boxes,
            intervals=given.intervals,
            strongest=given.strongest,
            to=given.to,
        )
        for folder in (each for each in folders if (each / PLAN).exists()):
            states = [job.state for job in job_statuses(folder)]
            if left := len(states) - states.count("done"):
                print(f"{folder}: {left} of {len(states)} jobs are not done.", file=sys.stderr)
        if given.out:
            write_text(given.out, str(text))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    if not given.out:
        print(text, end="")


if __name__ == "__main__":
    main()
