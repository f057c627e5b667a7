"""The folder in which a call from Python stores its jobs."""

from collections.abc import Sequence
from pathlib import Path

from ..artifacts.layout import MANIFEST, clear_summary
from ..artifacts.record import clear
from ..artifacts.sweep_state import SweepManifest, read_manifest, write_manifest
from ..utils.files import remove_temporaries, writing

_CALL = "transfer"
"""Id of the manifest in such a folder; those of sweeps have random ids."""


def take_store(folder: Path, jobs: Sequence[str]) -> list[Path]:
    """Prepare one folder per job of a call, after removing the jobs of an earlier call.

    Raises:
        ValueError: The folder holds other files, such as a sweep of the command line.
    """
    if not (folder / MANIFEST).exists():  # as a kill leaves the folder of a first call
        remove_temporaries(folder)
    if folder.exists() and any(folder.iterdir()):
        earlier = read_manifest(folder) if (folder / MANIFEST).exists() else None
        if earlier is None or earlier.id != _CALL:
            raise ValueError(
                f"store={folder} holds files that no call wrote; choose a new or empty folder."
            )
        for job in (folder / Path(name).name for name in earlier.jobs):
            clear(job)
            if job.is_dir() and not any(job.iterdir()):
                job.rmdir()
        clear_summary(folder)
    names = [f"{number}-{job}" for number, job in enumerate(jobs)]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, SweepManifest(jobs=names, single=False, id=_CALL))
    return [folder / name for name in names]
