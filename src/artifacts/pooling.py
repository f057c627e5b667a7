"""Jobs that are one row of a table: those on disjoint images, and the seeds of one attack."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import pandas as pd
import pyarrow as pa

from src.analysis.sanity_checks import Alarm
from src.artifacts.layout import PREDICTIONS
from src.artifacts.record import JobRecord
from src.artifacts.stored_job import StoredJob, model_digest
from src.utils.parquet import read_table

_FACTS = {
    *("attack", "source", "backward_rule", "layer", "norm", "targets", "defences", "storage"),
    *("budgets", "reference", "protocol", "dataset", "class_names", "values"),
    *("precision", "device", "code", "versions"),
}
_SECTIONS = ("attack", "ensemble", "source_defence", "source_draws", "defence")
_ARITHMETIC = ("attack_precision", "fold_batch_norms", "gradient_batch")


def recipe(record: JobRecord) -> str:
    """Return a digest of all that decides a job's rows, except its images and its seed."""
    config = record.config
    settings = [config.get(name) for name in _SECTIONS]
    settings += [config["trainer"].get(name) for name in _ARITHMETIC]
    models = {name: model_digest(record, name) for name in record.weights}
    facts = record.model_dump(mode="json", include=_FACTS)
    text = json.dumps([facts, settings, models], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def row_name(job: StoredJob) -> str:
    """Return a job's name without its seed: that of the row of all seeds."""
    return job.attack.removesuffix(f" seed={job.record.seed}")


def rows_of_seeds(jobs: Iterable[StoredJob]) -> list[list[StoredJob]]:
    """Return the jobs by row: jobs of one name that differ in their seeds alone, by seed."""
    alike: dict[tuple[str, ...], list[StoredJob]] = {}
    for job in jobs:
        place = (recipe(job.record), job.record.data, row_name(job))
        alike.setdefault(place, []).append(job)
    rows = []
    for row in alike.values():
        row.sort(key=lambda job: job.record.seed)
        distinct = len({job.record.seed for job in row}) == len(row)
        rows += [row] if distinct else [[job] for job in row]
    return rows


@dataclass(frozen=True)
class PooledJob(StoredJob):
    """Jobs that differ in their images alone, and have none in common.

    Attributes:
        pooled: The jobs.
        offsets: Number that is added to the numbers of each job's images.
    """

    pooled: tuple[StoredJob, ...] = ()
    offsets: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[StoredJob, ...]:
        """The jobs that were run."""
        return self.pooled

    @property
    def alarms(self) -> list[Alarm]:
        """Alarms that the jobs have raised, each once."""
        return list(dict.fromkeys(alarm for job in self.pooled for alarm in job.alarms))

    def forget(self) -> None:
        """Release the tables that were read."""
        super().forget()
        for job in self.pooled:
            job.forget()

    def _read(self, name: str) -> pa.Table:
        """Read the rows of all jobs; the numbers of images are distinct."""
        tables = []
        for job, offset in zip(self.pooled, self.offsets, strict=True):
            table = job._read(name)
            place = table.schema.get_field_index("index")
            moved = pa.array(table["index"].to_numpy() + offset)
            tables.append(table.set_column(place, table.schema.field(place), moved))
        return pa.concat_tables(tables, promote_options="permissive")

    @cached_property
    def images(self) -> dict[int, np.ndarray]:
        """Stored clean images of all jobs, uint8 (3, H, W), by index."""
        return {
            index + offset: image
            for job, offset in zip(self.pooled, self.offsets, strict=True)
            for index, image in job.images.items()
        }

    @cached_property
    def gallery(self) -> dict[tuple[int, float], np.ndarray]:
        """Stored adversarial images of all jobs, uint8 (3, H, W), by index and budget."""
        return {
            (index + offset, eps): image
            for job, offset in zip(self.pooled, self.offsets, strict=True)
            for (index, eps), image in job.gallery.items()
        }


def pooled(jobs: Iterable[StoredJob]) -> list[StoredJob]:
    """Return the jobs, those that differ in their images alone as one if these are disjoint."""
    alike: dict[tuple[str, int], list[StoredJob]] = {}
    places: dict[int, int] = {}
    for place, job in enumerate(jobs):
        alike.setdefault((recipe(job.record), job.record.seed), []).append(job)
        places[id(job)] = place
    found = [job for same in alike.values() for job in _pool(same)]
    return sorted(found, key=lambda job: min(places[id(part)] for part in job.parts))


def _pool(jobs: Sequence[StoredJob]) -> Sequence[StoredJob]:
    """Return jobs of one recipe and seed as one, or as they are if they share images."""
    if len(jobs) == 1:
        return jobs
    jobs = sorted(jobs, key=lambda job: job.record.data)  # equal images, equal numbers
    images = [_images(job) for job in jobs]
    if pd.concat([its["image"].drop_duplicates() for its in images]).duplicated().any():
        return jobs
    shared = pd.concat([its["index"] for its in images]).duplicated().any()
    sizes = [int(its["index"].max()) + 1 if shared else 0 for its in images]
    return [_pooled_job(jobs, tuple(accumulate(sizes[:-1], initial=0)))]


def _images(job: StoredJob) -> pd.DataFrame:
    """Return number and digest of each of a job's images."""
    columns = read_table(job.files[PREDICTIONS], columns=["index", "image"])
    return columns.to_pandas().drop_duplicates()


def _pooled_job(jobs: Sequence[StoredJob], offsets: tuple[int, ...]) -> PooledJob:
    """Return the job of all jobs, with the tables of single images that each of them has."""
    first, records = jobs[0], [job.record for job in jobs]
    seconds = [record.seconds for record in records]
    digests = {
        name: hashlib.sha256(repr([getattr(one, name) for one in records]).encode()).hexdigest()
        for name in ("key", "crafting", "data")
    }
    record = first.record.model_copy(
        update={
            **{name: digest[:16] for name, digest in digests.items()},
            "images": sum(record.images for record in records),
            "gradients": sum(record.gradients for record in records),
            "zero_gradients": sum(record.zero_gradients for record in records),
            "seconds": None if None in seconds else sum(filter(None, seconds)),
            "overrides": tuple(
                word
                for word in first.record.overrides
                if all(word in record.overrides for record in records)
            ),
        }
    )
    means = {"spectra"}  # a table without a row per image
    names = set.intersection(*({*job.files} for job in jobs)) - means
    files = {name: path for name, path in first.files.items() if name in names}
    sweeps = tuple(dict.fromkeys(sweep for job in jobs for sweep in job.sweeps))
    return PooledJob(
        record, first.folder, files, sweeps=sweeps, pooled=tuple(jobs), offsets=offsets
    )
