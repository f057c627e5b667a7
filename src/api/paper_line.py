"""Arguments and messages shared by the command lines for tables and figures."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..analysis import CLEAN
from ..artifacts.jobs import find_jobs
from ..artifacts.layout import MANIFEST
from ..artifacts.sweep_state import job_statuses
from ..utils.model_names import parts_of


def add_sweeps(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for folders of sweeps and for printed names."""
    named = "folders of sweeps, or NAME=FOLDER; default: the newest in outputs/"
    parser.add_argument("folder", nargs="*", type=_sweep, help=named)
    text = "printed names of attacks and models, such as vgg_small=VGG-16"
    parser.add_argument("--names", nargs="+", default=[], type=new_name, help=text)


def warn(folders: Mapping[Path, str], names: Iterable[str]) -> None:
    """Print to standard error how many jobs of each sweep are unfinished, and unknown names.

    Unknown are printed names that belong to no attack, model or defence.
    """
    for folder in (folder for folder in folders if (folder / MANIFEST).exists()):
        states = [job.state for job in job_statuses(folder)]
        if left := len(states) - states.count("done"):
            print(f"{folder}: {left} of {len(states)} jobs are not done.", file=sys.stderr)
    known = {CLEAN}
    for job in find_jobs(folders):
        for name in (job.attack, job.record.source, *job.record.targets, *job.record.defences):
            known |= {name, *parts_of(name)}
    for name in names:
        if name not in known:
            print(f"--names {name}: no attack, model or defence has this name.", file=sys.stderr)


def _sweep(word: str) -> Path | dict[str, Path]:
    """Parse `FOLDER` or `NAME=FOLDER`."""
    name, sign, folder = word.partition("=")
    return {name: Path(folder)} if sign and not Path(word).exists() else Path(word)


def new_name(word: str) -> tuple[str, str]:
    """Parse `NAME=NEW`: a name and its replacement."""
    name, sign, new = word.partition("=")
    if not (name and sign and new):
        raise argparse.ArgumentTypeError(f"{word}: write NAME=NEW, such as vgg_small=VGG-16.")
    return name, new
