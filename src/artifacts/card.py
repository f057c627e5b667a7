"""A card: the predictions and records of finished jobs in one small parquet file."""

import json
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from ..utils.files import ReadError, atomic_write, reading
from ..utils.refusals import printable_all
from .finished_job import FinishedJob
from .layout import PREDICTIONS, kind_of
from .record import parse_record, sealed
from .tables import NAMES, PREDICTION_SCHEMA, TEXT, Alarm, checked

VERSION = 2
"""Version of the cards."""
_KEY = b"transferability card"
_PLACE, _ALARMS = TypeAdapter(tuple[str, int]), TypeAdapter(list[Alarm])
_REPEATED = ("image", "variant", "record", *(field.name for field in NAMES))
_COLUMNS = (*PREDICTION_SCHEMA, *NAMES, pa.field("variant", TEXT), pa.field("record", TEXT))
_TEXTS = pa.dictionary(pa.int32(), TEXT)
SCHEMA = pa.schema([(col.name, _TEXTS if col.name in _REPEATED else col.type) for col in _COLUMNS])
"""Columns of a card; a text that many rows share is stored once."""
_MOST_ROWS, _MOST_BYTES = 10_000_000, 1 << 30  # of a card, unpacked
_LONGEST = {"record": 1 << 20}  # bytes of a text, which may be repeated in every row; else 1,024


def write_card(jobs: Sequence[FinishedJob], path: Path, **facts: Any) -> None:
    """Write the predictions, records and alarms of jobs to a card, atomically.

    Args:
        jobs: The jobs; the folder of a job's sweep is a name in the card.
        path: The card.
        **facts: Further facts about the card, such as the name of a preset; `coarse` says that
            confidences of some jobs are the middles of 16 equal steps.
    """
    names = dict[Path, str]()
    for folder in dict.fromkeys(job.sweep_folder.absolute() for job in jobs):
        names[folder] = folder.name
        while [*names.values()].count(names[folder]) > 1:  # folders of one last name
            names[folder] += " 2"
    parts = [part for job in jobs for part in _parts(job, names[job.sweep_folder.absolute()])]
    table = pa.concat_tables(parts).unify_dictionaries()
    if len(table) > _MOST_ROWS:
        raise ValueError(
            f"{path} would have {len(table):,} rows; a card has at most {_MOST_ROWS:,}. Pack fewer "
            "sweeps."
        )
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 19,
        "dictionary_pagesize_limit": 1 << 26,  # of the records
        "write_page_checksum": True,
    }
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, **options) as writer,
    ):
        writer.write_table(table.replace_schema_metadata(), row_group_size=_MOST_ROWS)
        facts |= {"version": VERSION, "rows": sha256(temporary.read_bytes()).hexdigest()}
        writer.add_key_value_metadata({_KEY.decode(): json.dumps(facts)})


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts about a card that `write_card` was given."""
    facts: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[_KEY])
    return facts


def read_card(path: Path) -> list[FinishedJob]:
    """Read the jobs of a card.

    Nothing in a card is evaluated. Its size is checked before it is unpacked, and its tables are
    checked like those in a job's folder.

    Raises:
        ValueError: The file is no card, is damaged, or has another version.
    """
    with reading(path, "a card"):
        jobs = dict[str, FinishedJob]()
        for text, variant, rows in _runs(_read(path)):
            if text not in jobs:
                jobs[text] = _parse(text, path)
            record, tables = jobs[text].record, jobs[text].tables
            name = PREDICTIONS if variant == record.storage else f"{PREDICTIONS}-{variant}"
            if name in tables:
                raise ValueError(f"the rows of {record.label} are in several places")
            tables[name] = checked(rows.drop_columns(["variant", "record"]), path, name, record)
        for job in jobs.values():
            if PREDICTIONS not in job.tables:
                raise ValueError(f"it lacks the predictions of {job.record.label}")
    return [*jobs.values()]


def _parts(job: FinishedJob, sweep: str) -> Iterator[pa.Table]:
    """Yield the rows of each variant of a job in a card's columns; its sweep has this name."""
    number = re.match(r"\d+(?=-)", job.folder.name)
    place = sweep, int(number[0]) if number else 0
    sealed_record = sealed(PREDICTIONS, job.record)
    alarms = [alarm._asdict() for alarm in job.alarms]
    text = json.dumps({**sealed_record, "place": place, "alarms": alarms})
    names = [name for name in job.tables if name.partition("-")[0] == PREDICTIONS]
    for name in sorted(names, key=PREDICTIONS.__ne__):
        table = job.read(name)
        variant = job.record.storage if name == PREDICTIONS else name.partition("-")[2]
        columns = {field.name: table[field.name] for field in (*PREDICTION_SCHEMA, *NAMES)}
        columns["variant"] = _repeat(variant, len(table))
        columns["record"] = _repeat(text, len(table))
        yield pa.table(columns).cast(SCHEMA)


def _repeat(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text])


def _read(path: Path) -> pa.Table:
    """Return a card's rows, after checks of its size, version and columns."""
    if not path.is_file():  # opening a named pipe would wait for ever
        raise ReadError(f"{path} {kind_of(path)}. Name a card.")
    footer = pq.read_metadata(path)
    text = (footer.metadata or {}).get(_KEY)
    facts = {} if text is None else json.loads(text)
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != VERSION:
        stated = "no card" if version is None else f"a card of version {str(version)[:40]}"
        raise ReadError(f"{path} is {stated}; this program reads version {VERSION}.")
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if footer.num_rows > _MOST_ROWS or unpacked > _MOST_BYTES:
        raise ReadError(
            f"{path} is too large for a card: it has {footer.num_rows:,} rows and "
            f"{unpacked:,} bytes; a card has at most {_MOST_ROWS:,} and {_MOST_BYTES:,}."
        )
    if footer.schema.names != SCHEMA.names:
        raise ReadError(f"{path} is no card: its columns are not those of a card.")
    options: dict[str, Any] = {"read_dictionary": [*_REPEATED], "page_checksum_verification": True}
    with pq.ParquetFile(path, **options) as file:
        table = file.read(use_threads=False)
    rows = path.read_bytes()[: -8 - footer.serialized_size]
    if facts.get("rows") != sha256(rows).hexdigest():
        raise ReadError(f"{path} has other rows than were packed.")
    table = table.cast(SCHEMA).combine_chunks()
    for name in _REPEATED:
        texts = table[name].combine_chunks().dictionary
        if (pc.max(pc.binary_length(texts)).as_py() or 0) > _LONGEST.get(name, 1 << 10):
            raise ReadError(f"{path} is no card: a text in its column {name} is too long.")
    return table


def _parse(text: str, path: Path) -> FinishedJob:
    """Return the job that a text in the column `record` describes, without tables.

    Its folder stands for the one that it was packed from.
    """
    _, record = parse_record(text.encode(), path)
    content = json.loads(text)
    place, alarms = (printable_all(content[key]) for key in ("place", "alarms"))
    sweep, number = _PLACE.validate_python(place)
    folder = path / Path(sweep).name / f"{number}-job"
    return FinishedJob(record, folder, {}, raised=_ALARMS.validate_python(alarms))


def _runs(table: pa.Table) -> Iterator[tuple[str, str, pa.Table]]:
    """Yield the rows of each job and variant, with the texts that name them."""
    columns = [table[name].combine_chunks() for name in ("record", "variant")]
    record, variant = (column.indices.to_numpy(zero_copy_only=False) for column in columns)
    starts = np.flatnonzero((np.diff(record) != 0) | (np.diff(variant) != 0)) + 1
    texts = [column.dictionary.to_pylist() for column in columns]  # once: a record may be long
    for start, end in pairwise([0, *starts.tolist(), len(table)]):
        yield texts[0][record[start]], texts[1][variant[start]], table.slice(start, end - start)
