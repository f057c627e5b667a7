"""Finished jobs as a report reads them: tables with their provenance, and example images."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from src.analysis.sanity_checks import Alarm
from src.artifacts.layout import EXAMPLES, IMAGES, PREDICTIONS, TOP_FIVE, folder_of_command
from src.artifacts.record import JobRecord, read_record
from src.artifacts.sweep_state import noted_failure
from src.artifacts.tables import read_alarms, read_images, read_job_table
from src.config.sections import CONTROLS
from src.utils.defended_names import PLAIN, split_source

_PREPROCESSING = ("network", "mean", "std", "input_size")


@dataclass(frozen=True)
class StoredJob:
    """A finished job: its record, and the paths of its tables by name.

    The distinction, such as ` seed=1`, tells it from other jobs of its label.
    """

    record: JobRecord
    folder: Path
    files: Mapping[str, Path]
    distinction: str = ""

    @property
    def attack(self) -> str:
        """Return the attack's label with the job's distinction."""
        return f"{self.record.label}{self.distinction}"

    @property
    def attacked(self) -> bool:
        """Tell whether there are adversarial images, or clean ones alone."""
        return bool(self.record.attack)

    @property
    def sweep_folder(self) -> Path:
        """Return the folder of the job's command."""
        return folder_of_command(self.folder)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The primary variant's predictions behind no defence; of the source behind its own."""
        rows = self.defended
        source = split_source(self.record.source)
        own = (rows["target"] == source.target) & (rows["defence"] == source.defence)
        return rows[(rows["defence"] == PLAIN) | own]

    @property
    def defended(self) -> pd.DataFrame:
        """The predictions of the primary variant behind every defence."""
        return self.table(PREDICTIONS)

    @cached_property
    def clean(self) -> pd.DataFrame:
        """The predictions on clean images, with the top five where these are stored."""
        clean = pc.field("eps_255") == 0
        if self.attacked:
            clean &= pc.field("defence") == PLAIN
        table = self._read(TOP_FIVE if TOP_FIVE in self.files else PREDICTIONS)
        return table.filter(clean).to_pandas()

    @property
    def alarms(self) -> list[Alarm]:
        """Alarms that the job has raised."""
        return read_alarms(self.folder)

    def forget(self) -> None:
        """Release the tables that were read."""
        for name in ("predictions", "clean", "flips", "examples", "images", "gallery"):
            self.__dict__.pop(name, None)

    @cached_property
    def flips(self) -> pd.DataFrame | None:
        """The minimum adversarial budgets; None of rounded images: bisection does not round."""
        if "flips" not in self.files or self.record.storage != "float32":
            return None
        return self._read("flips").to_pandas()

    def variants(self) -> dict[str, pd.DataFrame]:
        """Return the predictions by variant, the primary one (`defended`) first, controls last."""
        start = f"{PREDICTIONS}-"
        others = [name.removeprefix(start) for name in self.files if name.startswith(start)]
        others.sort(key=CONTROLS.__contains__)
        tables = {name: self.table(f"{start}{name}") for name in others}
        return {self.record.storage: self.defended} | tables

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name."""
        return self._read(name).to_pandas()

    def _read(self, name: str) -> pa.Table:
        return read_job_table(self.files[name], name, self.record)

    @cached_property
    def examples(self) -> dict[str, np.ndarray]:
        """The example images with their adversarial versions; empty if none were stored."""
        return read_images(self.folder / EXAMPLES)

    @cached_property
    def images(self) -> dict[int, np.ndarray]:
        """Stored clean images, uint8 (3, H, W), by index."""
        return {
            int(number): image
            for arrays in (read_images(self.folder / IMAGES), self.examples)
            if arrays
            for number, image in zip(arrays["index"], arrays["clean"], strict=True)
        }

    @cached_property
    def gallery(self) -> dict[tuple[int, float], np.ndarray]:
        """Stored adversarial images of galleries, uint8 (3, H, W), by index and budget."""
        arrays = read_images(self.folder / IMAGES)
        if "adversarial" not in arrays:
            return {}
        places = zip(arrays["of"].tolist(), arrays["eps_255"].tolist(), strict=True)
        return dict(zip(places, arrays["adversarial"], strict=True))


def find_jobs(
    folders: Iterable[Path], *, none_is_fine: bool = False, below: bool = True
) -> list[StoredJob]:
    """Return the finished jobs whose tables lie in some folders, in their order there.

    Subfolders count if `below`. A job that two sweeps computed is one job with the tables of both.

    Raises:
        ValueError: A folder is not there, a table cannot be read, or there is no job (unless
            `none_is_fine`).
    """
    folders = list(folders)
    files: dict[tuple[str, str, float], dict[str, Path]] = {}
    records: dict[tuple[str, str, float], JobRecord] = {}
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
    jobs = [
        StoredJob(records[place], tables[PREDICTIONS].parent, tables)
        for place, tables in files.items()
        if PREDICTIONS in tables
    ]
    if not jobs and not none_is_fine:
        where = ", ".join(map(str, folders))
        raise ValueError(
            f"{where} holds no predictions of this program (parquet files as its jobs leave them)."
        )
    return disambiguated(jobs)


def disambiguated(jobs: Sequence[StoredJob]) -> list[StoredJob]:
    """Return the jobs with distinct attacks and sources.

    Jobs of one label get their swept words, then the folder of their command, then a number.
    """
    folders = [job.sweep_folder for job in jobs]
    words: dict[tuple[str, Path], list[set[str]]] = {}
    for job in jobs:
        words.setdefault((job.record.label, job.sweep_folder), []).append({*job.record.overrides})
    distinct = []
    for job in jobs:
        shared = set.intersection(*words[job.record.label, job.sweep_folder])
        swept = [word for word in job.record.overrides if word not in shared]
        distinction = "".join(f" {word}" for word in swept if not _is_shown(word, job.record))
        distinct.append(replace(job, distinction=distinction))
    for suffix in (lambda folder: f" ({folder.name})", lambda folder: f" {folders.index(folder)}"):
        counts = Counter((job.attack, job.record.source) for job in distinct)
        distinct = [
            replace(job, distinction=job.distinction + suffix(job.sweep_folder))
            if counts[job.attack, job.record.source] > 1
            else job
            for job in distinct
        ]
    return distinct


def _is_shown(word: str, record: JobRecord) -> bool:
    """Tell whether a word of a command shows in the attack's label or the source's name."""
    names = ("attack", "source", "source_defence")
    return word.partition("=")[0] in names or word.removeprefix("attack.") in record.label


def model_digest(record: JobRecord, name: str) -> str:
    """Return a digest of all that decides a model's logits: weights, settings of its file, code."""
    model = record.config["model"].get(name, {})  # an ensemble has no settings of its own
    settings = {key: model[key] for key in _PREPROCESSING if key in model}
    decisive = json.dumps([record.weights.get(name), settings, record.code.get(name)])
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def _rank(path: Path) -> list[tuple[int, str]]:
    """Return a sort key by which `10-bim` comes after `9-bim`."""
    return [
        (int(match[0]) if (match := re.match(r"\d+", part)) else -1, part) for part in path.parts
    ]
