"""Finished jobs in folders and cards: found, told apart and named."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..utils.refusals import warn_once
from .card import read_card
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
from .finished_job import FinishedJob
from .layout import PREDICTIONS, kind_of
from .record import JobRecord, read_record
from .sweep_state import noted_failure

MORE_IMAGES = "For more images of one data set, raise n_images: stored rows are reused."


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
                job.tables.setdefault(name, path)
    for card in cards:
        for job in read_card(card):
            add(job, names[card])
    finished = [job for job in jobs.values() if PREDICTIONS in job.tables]
    for number, job in enumerate(finished):
        if isinstance(path := job.tables[PREDICTIONS], Path):
            finished[number] = replace(job, folder=path.parent)
    if not finished and not of_jobs:
        where = ", ".join(map(str, names)) or "An empty list of folders"
        raise ValueError(
            f"{where} has no predictions of this program (parquet files written by jobs)."
        )
    return name_jobs(finished)


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
