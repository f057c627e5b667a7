"""Find the jobs of a report, build it, and write its page and figures."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.status import Status
from rich.text import Text

from src.config.settings import ReportCommand, ReportSettings, TrackingSettings
from src.experiment.provenance import PREDICTIONS
from src.report.build import build_report
from src.report.page import remove_figures, save_figures, write_page
from src.report.stored import StoredJob, find_jobs
from src.tracking import download_sweep

OUTPUTS = Path("outputs")
PAGE = "report.html"
FIGURES = "figures"


def report(settings: ReportCommand) -> None:
    """Build the report of `python -m src.report`.

    Raises:
        ValueError: There are no jobs, or sweep and folder are both given.
    """
    console = Console(markup=False)
    with TemporaryDirectory() as downloads:
        folders = _folders(settings, Path(downloads))
        jobs = find_jobs(folders)
        out = Path(settings.out) if settings.out is not None else _out(folders, Path(downloads))
        write_report(jobs, out, settings.report, console)
    console.print(f"report: {out / PAGE}", soft_wrap=True, markup=False)


def write_report(
    jobs: Sequence[StoredJob], out: Path, settings: ReportSettings, console: Console
) -> list[Path]:
    """Write the page and, with `settings.figures`, every figure as files with its data.

    Args:
        jobs: The jobs of the report.
        out: Folder for `report.html` and `figures/`; figures of an earlier report are removed.
        settings: Of the report.
        console: Where progress is displayed.

    Returns:
        The page, and the folder of figures if there is one.

    Raises:
        ValueError: The jobs do not fit into one report.
    """
    with Status("Building the report", console=console) as status:

        def progress(step: str) -> None:
            status.update(Text(f"Building the report: {step}"))  # a plain str may hold markup

        content = build_report(jobs, settings, progress)
        progress("page")
        write_page(content, out / PAGE)
        remove_figures(out / FIGURES)  # of an earlier report
        if not settings.figures:
            return [out / PAGE]
        save_figures(content.figures, out / FIGURES, progress)
    return [out / PAGE, out / FIGURES]


def _folders(settings: ReportCommand, downloads: Path) -> list[Path]:
    """Return the folders of the named sweeps, or the named folder; else the newest sweep's."""
    if settings.folder is not None:
        if settings.sweep:
            raise ValueError("sweep and folder are both given; give one of them.")
        return [Path(settings.folder)]
    if settings.sweep:
        return [_folder(name, settings.tracking, downloads) for name in settings.sweep]
    dated = [path for path in OUTPUTS.glob("*") if _tables(path)]
    if not dated:
        raise ValueError(
            f"there is no sweep yet in {OUTPUTS}/; folder=PATH names a folder of parquet files."
        )
    return [max(dated, key=lambda path: max(file.stat().st_mtime for file in _tables(path)))]


def _tables(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PREDICTIONS}.parquet"))


def _out(folders: Sequence[Path], downloads: Path) -> Path:
    """Return the folder of the report: the sweep's, or of several sweeps a folder of its own."""
    if len(folders) > 1:
        return OUTPUTS / "+".join(folder.name for folder in folders)[:200]
    (folder,) = folders
    return OUTPUTS / folder.name if folder.is_relative_to(downloads) else folder


def _folder(name: str, tracking: TrackingSettings, downloads: Path) -> Path:
    """Return the folder of a sweep's tables; without one they are downloaded from the store."""
    for path in (OUTPUTS / name, Path(name)):
        if path.is_dir():
            return path
    here = downloads / re.sub(r"\W", "-", name)
    if not download_sweep(tracking, name, here):
        raise ValueError(
            f"sweep={name} is neither a folder under {OUTPUTS}/ nor the id of a tracked sweep "
            "whose files are at hand."
        )
    return here
