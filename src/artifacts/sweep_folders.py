"""Folders of sweeps, some of them named."""

from collections.abc import Mapping
from pathlib import Path

Sweeps = str | Path | Mapping[str, str | Path]
"""A folder of sweeps, or folders by name."""


def named_folders(*sweeps: Sweeps) -> dict[Path, str]:
    """Return the names of sweeps by folder; an empty text if a sweep has no name."""
    named = [sweep if isinstance(sweep, Mapping) else {"": sweep} for sweep in sweeps]
    folders = [(folder, name) for part in named for name, folder in part.items()]
    for folder, _ in folders:
        if not isinstance(folder, str | Path):
            kind = type(folder).__name__
            text = "Pass a folder of sweeps, a card, or what load_sweep or transfer returned."
            raise ValueError(f"{kind} is no path. {text}")
        if folder == "":
            raise ValueError("The name of a folder is empty. For the current folder, name a dot.")
    return {Path(folder): name for folder, name in folders}
