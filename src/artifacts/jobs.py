"""The finished jobs in some folders, pooled, and with names that tell them apart."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from src.artifacts.layout import PREDICTIONS, folder_of_command
from src.artifacts.pooling import pooled, row_name, rows_of_seeds
from src.artifacts.record import JobRecord, read_record
from src.artifacts.stored_job import StoredJob
from src.artifacts.sweep_state import noted_failure

Place = tuple[str, str, float]


def find_jobs(
    folders: Iterable[Path],
    names: Mapping[Path, str] | None = None,
    *,
    none_is_fine: bool = False,
    below: bool = True,
) -> list[StoredJob]:
    """Return the finished jobs whose tables lie in some folders, in their order there.

    Subfolders count if `below`. A job that two sweeps computed is one job with the tables of both;
    jobs that differ in their images alone are one if these are disjoint. All jobs of a folder with
    a name count as one sweep of that name.

    Raises:
        ValueError: A folder is not there, a table cannot be read, two jobs cannot be told apart,
            or there is no job (unless `none_is_fine`).
    """
    folders = list(folders)
    files: dict[Place, dict[str, Path]] = {}
    records: dict[Place, JobRecord] = {}
    sweeps = defaultdict[Place, dict[str | Path, None]](dict)
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder.")
        paths = folder.rglob("*.parquet") if below else folder.glob("*.parquet")
        for path in sorted(paths, key=_rank):
            stale = path.name.startswith(".") or noted_failure(path.parent) is not None
            if not stale and (name_and_record := read_record(path)):
                name, record = name_and_record
                place = (record.key, record.protocol, record.reference)
                records.setdefault(place, record)
                files.setdefault(place, {}).setdefault(name, path)
                sweeps[place][(names or {}).get(folder) or folder_of_command(path.parent)] = None
    shown = _sweep_names(sweep for its in sweeps.values() for sweep in its)
    jobs = [
        StoredJob(
            records[place],
            tables[PREDICTIONS].parent,
            tables,
            sweeps=tuple(shown[sweep] for sweep in sweeps[place]),
        )
        for place, tables in files.items()
        if PREDICTIONS in tables
    ]
    if not jobs and not none_is_fine:
        where = ", ".join(map(str, folders))
        raise ValueError(
            f"{where} holds no predictions of this program (parquet files as its jobs leave them)."
        )
    return _named(_with_swept_words(pooled(jobs)))


def _sweep_names(sweeps: Iterable[str | Path]) -> dict[str | Path, str]:
    """Return each sweep's name: the one given, or its folder's, with the path if two share it."""
    distinct = dict.fromkeys(sweeps)
    short = {sweep: Path(sweep).absolute().name for sweep in distinct}
    counts = Counter(short.values())
    return {
        sweep: sweep if isinstance(sweep, str) else name if counts[name] == 1 else str(sweep)
        for sweep, name in short.items()
    }


def _with_swept_words(jobs: Sequence[StoredJob]) -> list[StoredJob]:
    """Add the swept words that the label lacks to the names of jobs, their seeds last."""
    words: dict[tuple[str, Path], list[set[str]]] = {}
    for job in jobs:
        words.setdefault((job.record.label, job.sweep_folder), []).append({*job.record.overrides})
    distinct = []
    for job in jobs:
        shared = set.intersection(*words[job.record.label, job.sweep_folder])
        swept = [word for word in job.record.overrides if word not in shared]
        shown = [word for word in swept if not _is_shown(word, job.record)]
        shown.sort(key=lambda word: word.startswith("seed="))
        distinct.append(replace(job, name=" ".join([job.record.label, *shown])))
    return distinct


def _named(jobs: Sequence[StoredJob]) -> list[StoredJob]:
    """Return the jobs with distinct names, the seeds of one attack beside each other.

    A sweep's name is added to all its jobs if one of them has attack and source of another row.
    """
    rows = [
        (row, tuple(dict.fromkeys(sweep for job in row for sweep in job.sweeps)))
        for row in rows_of_seeds(jobs)
    ]
    places = defaultdict[tuple[str, str], list[tuple[str, ...]]](list)
    for row, sweeps in rows:
        name = row_name(row[0]) if len(row) > 1 else row[0].attack
        places[name, row[0].record.source].append(sweeps)
    clashing = {sweeps for same in places.values() if len(same) > 1 for sweeps in same}
    found: dict[tuple[str, str], StoredJob] = {}
    for row, sweeps in rows:
        suffix = f" ({'+'.join(sweeps)})" if sweeps in clashing else ""
        for job in row:
            seed = f" seed={job.record.seed}"
            end = seed if len(row) > 1 or job.attack.endswith(seed) else ""
            name = f"{row_name(job)}{suffix}{end}"
            other = found.setdefault((name, job.record.source), job)
            if other is not job:
                raise ValueError(
                    f"{other.folder} and {job.folder} hold different jobs named {name} from "
                    f"{job.record.source}; name their folders, as in day1={other.folder}."
                )
            found[name, job.record.source] = replace(job, name=name)
    return list(found.values())


def _is_shown(word: str, record: JobRecord) -> bool:
    """Tell whether a word of a command shows in the attack's label or the source's name."""
    names = ("attack", "source", "source_defence")
    return word.partition("=")[0] in names or word.removeprefix("attack.") in record.label


def _rank(path: Path) -> list[tuple[int, str]]:
    """Return a sort key by which `10-bim` comes after `9-bim`."""
    return [
        (int(match[0]) if (match := re.match(r"\d+", part)) else -1, part) for part in path.parts
    ]
