"""Rank the sources of finished sweeps for an unseen target, and test what predicts transfer."""

import argparse
from pathlib import Path

from rich.console import Console

from src.api.paper_line import refusing
from src.artifacts.sweep_state import newest_sweep


def main() -> None:
    """Run the command line; exit with 0, or with 2 if the input is refused."""
    parser = argparse.ArgumentParser("python -m src.sources", description=__doc__)
    parser.add_argument(
        "folder", nargs="*", type=Path, help="folders of sweeps; default: the newest"
    )
    parser.add_argument(
        "--attack", nargs="+", help="attacks to use; default: all that every source has"
    )
    parser.add_argument(
        "--eps", type=float, dest="eps_255", help="budget in 1/255; default: the reference budget"
    )
    options = vars(parser.parse_args())
    folders = options.pop("folder")
    from src.report.source_choice import choose_source, source_tables

    with refusing():
        choice = choose_source(folders or [newest_sweep(finished=True)], **options)
        Console(markup=False, highlight=False).print(source_tables(choice))


if __name__ == "__main__":
    main()
