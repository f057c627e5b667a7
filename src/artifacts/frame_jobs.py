"""Finished jobs whose tables are in memory, and the jobs of a data frame of predictions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from .jobs import FinishedJob, JobInMemory, find_jobs, without_related
from .layout import PREDICTIONS
from .record import JobRecord
from .tables import NAMES, PREDICTION_SCHEMA

JOBS = "jobs"
"""Key in `frame.attrs`: the jobs' records as plain data, with their rows' names as labels."""
SHOWS_SEED = "shows_seed"
"""Key beside those of a record: whether the frame's name of the attack states the seed."""
Sweeps = str | Path | Mapping[str, str | Path]
"""A folder of sweeps, or folders by name."""


def named_folders(*sweeps: Sweeps) -> dict[Path, str]:
    """Return the names of sweeps by folder; an empty text if a sweep has no name."""
    named = [sweep if isinstance(sweep, Mapping) else {"": sweep} for sweep in sweeps]
    folders = [(folder, name) for part in named for name, folder in part.items()]
    for folder, _ in folders:
        if not isinstance(folder, str | Path):
            kind = type(folder).__name__
            raise ValueError(f"{kind} is no path. Pass a folder of sweeps, a card, or a frame.")
        if folder == "":
            raise ValueError("The name of a folder is empty. For the current folder, name a dot.")
    return {Path(folder): name for folder, name in folders}


def jobs_of(*folders: Sweeps | pd.DataFrame, related: bool = True) -> list[FinishedJob]:
    """Return the jobs in folders of sweeps, or the jobs of a frame of predictions.

    With `related=False` pairs of related models are left out.

    Raises:
        ValueError: As in `load_sweep`; the frame has lost its jobs' records, e.g. in a merge; or
            `related` is no truth value.
    """
    if not isinstance(related, bool):
        raise ValueError(f"related={related}: must be True, or False to leave out related pairs.")
    if not related:
        return without_related(jobs_of(*folders))
    sweeps = [folder for folder in folders if not isinstance(folder, pd.DataFrame)]
    if len(sweeps) == len(folders):
        return find_jobs(named_folders(*sweeps))
    if len(folders) > 1:
        raise ValueError("Pass one frame, or only folders.")
    (frame,) = folders
    assert isinstance(frame, pd.DataFrame)
    facts = frame.attrs.get(JOBS, ())
    if not facts:
        raise ValueError(f"The frame has lost frame.attrs[{JOBS!r}]. Copy it from load_sweep.")
    if any(SHOWS_SEED not in job for job in facts):
        raise ValueError("The frame is of an earlier version. Load its sweep again by load_sweep.")
    frame = frame.copy(deep=False)
    frame.attrs = {}  # pandas copies them in every operation
    parts = dict(iter(frame.groupby(["attack", "source"], observed=True, sort=False)))
    jobs = [
        JobInMemory(JobRecord.model_validate(its), Path(), {}, shows_seed=its[SHOWS_SEED])
        for its in facts
    ]
    pairs = [(job, parts.get((job.attack, job.record.source))) for job in jobs]
    return [_with_rows(job, rows) for job, rows in pairs if rows is not None]


def _with_rows(job: JobInMemory, rows: pd.DataFrame) -> JobInMemory:
    """Return a job with the rows that are left of it in a frame."""
    record = job.record
    variants = list(rows["variant"].unique())
    if record.storage not in variants:
        record = record.model_copy(update={"storage": variants[0]})
    columns = [field.name for field in (*PREDICTION_SCHEMA, *NAMES) if field.name in rows]
    tables = {
        PREDICTIONS if name == record.storage else f"{PREDICTIONS}-{name}": (
            pa.Table.from_pandas(table[columns], preserve_index=False)
        )
        for name, table in rows.groupby("variant", observed=True, sort=False)
    }
    there = set(rows.loc[rows["eps_255"] > 0, "target"])
    targets = [name for name in record.targets if name in there] if there else record.targets
    record = record.model_copy(update={"targets": targets})
    return replace(job, record=record, files=dict.fromkeys(tables, Path()), tables=tables)
