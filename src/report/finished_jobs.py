"""The report command: find the jobs in folders and write their page."""

from pathlib import Path

from rich.console import Console
from rich.status import Status

from ..artifacts.jobs import MORE_IMAGES, find_jobs, on_other_images
from ..artifacts.layout import PAGE
from ..artifacts.sweep_folders import named_folders
from ..artifacts.sweep_state import OUTPUTS, newest_sweep, unfinished
from ..config.sections import ReportCommand, ReportSettings
from .audit import audited
from .page.frame import build_report
from .page.html import write_page
from .results import Results, results_of


def report(settings: ReportCommand) -> None:
    """Build the report of the named folders, or else of the newest sweep."""
    setting = settings.folder
    sweeps = [setting] if isinstance(setting, dict) else setting or [newest_sweep(finished=True)]
    folders = named_folders(*sweeps)
    together = OUTPUTS / "+".join(folder.name.removesuffix(".card") for folder in folders)[:200]
    alone = len(folders) == 1 and next(iter(folders)).is_dir()
    out = Path(settings.out or (next(iter(folders)) if alone else together))
    page = out / PAGE
    if settings.out and page.is_file() and b'content="transferability"' not in page.read_bytes():
        raise ValueError(f"{page} is another program's file: change out={out} to keep it.")
    counts = unfinished(folders)  # a damaged file is refused before anything is written
    finished, console = find_jobs(folders), Console(markup=False)
    results = results_of(finished)
    if on_other_images(finished):
        console.print(MORE_IMAGES)
    if settings.report.tries:
        results = audited(results)
    write_report(results, out, settings.report, Path(settings.cache.dir), console)
    for folder, (left, jobs) in counts.items():
        console.print(f"{folder}: {left} of {jobs} jobs are not done.", soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)


def write_report(
    results: Results, out: Path, settings: ReportSettings, cache: Path, console: Console
) -> None:
    """Write the page."""
    with Status("Building the report", console=console):
        write_page(build_report(results, settings), out / PAGE, cache)
