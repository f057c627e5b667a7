"""Names of the files of jobs and sweeps; defined only here."""

import re
from pathlib import Path

from ..utils.files import remove_temporaries

PREDICTIONS = "predictions"
"""Table of the primary variant; other variants and controls have `predictions-NAME`."""
TOP_FIVE = "top_five"
"""Table of the five likeliest classes, for clean images and for images shown in the report."""
ALARMS = "alarms.json"
IMAGES = "images.npz"
"""Pictures of the report, see `FinishedJob.pictures`."""
PAGE, PAPER = "report.html", "paper.md"
MANIFEST = "sweep.json"
FAILURE = "error.txt"
RATES, EXCESS = "rates.csv", "excess.csv"
MINIMUM_BUDGETS, FLIP_SUMMARY = "minimum-budgets.csv", "flip-summary.csv"
IMAGE_LIST, CONFIG = "images.csv", "config.yaml"
SUMMARY = "summary.txt"
ATTACKS, SOURCES = "attacks.csv", "sources.csv"
SAVED, RECORD = "adversarial", "record.json"
"""Folder for a job's set of adversarial images, and the job's record in it."""
OF_JOB = [IMAGES, ALARMS]
OF_JOB += [RATES, EXCESS, MINIMUM_BUDGETS, FLIP_SUMMARY, CONFIG, IMAGE_LIST]
"""Files of a job beside its tables."""


def kind_of(path: Path) -> str:
    """Say what a path is, such as `is a folder` or `does not exist`, for a refusal."""
    kinds = {"dir": "folder", "file": "file", "fifo": "named pipe", "socket": "socket"}
    kinds |= dict.fromkeys(("char_device", "block_device"), "device")
    names = (kind for test, kind in kinds.items() if getattr(path, f"is_{test}")())
    return next((f"is a {kind}" for kind in names), "does not exist")


def folder_of_command(folder: Path) -> Path:
    """Return the folder of a job's command: the parent folder in a sweep, else the job's own."""
    numbered = re.match(r"\d+-(?!\d\d-\d\d_)", folder.name)  # unlike 2026-01-31_12-00-00
    return folder.parent if numbered else folder


def files_of_sweep(folder: Path) -> list[Path]:
    """Return a sweep's own files: report and rankings."""
    return [path for name in (PAGE, ATTACKS, SOURCES, PAPER) if (path := folder / name).exists()]


def clear_summary(folder: Path) -> None:
    """Remove a sweep's rankings, text and report, and what kills have left."""
    remove_temporaries(folder)
    for name in (ATTACKS, SOURCES, PAGE, PAPER, SUMMARY):
        (folder / name).unlink(missing_ok=True)
