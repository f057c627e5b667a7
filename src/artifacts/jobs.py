"""Finished jobs, read from their files: tables with provenance, and pictures."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..utils.model_names import NO_DEFENCE
from ..utils.refusals import warn_once
from ..utils.vocabulary import CONTROLS
from .card import CardJob, read_card
from .comparable import (
    ALIKE,
    FIELDS,
    RELATED_BY,
    SETTINGS,
    Group,
    digest,
    groups_of,
    overlaps,
    recipe,
    titles_of,
)
from .layout import IMAGE_LIST, IMAGES, PREDICTIONS, TOP_FIVE, folder_of_command, kind_of
from .record import JobRecord, read_record
from .sweep_state import noted_failure
from .tables import Alarm, read_alarms, read_images, read_job_table

MORE_IMAGES = "For more images of one data set, raise n_images: stored rows are reused."


@dataclass(frozen=True)
class FinishedJob:
    """A finished job: its record, and the paths of its tables by name.

    Attributes:
        title: The label plus what tells the job apart from others, except the seed; empty: the
            label alone.
        shows_seed: Whether the seed tells the job apart from others.
        sweeps: Names of the sweeps that contain the job.
        written: The record in its files, if `record` has fewer targets.
    """

    record: JobRecord
    folder: Path
    files: dict[str, Path]
    title: str = ""
    shows_seed: bool = False
    sweeps: tuple[str, ...] = ()
    written: JobRecord | None = None

    @property
    def attack(self) -> str:
        """The job's name among others: its title, and the seed if that tells it apart."""
        return self.row_title + f" seed={self.record.seed}" * self.shows_seed

    @property
    def row_title(self) -> str:
        """The name of the row that combines all seeds."""
        return self.title or self.record.label

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
    def alarms(self) -> Sequence[Alarm]:
        """Alarms that the job raised."""
        return read_alarms(self.folder)

    def forget(self) -> None:
        """Release the tables from memory."""
        for name in ("defended", "predictions", "clean", "pictures"):
            self.__dict__.pop(name, None)

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
        """Return the table of this name."""
        return read_job_table(self.files[name], name, self.written or self.record)

    def as_card(self) -> CardJob:
        """Return what a card holds of the job."""
        number = re.match(r"\d+(?=-)", self.folder.name)
        names = [name for name in self.files if name.partition("-")[0] == PREDICTIONS]
        names.sort(key=PREDICTIONS.__ne__)
        tables = {name: self.read(name) for name in names}
        place = str(self.sweep_folder.absolute()), int(number[0]) if number else 0
        return CardJob(self.record, place, self.alarms, tables)

    @cached_property
    def image_files(self) -> dict[int, str]:
        """The images' files by number, as in `images.csv`; empty without a list of files."""
        path, types = self.folder / IMAGE_LIST, {"index": np.int64, "file": str}
        with suppress(OSError, ValueError):  # it cannot be read
            if path.is_file():  # reading a named pipe would block for ever
                listed = pd.read_csv(path, usecols=[*types], dtype=types).dropna()
                names = listed["file"].str.replace(r"^'(?=[=+\-@])", "", regex=True)  # no formulas
                return dict(zip(listed["index"], names, strict=True))
        return {}

    @cached_property
    def pictures(self) -> dict[int, dict[float, np.ndarray]]:
        """Stored pictures, uint8 (3, H, W), by image and budget; the clean one has budget 0."""
        if not (arrays := read_images(self.folder / IMAGES)):
            return {}
        budgets = [0.0, *arrays["eps_255"].tolist()]
        versions = zip(arrays["clean"], *arrays["adversarial"], strict=True)
        return {
            index: dict(zip(budgets, paths, strict=True))
            for index, paths in zip(arrays["index"].tolist(), versions, strict=True)
        }


@dataclass(frozen=True)
class JobInMemory(FinishedJob):
    """A finished job whose tables and alarms are in memory."""

    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()  # none for the jobs of a frame

    def read(self, name: str) -> pa.Table:
        """Return the table of this name."""
        return self.tables[name]


def find_jobs(folders: Iterable[Path], *, of_jobs: bool = False) -> list[FinishedJob]:
    """Return the finished jobs in some folders and cards: folders first, each in their order.

    A job computed by two sweeps is one job with the tables of both. If `folders` maps folders to
    names, all jobs of a named folder belong to one sweep.

    Args:
        folders: The folders, and the files of cards.
        of_jobs: The folders are those of jobs: subfolders are not searched, and there may be no
            finished job.

    Raises:
        ValueError: A folder does not exist, a table cannot be read, two jobs cannot be told apart,
            or there is no job (unless `of_jobs`).
    """
    names = folders if isinstance(folders, Mapping) else dict.fromkeys(folders, "")
    jobs: dict[tuple[str, str, float], FinishedJob] = {}

    def add(job: FinishedJob, sweep: str) -> FinishedJob:
        """Return the job of this record: the first one, in the sweeps of all."""
        place = (job.record.key, job.record.protocol, job.record.reference)
        first, name = jobs.get(place, job), sweep or job.sweep_folder.absolute().name
        if first.sweep_folder == job.sweep_folder and first.folder != job.folder:
            warn_once(f"{job.folder} repeats {first.folder}: they count as one job.")
        jobs[place] = replace(first, sweeps=tuple(dict.fromkeys([*first.sweeps, name])))
        return jobs[place]

    cards = [folder for folder in names if folder.is_file()]
    for folder, sweep in ((place, names[place]) for place in names if place not in cards):
        if not folder.is_dir():
            raise ValueError(f"{folder} {kind_of(folder)}. Name a folder of sweeps, or a card.")
        paths = folder.glob("*.parquet") if of_jobs else folder.rglob("*.parquet")
        for path in sorted(paths, key=_rank):
            stale = path.name.startswith(".") or noted_failure(path.parent) is not None
            if not stale and (name_and_record := read_record(path)):
                name, record = name_and_record
                job = add(FinishedJob(record, path.parent, {}), sweep)
                job.files.setdefault(name, path)
    for card in cards:
        for job in _jobs_of_card(card):
            add(job, names[card])
    finished = [
        replace(job, folder=job.files[PREDICTIONS].parent)
        for job in jobs.values()
        if PREDICTIONS in job.files
    ]
    if not finished and not of_jobs:
        where = ", ".join(map(str, names)) or "An empty list of folders"
        raise ValueError(
            f"{where} has no predictions of this program (parquet files written by jobs)."
        )
    return name_jobs(finished)


def _jobs_of_card(card: Path) -> Iterator[FinishedJob]:
    """Yield a card's jobs; their folders do not exist, and stand for those that it was made of."""
    for job in read_card(card):
        sweep, number = job.place
        folder = card / Path(sweep).name / f"{number}-job"
        files = {name: folder / f"{name}.parquet" for name in job.tables}
        yield JobInMemory(job.record, folder, files, tables=job.tables, alarms=tuple(job.alarms))


def without_related(jobs: Iterable[FinishedJob]) -> list[FinishedJob]:
    """Return the jobs without targets that are `RELATED_BY` something to another source."""
    others = []
    for job in jobs:
        record, source = job.record, job.record.source_model
        targets = [
            name
            for name in record.targets
            if name in source.members or not RELATED_BY & {*overlaps(record, record.source, name)}
        ]
        if targets or not record.targets:
            fewer = record.model_copy(update={"targets": targets})
            others.append(replace(job, record=fewer, written=job.written or record))
    return others


def on_other_images(jobs: Iterable[FinishedJob]) -> bool:
    """Return True if some jobs differ only in their images and seeds."""
    images = defaultdict[str, set[str]](set)
    for job in jobs:
        images[recipe(job.record)].add(job.record.data)
    return any(len(digests) > 1 for digests in images.values())


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


def name_jobs(jobs: Sequence[FinishedJob], alike: Sequence[str] = ALIKE) -> list[FinishedJob]:
    """Return the jobs with titles that tell rows apart, the seeds of a row next to each other.

    A title is the label and the swept overrides that it lacks. If jobs of one such title differ in
    facts of `alike`, it gets these; if rows of one source still share it, it gets all of `ALIKE`.
    If jobs of one title have other settings, or rows of one source still share it, all jobs of
    their sweeps get the name of the sweep; within one sweep, other settings get their digest.
    """
    rows = rows_of_seeds(_with_swept(jobs))
    columns = {
        "title": _titles(rows, alike),
        "whole": _titles(rows, ALIKE),
        "source": [row[0].record.source for row in rows],
        "settings": [str(FIELDS[SETTINGS](row[0].record))[:6] for row in rows],
        "sweeps": ["+".join({name: 0 for job in row for name in job.sweeps}) for row in rows],
    }
    table, place = pd.DataFrame(columns, dtype=object), ["title", "source"]
    twice = table.duplicated(place, keep=False).groupby(table["title"]).transform("any")
    table["title"] = table["title"].mask(twice, table["whole"])
    by_title = table.groupby("title")[["settings", "sweeps"]].transform("nunique")
    versions = table.groupby(["title", "sweeps"])["settings"].transform("nunique")
    mixed = versions.groupby(table["title"]).transform("max") > 1
    table["title"] += (" (settings " + table["settings"] + ")").where(mixed, "")
    clash = (by_title["settings"] > 1) & ~mixed
    clash |= table.groupby(place)["sweeps"].transform("nunique") > 1
    clash = table["sweeps"].isin(table.loc[clash, "sweeps"])
    table["title"] += (" (" + table["sweeps"] + ")").where(clash, "")
    for (title, source), members in table.groupby(place, sort=False):
        if len(members) > 1:
            first, second = (rows[at][0] for at in members.index[:2])
            raise ValueError(
                f"{first.folder} and {second.folder} have different jobs named {title} on "
                f"{source}. Name their sweeps, as in day1={first.sweep_folder}."
            )
    return [
        replace(job, title=title, shows_seed=len(row) > 1)
        for row, title in zip(rows, table["title"], strict=True)
        for job in row
    ]


def _titles(rows: Sequence[Sequence[FinishedJob]], alike: Sequence[str]) -> list[str]:
    """Return the title of each row, with the facts that tell it from others of its title."""
    groups = groups_of((row[0].record for row in rows), alike)
    members = defaultdict[str, defaultdict[Group, list[JobRecord]]](lambda: defaultdict(list))
    for row, group in zip(rows, groups, strict=True):
        members[row[0].title][group] += [job.record for job in row]
    told = {title: titles_of(records) for title, records in members.items()}
    titles, first = list[str](), dict[str, Group]()
    for row, group in zip(rows, groups, strict=True):
        fact = told[row[0].title][group]
        title = row[0].title + f" ({fact})" * bool(fact)
        if first.setdefault(title, group) != group:  # a label that reads like a title
            title += f" ({digest(group)[:6]})"
        titles.append(title)
    return titles


def _with_swept(jobs: Sequence[FinishedJob]) -> list[FinishedJob]:
    """Return the jobs with titles that state the swept overrides, except seeds, after the label."""
    overrides = defaultdict[tuple[str, Path], list[set[str]]](list)
    for job in jobs:
        overrides[job.record.label, job.sweep_folder].append({*job.record.overrides})
    titled = []
    for job in jobs:
        shared = set.intersection(*overrides[job.record.label, job.sweep_folder])
        left_out = {*shared, f"seed={job.record.seed}"}
        swept = [word for word in job.record.overrides if word not in left_out]
        words = (word for word in swept if not job.record.shows(word))
        titled.append(replace(job, title=" ".join([job.record.label, *words])))
    return titled


def _rank(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts `10-bim` after `9-bim`."""
    return [
        (int(match[0]) if (match := re.match(r"\d+", part)) else -1, part) for part in path.parts
    ]
