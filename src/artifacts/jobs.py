"""Finished jobs, read from their files: tables with provenance, and pictures."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..analysis.sanity_checks import Alarm
from ..config.sections import CONTROLS
from ..utils.model_names import NO_DEFENCE
from .card import CardJob, read_card
from .layout import IMAGE_LIST, IMAGES, PREDICTIONS, TOP_FIVE, folder_of_command, kind_of
from .likeness import digest, recipe
from .record import JobRecord, read_record
from .sweep_state import noted_failure
from .tables import read_alarms, read_images, read_job_table, read_table


@dataclass(frozen=True)
class FinishedJob:
    """A finished job: its record, and the paths of its tables by name.

    Attributes:
        title: The label plus what tells the job apart from others, except the seed; empty: the
            label alone.
        shows_seed: Whether the seed tells the job apart from others.
        sweeps: Names of the sweeps that contain the job.
        pooled: Jobs on disjoint images that this one combines; empty: it was run as it is.
        offset: Number added to its image indices, so that pooled jobs have different ones.
    """

    record: JobRecord
    folder: Path
    files: Mapping[str, Path]
    title: str = ""
    shows_seed: bool = False
    sweeps: tuple[str, ...] = ()
    pooled: tuple["FinishedJob", ...] = ()
    offset: int = 0

    @property
    def attack(self) -> str:
        """The job's name among others: its title, and the seed if that tells it apart."""
        return self.row_title + f" seed={self.record.seed}" * self.shows_seed

    @property
    def row_title(self) -> str:
        """The name of the row that combines all seeds."""
        return self.title or self.record.label

    @property
    def parts(self) -> tuple["FinishedJob", ...]:
        """The jobs that were run: the pooled ones, or this one."""
        return self.pooled or (self,)

    @property
    def attacked(self) -> bool:
        """True if there are adversarial images, False if only clean ones."""
        return bool(self.record.attack)

    @property
    def sweep_folder(self) -> Path:
        """Return the folder of the job's command."""
        return folder_of_command(self.folder)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The primary variant's predictions without defences, plus the source behind its own."""
        rows = self.defended
        source = self.record.source_model
        source_rows = (rows["target"] == source.model) & (rows["defence"] == source.defence)
        return rows[(rows["defence"] == NO_DEFENCE) | source_rows]

    @cached_property
    def defended(self) -> pd.DataFrame:
        """The primary variant's predictions, with and without defences."""
        return self.table(PREDICTIONS)

    @cached_property
    def clean(self) -> pd.DataFrame:
        """The predictions on clean images, with the top five classes if stored."""
        clean = pc.field("eps_255") == 0
        if self.attacked:
            clean &= pc.field("defence") == NO_DEFENCE
        table = self.read(TOP_FIVE if TOP_FIVE in self.files else PREDICTIONS)
        return table.filter(clean).to_pandas()

    @property
    def alarms(self) -> list[Alarm]:
        """Alarms that the job raised."""
        return list(dict.fromkeys(alarm for job in self.parts for alarm in job.read_alarms()))

    def read_alarms(self) -> Sequence[Alarm]:
        """Return the alarms of a job that was run as it is."""
        return read_alarms(self.folder)

    def forget(self) -> None:
        """Release the tables from memory."""
        for name in ("defended", "predictions", "clean", "flips", "pictures"):
            self.__dict__.pop(name, None)

    @cached_property
    def flips(self) -> pd.DataFrame | None:
        """Minimum adversarial budgets; None for rounded images, as bisection does not round."""
        if "flips" not in self.files or self.record.storage != "float32":
            return None
        return self.read("flips").to_pandas()

    def variants(self) -> dict[str, pd.DataFrame]:
        """Return the predictions by variant, the primary one (`defended`) first, controls last."""
        start = f"{PREDICTIONS}-"
        others = [name.removeprefix(start) for name in self.files if name.startswith(start)]
        others.sort(key=CONTROLS.__contains__)
        tables = {name: self.table(f"{start}{name}") for name in others}
        return {self.record.storage: self.defended} | tables

    def table(self, name: str) -> pd.DataFrame:
        """Return the table of this name."""
        return self.read(name).to_pandas()

    def read(self, name: str) -> pa.Table:
        """Return the table of this name, with the image indices of pooled jobs."""
        if self.pooled:
            parts = [job.read(name) for job in self.pooled]
            return pa.concat_tables(parts, promote_options="default")
        table = self.read_table(name)
        if not self.offset:
            return table
        place, numbers = table.schema.get_field_index("index"), pc.add(table["index"], self.offset)
        return table.set_column(place, table.schema.field(place), numbers)

    def read_table(self, name: str) -> pa.Table:
        """Return a table of a job that was run as it is."""
        return read_job_table(self.files[name], name, self.record)

    def read_images(self) -> pd.DataFrame:
        """Return the `index` and the digest `image` in each row of a job that was run as it is."""
        return read_table(self.files[PREDICTIONS], columns=["index", "image"]).to_pandas()

    def as_card(self) -> CardJob:
        """Return what a card holds of a job that was run as it is."""
        number = re.match(r"\d+(?=-)", self.folder.name)
        names = [name for name in self.files if name.partition("-")[0] == PREDICTIONS]
        names.sort(key=PREDICTIONS.__ne__)
        tables = {name: self.read_table(name) for name in names}
        place = self.sweep_folder.absolute().name, int(number[0]) if number else 0
        return CardJob(self.record, place, self.read_alarms(), tables)

    @cached_property
    def image_files(self) -> dict[int, str]:
        """The images' files by number, as in `images.csv`; empty without a list of files."""
        files, types = dict[int, str](), {"index": np.int64, "file": str}
        lists = {job.folder / IMAGE_LIST: job.offset for job in self.parts}
        for path in filter(Path.is_file, lists):  # reading a named pipe would block for ever
            with suppress(OSError, ValueError):  # it cannot be read, or is an older version's
                listed = pd.read_csv(path, usecols=[*types], dtype=types).dropna()
                names = listed["file"].str.replace(r"^'(?=[=+\-@])", "", regex=True)  # no formulas
                files |= zip(listed["index"] + lists[path], names, strict=True)
        return files

    @cached_property
    def pictures(self) -> dict[int, dict[float, np.ndarray]]:
        """Stored pictures, uint8 (3, H, W), by image and budget; the clean one has budget 0."""
        images = dict[int, dict[float, np.ndarray]]()
        for job in self.parts:
            if arrays := read_images(job.folder / IMAGES):
                budgets = [0.0, *arrays["eps_255"].tolist()]
                versions = zip(arrays["clean"], *arrays["adversarial"], strict=True)
                for index, its in zip(arrays["index"].tolist(), versions, strict=True):
                    images[index + job.offset] = dict(zip(budgets, its, strict=True))
        return images


@dataclass(frozen=True)
class JobInMemory(FinishedJob):
    """A finished job whose tables and alarms are in memory."""

    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    raised: Sequence[Alarm] = ()

    def read_alarms(self) -> Sequence[Alarm]:
        """Return the alarms that the job raised; none for the jobs of a frame."""
        return self.raised

    def read_table(self, name: str) -> pa.Table:
        """Return a table."""
        return self.tables[name]

    def read_images(self) -> pd.DataFrame:
        """Return the `index` and the digest `image` in each row."""
        return self.tables[PREDICTIONS].select(["index", "image"]).to_pandas()


def find_jobs(
    folders: Iterable[Path], *, none_is_fine: bool = False, below: bool = True
) -> list[FinishedJob]:
    """Return the finished jobs in some folders and cards: folders first, each in their order.

    A job computed by two sweeps is one job with the tables of both. Jobs that differ only in the
    choice of their images are pooled into one if these are disjoint. If `folders` maps folders to
    names, all jobs of a named folder belong to one sweep, and are pooled with no other's.

    Args:
        folders: The folders, and the files of cards.
        none_is_fine: True: return an empty list if there is no job.
        below: True: also search subfolders.

    Raises:
        ValueError: A folder does not exist, a table cannot be read, two jobs cannot be told apart,
            or there is no job (unless `none_is_fine`).
    """
    names = folders if isinstance(folders, Mapping) else dict.fromkeys(folders, "")
    files: dict[tuple[str, str, float], dict[str, Path]] = {}
    jobs: dict[tuple[str, str, float], FinishedJob] = {}
    cards = [folder for folder in names if folder.is_file()]
    for folder, sweep in ((its, names[its]) for its in names if its not in cards):
        if not folder.is_dir():
            raise ValueError(f"{folder} {kind_of(folder)}. Name a folder of sweeps, or a card.")
        paths = folder.rglob("*.parquet") if below else folder.glob("*.parquet")
        for path in sorted(paths, key=_rank):
            stale = path.name.startswith(".") or noted_failure(path.parent) is not None
            if not stale and (name_and_record := read_record(path)):
                name, record = name_and_record
                place = (record.key, record.protocol, record.reference)
                files.setdefault(place, {}).setdefault(name, path)
                job = jobs.setdefault(place, FinishedJob(record, path.parent, files[place]))
                its = sweep or folder_of_command(path.parent).absolute().name
                if its not in job.sweeps:
                    jobs[place] = replace(job, sweeps=(*job.sweeps, its))
    for card in cards:
        for job in _jobs_of_card(card):
            place = (job.record.key, job.record.protocol, job.record.reference)
            known = jobs.setdefault(place, job)  # a folder's tables are more exact
            its = names[card] or job.sweep_folder.name
            if its not in known.sweeps:
                jobs[place] = replace(known, sweeps=(*known.sweeps, its))
    finished = [
        replace(job, folder=job.files[PREDICTIONS].parent)
        for job in jobs.values()
        if PREDICTIONS in job.files
    ]
    if not finished and not none_is_fine:
        where = ", ".join(map(str, names)) or "An empty list of folders"
        raise ValueError(
            f"{where} has no predictions of this program (parquet files written by jobs)."
        )
    return _named(_titled(_pooled(finished, {*names.values()} - {""})))


def _jobs_of_card(card: Path) -> list[FinishedJob]:
    """Return a card's jobs; their folders do not exist, and stand for those that it was made of."""
    jobs = list[FinishedJob]()
    for job in read_card(card):
        sweep, number = job.place
        folder = card / Path(sweep).name / f"{number}-job"
        files = {name: folder / f"{name}.parquet" for name in job.tables}
        jobs.append(
            JobInMemory(job.record, folder, files, tables=job.tables, raised=tuple(job.alarms))
        )
    return jobs


def rows_of_seeds(jobs: Iterable[FinishedJob]) -> list[list[FinishedJob]]:
    """Group jobs that differ only in their seeds; each group is sorted by seed."""
    alike, rows = defaultdict[tuple[str, ...], list[FinishedJob]](list), []
    for job in jobs:
        alike[recipe(job.record), job.record.data, job.row_title].append(job)
    for row in alike.values():
        row.sort(key=lambda job: job.record.seed)
        distinct = len({job.record.seed for job in row}) == len(row)
        rows += [row] if distinct else [[job] for job in row]
    return rows


def _pooled(jobs: Sequence[FinishedJob], named: Collection[str]) -> list[FinishedJob]:
    """Return the jobs; pool those that differ only in the choice of images, if these are disjoint.

    What the user named stays apart.
    """
    alike = defaultdict[tuple[str, ...], list[FinishedJob]](list)
    for job in jobs:
        place = (recipe(job.record), job.record.crafting, digest(job.record.target_keys))
        alike[*place, *(sweep for sweep in job.sweeps if sweep in named)].append(job)
    return [job for same in alike.values() for job in _pool(same)]


def _pool(jobs: Sequence[FinishedJob]) -> Sequence[FinishedJob]:
    """Pool jobs with the same recipe and seed into one; return them unchanged if images overlap."""
    if len(jobs) == 1:
        return jobs
    sweeps = _sweeps(jobs)
    jobs = sorted(jobs, key=lambda job: job.record.data)  # equal offsets for equal images
    images = [_images(job) for job in jobs]
    digests = set.intersection(*({*its} for its in images)) - {"index"}
    if any(_shared(its[name] for its in images) for name in digests):
        return jobs
    move = _shared(its["index"] for its in images)
    starts = accumulate((move * (int(its["index"].max()) + 1) for its in images), initial=0)
    parts = [replace(job, offset=start) for job, start in zip(jobs, starts, strict=False)]
    records, first = [job.record for job in jobs], jobs[0]
    counts = ("images", "gradients")
    facts: dict[str, Any] = {
        name: sum(getattr(record, name) for record in records) for name in counts
    }
    facts |= {
        name: digest([getattr(record, name) for record in records]) for name in ("key", "data")
    }
    record = first.record.model_copy(update={**facts, "seconds": None, "zero_gradients": None})
    names = set.intersection(*({*job.files} for job in jobs)) - {"spectra"}  # no row per image
    files = {name: path for name, path in first.files.items() if name in names}
    return [FinishedJob(record, first.folder, files, sweeps=sweeps, pooled=tuple(parts))]


def _images(job: FinishedJob) -> pd.DataFrame:
    """Return the images of a job: `index`, `image` and, if they are listed, `photograph`."""
    images = job.read_images()
    names = ["index", "photograph"]
    with suppress(OSError, ValueError):  # there is no list, or it is an older version's
        listed = pd.read_csv(job.folder / IMAGE_LIST, usecols=names, dtype={names[1]: str})
        images = images.merge(listed, on="index")
    return images.drop_duplicates()


def _shared(columns: Iterable[pd.Series]) -> bool:
    """Return True if any two columns have a value in common."""
    return bool(pd.concat([its.drop_duplicates() for its in columns]).duplicated().any())


def _sweeps(jobs: Iterable[FinishedJob]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sweep for job in jobs for sweep in job.sweeps))


def _titled(jobs: Sequence[FinishedJob]) -> list[FinishedJob]:
    """Return the jobs with titles that state the swept overrides which their labels lack."""
    overrides = defaultdict[tuple[str, Path], list[set[str]]](list)
    for job in jobs:
        overrides[job.record.label, job.sweep_folder].append({*job.record.overrides})
    distinct = []
    for job in jobs:
        shared = set.intersection(*overrides[job.record.label, job.sweep_folder])
        swept = [word for word in job.record.overrides if word not in shared]
        shown = [word for word in swept if not job.record.shows(word)]
        seed = f"seed={job.record.seed}"
        title = " ".join([job.record.label, *(word for word in shown if word != seed)])
        distinct.append(replace(job, title=title, shows_seed=seed in shown))
    return distinct


def _named(jobs: Sequence[FinishedJob]) -> list[FinishedJob]:
    """Return the jobs with distinct names, the seeds of one attack next to each other.

    A sweep's name is added to all of its jobs if one of them has the same attack and source as a
    different row.
    """
    places = defaultdict[tuple[str, str], dict[tuple[str, ...], list[FinishedJob]]](dict)
    for row in rows_of_seeds(jobs):
        row = [replace(job, shows_seed=job.shows_seed and len(row) == 1) for job in row]
        sweeps = _sweeps(row)
        other = places[row[0].attack, row[0].record.source].setdefault(sweeps, row)[0]
        if other is not row[0]:
            raise ValueError(
                f"{other.folder} and {row[0].folder} have different jobs named {other.attack} on "
                f"{other.record.source}. Name their sweeps, as in day1={other.sweep_folder}."
            )
    clashing = {sweeps for rows in places.values() if len(rows) > 1 for sweeps in rows}
    named_jobs = []
    for rows in places.values():
        for sweeps, row in rows.items():
            end = f" ({'+'.join(sweeps)})" if sweeps in clashing else ""
            named_jobs += [
                replace(job, title=job.row_title + end, shows_seed=job.shows_seed or len(row) > 1)
                for job in row
            ]
    return named_jobs


def _rank(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts `10-bim` after `9-bim`."""
    return [
        (int(match[0]) if (match := re.match(r"\d+", part)) else -1, part) for part in path.parts
    ]
