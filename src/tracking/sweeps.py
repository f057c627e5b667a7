"""Finding tracked sweeps again; the base class knows none."""

from collections.abc import Sequence
from pathlib import Path


class Sweeps:
    """What a store knows of earlier sweeps, and the interface of stores that know some."""

    def folder(self, sweep: str) -> Path | None:
        """Return the folder that a sweep's files were written to; None if it is not known."""
        return None

    def download(self, sweep: str, folder: Path) -> bool:
        """Copy the files of a sweep's jobs into a folder each; False if there are none."""
        return False

    def attach(self, sweep: str, files: Sequence[Path]) -> None:
        """Store files and folders with a sweep, if it is known."""
