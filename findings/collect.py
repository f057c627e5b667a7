"""Finished jobs to the small tables that findings are rebuilt from."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from src.artifacts import TOP_FIVE, JobRecord, find_jobs, with_record
from src.utils.files import atomic_write, write_text

TOLD = {"overrides", "flags", "commit", "created", "versions", "device", "data", "weights"}
ABSOLUTE = re.compile(r"(?<![\w.])(?<!:/)/(?:[^/\"'\s]+/)+")
"""Folders of the machine where a job ran, which mean nothing elsewhere; not those in URLs."""


def collect(sweeps: Sequence[Path], results: Path) -> None:
    """Store the tables of some sweeps' jobs without the top five.

    A table's metadata says what its job was, and `provenance.json` the most of it: words of the
    command, commit, versions, digests of weights and data. Classes keep their numbers alone.

    Args:
        sweeps: Their folders.
        results: Folder of the tables, which get a folder a job and replace those of earlier jobs.

    Raises:
        ValueError: The tables would replace those that they come from.
    """
    provenance, jobs = [], find_jobs(sweeps)
    if any(job.folder.resolve().is_relative_to(results.resolve()) for job in jobs):
        raise ValueError(f"{results} holds jobs that are to be stored there.")
    for earlier in results.glob("[0-9]*-*/"):
        shutil.rmtree(earlier)
    for number, job in enumerate(jobs):
        folder = results / f"{number}-{job.folder.name.partition('-')[2]}"
        folder.mkdir(parents=True, exist_ok=True)
        record = JobRecord.model_validate_json(ABSOLUTE.sub("", job.record.model_dump_json()))
        numbers = tuple(map(str, range(len(record.class_names))))
        record = record.model_copy(update={"class_names": numbers})
        for name in job.tables.keys() - {TOP_FIVE}:
            table = job.read(name)
            with atomic_write(folder / f"{name}.parquet") as temporary:
                pq.write_table(with_record(table, name, record), temporary, compression="zstd")
        provenance.append({"folder": folder.name, **record.model_dump(mode="json", include=TOLD)})
    write_text(results / "provenance.json", json.dumps(provenance, indent=1) + "\n")
