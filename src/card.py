"""Pack finished jobs into one small file: `python -m src.card`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from .artifacts.card import write_card
from .artifacts.jobs import find_jobs
from .artifacts.layout import IMAGES, PREDICTIONS
from .artifacts.sweep_folders import named_folders
from .artifacts.sweep_state import newest_sweep
from .config.command_line import CommandParser, run_command
from .report.results import results_of
from .utils.package import command


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(
        command("card"),
        description="Pack the predictions of finished jobs into a card: one small file that "
        "tables, figures and reports take instead of a folder.",
    )
    add = parser.add_argument
    add("folder", nargs="*", type=Path, help="folders of sweeps, or cards; default: the newest")
    add("-o", "--out", type=Path, help="card to write; default: the first folder's name, .card")
    text = "print commands that repeat the jobs, and write nothing; texts to trust are ???"
    add("--commands", action="store_true", help=text)
    return run_command(_pack, parser.parse_intermixed_args, words)


def _pack(folder: list[Path], out: Path | None, commands: bool) -> None:
    sweeps = folder or [newest_sweep(finished=True)]
    jobs = find_jobs(named_folders(*sweeps))
    if commands and out:
        raise ValueError(f"--commands writes no file. Leave out -o {out}.")
    if commands:
        from .api.repeat import repeat_command  # slow to import

        for job in jobs:
            print(repeat_command(job.record))
        return
    out = out or Path(f"{sweeps[0].absolute().name.removesuffix('.card')}.card")
    if out.exists() and out.suffix != ".card":
        raise ValueError(f"{out} exists, and its name does not end in .card. Name another file.")
    signature = results_of(jobs).signature
    write_card(jobs, out, signature=signature)
    tables = {name for job in jobs for name in job.tables if not name.startswith(PREDICTIONS)}
    pictures = any((job.folder / IMAGES).exists() for job in jobs)
    left_out = ", ".join([*sorted(tables), *["pictures"] * pictures]) or "nothing"
    print(f"{out}: {len(jobs)} jobs, {out.stat().st_size / 1000:.0f} KB; left out: {left_out}")
    print(signature)


if __name__ == "__main__":
    sys.exit(main())
