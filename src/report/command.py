"""Find the jobs that a report is wanted of, build it, and note it where they are tracked."""

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
    """Build the report that `python -m src.report` is asked for.

    Raises:
        ValueError: There is nothing to report on.
    """
    console = Console(markup=False)
    with TemporaryDirectory() as spare:
        folders = _folders(settings, Path(spare))
        jobs = find_jobs(folders)
        out = Path(settings.out) if settings.out is not None else _out(folders, Path(spare))
        write_report(jobs, out, settings.report, console)
    console.print(f"report: {out / PAGE}", soft_wrap=True, markup=False)


def write_report(
    jobs: Sequence[StoredJob], out: Path, settings: ReportSettings, console: Console
) -> list[Path]:
    """Write the page and, if the settings ask for it, every figure of it singly with its data.

    Args:
        jobs: What the report is of.
        out: Folder for `report.html` and `figures/`; figures of an earlier report are removed.
        settings: What it shows.
        console: Where progress is shown.

    Returns:
        The page, and the folder of figures if there is one.

    Raises:
        ValueError: The jobs do not fit into one report.
    """
    with Status("Building the report", console=console) as status:

        def tell(words: str) -> None:
            status.update(Text(f"Building the report: {words}"))  # a plain str may hold markup

        content = build_report(jobs, settings, tell)
        tell("page")
        write_page(content, out / PAGE)
        remove_figures(out / FIGURES)  # of an earlier report
        if not settings.figures:
            return [out / PAGE]
        save_figures(content.figures, out / FIGURES, tell)
    return [out / PAGE, out / FIGURES]


def _folders(settings: ReportCommand, spare: Path) -> list[Path]:
    """Return the folders of the sweeps, or the one, that are named; else the newest."""
    if settings.folder is not None:
        if settings.sweep:
            raise ValueError("sweep and folder are both given; give one of them.")
        return [Path(settings.folder)]
    if settings.sweep:
        return [_folder(name, settings.tracking, spare) for name in settings.sweep]
    dated = [path for path in OUTPUTS.glob("*") if _tables(path)]
    if not dated:
        raise ValueError(
            f"there is no sweep yet in {OUTPUTS}/; folder=PATH names a folder of parquet files."
        )
    return [max(dated, key=lambda path: max(file.stat().st_mtime for file in _tables(path)))]


def _tables(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PREDICTIONS}.parquet"))


def _out(folders: Sequence[Path], spare: Path) -> Path:
    """Return where the report of some sweeps goes: to the one, or to a folder of its own."""
    if len(folders) > 1:
        return OUTPUTS / "+".join(folder.name for folder in folders)[:200]
    (folder,) = folders
    return OUTPUTS / folder.name if folder.is_relative_to(spare) else folder


def _folder(name: str, tracking: TrackingSettings, spare: Path) -> Path:
    """Return where a sweep's tables lie; what is gone from here comes from the store."""
    for path in (OUTPUTS / name, Path(name)):
        if path.is_dir():
            return path
    here = spare / re.sub(r"\W", "-", name)
    if not download_sweep(tracking, name, here):
        raise ValueError(
            f"sweep={name} is neither a folder under {OUTPUTS}/ nor the id of a tracked sweep "
            "whose files are at hand."
        )
    return here
