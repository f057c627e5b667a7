"""Finished jobs of a data frame that holds their predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from src.analysis.sanity_checks import Alarm
from src.artifacts.jobs import StoredJob, find_jobs
from src.artifacts.layout import PREDICTIONS
from src.artifacts.record import JobRecord

JOBS = "jobs"
"""Attribute of a frame: the records of its jobs, as plain data, under its names of the attacks."""
Sweeps = str | Path | Mapping[str, str | Path]
"""A folder of sweeps, or several by name."""


@dataclass(frozen=True)
class FrameJob(StoredJob):
    """A finished job whose tables are in memory."""

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def alarms(self) -> list[Alarm]:
        """No alarms: those of its predictions were raised when they were made."""
        return []

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name."""
        return self.tables[name]


def named_folders(*sweeps: Sweeps) -> dict[Path, str]:
    """Return the folders of sweeps with their names, empty where there is none."""
    named = [sweep if isinstance(sweep, Mapping) else {"": sweep} for sweep in sweeps]
    return {Path(folder): name for part in named for name, folder in part.items()}


def jobs_of(*folders: Sweeps | pd.DataFrame) -> list[StoredJob]:
    """Return the jobs in the folders of sweeps, or those whose predictions a frame holds.

    Raises:
        ValueError: As `load_sweep`; or a frame does not know its jobs, as after a merge.
    """
    sweeps = [folder for folder in folders if not isinstance(folder, pd.DataFrame)]
    if len(sweeps) == len(folders):
        return find_jobs(named_folders(*sweeps))
    if len(folders) > 1:
        raise ValueError("Give one frame, or folders.")
    (frame,) = folders
    assert isinstance(frame, pd.DataFrame)
    records = [JobRecord.model_validate(record) for record in frame.attrs.get(JOBS, ())]
    if not records:
        raise ValueError(f"The frame has lost frame.attrs[{JOBS!r}], which load_sweep gives it.")
    parts = dict(iter(frame.groupby(["attack", "source"], observed=True, sort=False)))
    pairs = [(record, parts.get((record.label, record.source))) for record in records]
    return [_frame_job(record, rows) for record, rows in pairs if rows is not None]


def _frame_job(record: JobRecord, rows: pd.DataFrame) -> FrameJob:
    """Return the job of a record, of whose rows some may have been taken out."""
    variants = list(rows["variant"].unique())
    if record.storage not in variants:
        record = record.model_copy(update={"storage": variants[0]})
    tables = {
        PREDICTIONS if name == record.storage else f"{PREDICTIONS}-{name}": table
        for name, table in rows.groupby("variant", observed=True, sort=False)
    }
    there = set(rows.loc[rows["eps_255"] > 0, "target"])
    targets = [name for name in record.targets if name in there] if there else record.targets
    record = record.model_copy(update={"targets": targets})
    return FrameJob(record, Path(), dict.fromkeys(tables, Path()), tables=tables)
