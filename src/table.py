"""Command line that prints a table of finished jobs for a paper: `python -m src.table`."""

import argparse
import sys
from pathlib import Path

from src.artifacts.layout import PLAN
from src.artifacts.sweep_state import job_statuses, newest_sweep
from src.config.errors import REFUSED
from src.utils.files import write_text
from src.utils.refusals import printable


def main() -> None:
    """Run the command line; the exit code is 0, or 2 for a refusal."""
    parser = argparse.ArgumentParser(
        "python -m src.table", description="Print a table of finished jobs for a paper."
    )
    add = parser.add_argument
    named = "folders of sweeps, also as NAME=FOLDER; the newest in outputs/"
    add("folder", nargs="*", type=_named, help=named)
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
    alike = "exclude: networks with the source's weights, architecture or family as white boxes"
    add("--related", default="keep", help=f"keep; {alike}")
    add("--to", default="markdown", help="latex, markdown or csv; markdown")
    add("--out", type=Path, help="file that gets the table; it is printed")
    options = vars(parser.parse_args())
    sweeps, out = options.pop("folder"), options.pop("out")
    from src.artifacts.frame_jobs import named_folders
    from src.report.paper import table

    try:
        sweeps = sweeps or [newest_sweep(finished=True)]
        text = printable(str(table(*sweeps, **options)))
        for folder in (folder for folder in named_folders(*sweeps) if (folder / PLAN).exists()):
            states = [job.state for job in job_statuses(folder)]
            if left := len(states) - states.count("done"):
                print(f"{folder}: {left} of {len(states)} jobs are not done.", file=sys.stderr)
        if out:
            write_text(out, text)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    if not out:
        print(text, end="")


def _named(word: str) -> Path | dict[str, Path]:
    """Return a folder, or one with the name before `=`."""
    name, sign, folder = word.partition("=")
    return {name: Path(folder)} if sign and not Path(word).exists() else Path(word)


if __name__ == "__main__":
    main()
