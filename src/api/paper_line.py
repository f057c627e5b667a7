"""Words and messages that the commands of tables and of figures share."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from src.artifacts.layout import PLAN
from src.artifacts.sweep_state import job_statuses
from src.config.errors import REFUSED


def add_sweeps(parser: argparse.ArgumentParser) -> None:
    """Add the folders of sweeps, and the names that replace those of attacks and models."""
    named = "folders of sweeps, also as NAME=FOLDER; the newest in outputs/"
    parser.add_argument("folder", nargs="*", type=_sweep, help=named)
    words = "names as they are printed, such as vgg_small=VGG-16"
    parser.add_argument("--names", nargs="+", type=_new_name, help=words)


@contextmanager
def refusing() -> Iterator[None]:
    """Print what is refused, and exit with code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)


def warn_of_unfinished(folders: Sequence[Path]) -> None:
    """Say on standard error how many jobs of sweeps are not done."""
    for folder in (folder for folder in folders if (folder / PLAN).exists()):
        states = [job.state for job in job_statuses(folder)]
        if left := len(states) - states.count("done"):
            print(f"{folder}: {left} of {len(states)} jobs are not done.", file=sys.stderr)


def _sweep(word: str) -> Path | dict[str, Path]:
    """Return a folder, or one with the name before `=`."""
    name, sign, folder = word.partition("=")
    return {name: Path(folder)} if sign and not Path(word).exists() else Path(word)


def _new_name(word: str) -> tuple[str, str]:
    """Return a name and the one that replaces it."""
    name, sign, new = word.partition("=")
    if not (name and sign and new):
        raise argparse.ArgumentTypeError(f"{word}: write NAME=NEW, such as vgg_small=VGG-16.")
    return name, new
