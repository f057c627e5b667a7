"""A card: the predictions and records of finished jobs in one small parquet file."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from ..analysis.sanity_checks import Alarm
from ..utils.files import atomic_write
from ..utils.package import is_asset
from ..utils.refusals import first_line, printable_all
from .layout import PREDICTIONS, kind_of
from .record import JobRecord, parse_record, sealed
from .tables import NAMES, PREDICTION_SCHEMA, TEXT, checked

VERSION = 1
"""Version of the schema; a program reads its own version only."""
COARSE_STEPS = 16
"""Number of equal steps of a confidence in a coarse card."""
_KEY = b"transferability card"
_PLACE = re.compile(r"[\w./#-]{1,200}", re.ASCII)
_REPEATED = ("image", "variant", "record", *(field.name for field in NAMES))
_COLUMNS = (*PREDICTION_SCHEMA, *NAMES, pa.field("variant", TEXT), pa.field("record", TEXT))
_TEXTS = pa.dictionary(pa.int32(), TEXT)
SCHEMA = pa.schema([(its.name, _TEXTS if its.name in _REPEATED else its.type) for its in _COLUMNS])
"""Columns of a card; a text that many rows share is stored once."""
_MOST_ROWS, _MOST_BYTES = 10_000_000, 1 << 30  # of a card, unpacked
_CONFIDENCES = ("confidence", "true_confidence")
_LONGEST = {"record": 1 << 20}
_LONGEST_NAME = 1 << 10  # bytes, which may be repeated in every row


@dataclass(frozen=True)
class CardJob:
    """A job in a card.

    Attributes:
        place: The sweep's name and the job's number in it; they stand for the job's folder.
        tables: Tables of predictions by name, as in the job's folder.
    """

    record: JobRecord
    place: tuple[str, int]
    alarms: Sequence[Alarm]
    tables: Mapping[str, pa.Table]


def write_card(jobs: Sequence[CardJob], path: Path, *, coarse: bool = False, **facts: Any) -> None:
    """Write jobs to a card, atomically.

    All values stay as they are. A cell that follows from others is null: the true class's
    confidence of a correct prediction, and the correct draws of one draw.

    Args:
        jobs: The jobs.
        path: The card.
        coarse: Replace each confidence by the middle of its step, of `COARSE_STEPS` equal steps
            from 0 to 1, and store no other confidence of the true class. Classes stay, and
            therefore all counts and rankings.
        **facts: Further facts about the card, such as the name of a preset.
    """
    parts = [part for job in jobs for part in _parts(job, coarse)]
    table = pa.concat_tables(parts).unify_dictionaries()
    if len(table) > _MOST_ROWS:
        raise ValueError(
            f"{path} would have {len(table):,} rows; a card has at most {_MOST_ROWS:,}. Pack fewer "
            "sweeps."
        )
    if coarse:
        place = table.schema.get_field_index("true_confidence")
        table = table.set_column(place, SCHEMA.field(place), pa.nulls(len(table), pa.float32()))
    facts |= {"version": VERSION, "coarse": coarse, "rows": digest_rows(table)}
    text = json.dumps(facts)
    with atomic_write(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({_KEY: text.encode()}),
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=[name for name in SCHEMA.names if name != "index"],
            column_encoding={"index": "DELTA_BINARY_PACKED"},
            # A column is one page, in which the rows of all jobs compress each other.
            row_group_size=_MOST_ROWS,
            data_page_size=1 << 30,
            dictionary_pagesize_limit=1 << 26,
            write_statistics=False,
            write_page_checksum=True,
        )


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts about a card that `write_card` was given."""
    facts: dict[str, Any] = json.loads(pq.read_schema(path).metadata[_KEY])
    return facts


def described(facts: Mapping[str, Any]) -> str:
    """Say which page describes a card's images and networks; empty if its facts name none.

    Any other text than a place could read like a result of this program.
    """
    page = str(facts.get("page") or "")
    return f"{page} describes them. " if _PLACE.fullmatch(page) else ""


def needs(record: JobRecord) -> str:
    """Name the images and the networks of a job that are not in the package."""
    embedded = "cifar10_mini" in str(record.config["dataset"].get("_target_"))
    images = [] if embedded else [f"{record.images} images of {record.dataset}"]
    models = record.config["model"].items()
    foreign = [name for name, its in models if not is_asset(str(its.get("weights")))]
    weights = [f"the weights of {', '.join(sorted(foreign))}"] if foreign else []
    return " and ".join([*images, *weights]) or "other files"


def read_card(path: Path) -> list[CardJob]:
    """Read the jobs of a card.

    Nothing in a card is evaluated. Its size is checked before it is unpacked, and its tables are
    checked like those in a job's folder.

    Raises:
        ValueError: The file is no card, is damaged, or has another version.
    """
    try:
        table = _read(path)
        records = table["record"].combine_chunks()
        jobs = {
            text: (CardJob(*_parse(text, path), {}), dict[str, list[pa.Table]]())
            for text in records.dictionary.take(pc.unique(records.indices)).to_pylist()
        }
        for text, variant, rows in _runs(table):
            jobs[text][1].setdefault(variant, []).append(rows)
        return [_finished(job, variants, path) for job, variants in jobs.values()]
    except (
        *(pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError),
        RecursionError,  # of JSON with a million brackets
    ) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is damaged or no card ({first_line(error)[:400]}).") from error


def _parts(job: CardJob, coarse: bool) -> Iterator[pa.Table]:
    """Yield the rows of each variant of a job in a card's columns."""
    sealed_record = sealed(PREDICTIONS, job.record)
    alarms = [alarm._asdict() for alarm in job.alarms]
    text = json.dumps({**sealed_record, "place": job.place, "alarms": alarms})
    for name, table in job.tables.items():
        variant = job.record.storage if name == PREDICTIONS else name.partition("-")[2]
        columns = {field.name: table[field.name] for field in (*PREDICTION_SCHEMA, *NAMES)}
        confidence, true = (columns[key].combine_chunks() for key in _CONFIDENCES)
        if coarse:
            confidence, true = map(_in_steps, (confidence, true))
        correct = pc.equal(table["predicted"], table["label"])
        same = pc.and_(correct, pc.fill_null(pc.equal(confidence, true), False))
        columns |= {"confidence": confidence, "true_confidence": pc.if_else(same, None, true)}
        implied = pc.equal(table["draws_correct"], _correct_draws(table))
        draws = pc.if_else(pc.fill_null(implied, False), None, table["draws_correct"])
        columns |= {"draws_correct": draws, "variant": _repeat(variant, len(table))}
        columns["record"] = _repeat(text, len(table))
        yield pa.table([columns[key] for key in SCHEMA.names], SCHEMA.names).cast(SCHEMA)


def _repeat(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text])


def _correct_draws(table: pa.Table) -> Any:
    """Return how many draws predict the true class if there is one draw; else null."""
    correct = pc.cast(pc.equal(table["predicted"], table["label"]), pa.int64())
    return pc.if_else(pc.equal(table["draws"], 1), correct, None)


def _in_steps(column: pa.Array) -> pa.Array:
    """Return probabilities as the middles of steps."""
    values = np.floor(column.to_numpy(zero_copy_only=False).astype(np.float64) * COARSE_STEPS)
    middles = (np.clip(values, 0, COARSE_STEPS - 1) + 0.5) / COARSE_STEPS
    return pa.array(middles.astype(np.float32))


def _read(path: Path) -> pa.Table:
    """Return a card's rows, after checks of its size, version and columns."""
    if not path.is_file():  # opening a named pipe would wait for ever
        raise ValueError(f"{path} {kind_of(path)}. Name a card.")
    footer = pq.read_metadata(path)
    text = (footer.metadata or {}).get(_KEY)
    facts = {} if text is None else json.loads(text)
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != VERSION:
        stated = "no card" if version is None else f"a card of version {str(version)[:40]}"
        raise ValueError(f"{path} is {stated}; this program reads version {VERSION}.")
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if footer.num_rows > _MOST_ROWS or unpacked > _MOST_BYTES:
        raise ValueError(
            f"{path} is too large for a card: it has {footer.num_rows:,} rows and "
            f"{unpacked:,} bytes; a card has at most {_MOST_ROWS:,} and {_MOST_BYTES:,}."
        )
    if footer.schema.names != SCHEMA.names:
        raise ValueError(f"{path} is no card: its columns are not those of version {VERSION}.")
    options: dict[str, Any] = {"read_dictionary": [*_REPEATED], "page_checksum_verification": True}
    with pq.ParquetFile(path, **options) as file:
        table = file.read(use_threads=False)
    table = table.cast(SCHEMA).combine_chunks()
    for name in _REPEATED:
        texts = table[name].combine_chunks().dictionary
        if (pc.max(pc.binary_length(texts)).as_py() or 0) > _LONGEST.get(name, _LONGEST_NAME):
            raise ValueError(f"{path} is no card: a text in its column {name} is too long.")
    if "rows" not in facts:
        raise ValueError(f"{path} is of an earlier development version. Pack the sweep again.")
    if facts["rows"] != digest_rows(table):
        raise ValueError(f"{path} has other rows than were packed. Pack the sweep again.")
    return table


def digest_rows(table: pa.Table) -> str:
    """Return a digest of rows; it does not depend on how a file encodes them."""
    state = hashlib.sha256()
    for name in SCHEMA.names:
        column = table[name].combine_chunks()
        state.update(column.is_valid().to_numpy(zero_copy_only=False))
        if name in _REPEATED:
            texts = (hashlib.sha256(text.encode()) for text in column.dictionary.to_pylist())
            codes = b"".join([*(text.digest()[:8] for text in texts), bytes(8)])  # the last: null
            places = pc.fill_null(column.indices, len(column.dictionary))
            values = np.frombuffer(codes, np.uint64)[places]
        else:
            values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        state.update(values)
    return state.hexdigest()[:16]


def _parse(text: Any, path: Path) -> tuple[JobRecord, tuple[str, int], list[Alarm]]:
    """Return the record, the place and the alarms in a card's column `record`."""
    if not isinstance(text, str):
        raise ValueError(f"{path} has rows without a valid record.")
    _, record = parse_record(text.encode(), path)
    content = printable_all(json.loads(text))
    place = TypeAdapter(tuple[str, int]).validate_python(tuple(content["place"]))
    return record, place, TypeAdapter(list[Alarm]).validate_python(content["alarms"])


def _runs(table: pa.Table) -> Iterator[tuple[str, str, pa.Table]]:
    """Yield the rows of each job and variant, with the texts that name them."""
    columns = [table[name].combine_chunks() for name in ("record", "variant")]
    record, variant = (column.indices.to_numpy(zero_copy_only=False) for column in columns)
    codes = record.astype(np.int64) * len(columns[1].dictionary) + variant
    if (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        codes, table = codes[order], table.take(order)
        columns = [column.take(pa.array(order)) for column in columns]
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(table)]
    texts = [column.dictionary.to_pylist() for column in columns]  # once: a record may be long
    for start, end in pairwise(starts):
        if end > start:
            record, variant = divmod(int(codes[start]), len(texts[1]))
            yield texts[0][record], texts[1][variant], table.slice(start, end - start)


def _finished(job: CardJob, variants: Mapping[str, Sequence[pa.Table]], path: Path) -> CardJob:
    """Return a job with its tables, in which the cells that follow from others are filled."""
    tables = {}
    for variant, parts in variants.items():
        primary = variant == job.record.storage
        name = PREDICTIONS if primary else f"{PREDICTIONS}-{variant}"
        rows = pa.concat_tables(parts)
        correct = pc.equal(rows["predicted"], rows["label"])
        columns = {key: rows[key] for key in rows.column_names[:-2]}
        true, draws = columns["true_confidence"], columns["draws_correct"]
        known = pc.if_else(correct, rows["confidence"], pa.scalar(math.nan, pa.float32()))
        columns |= {"true_confidence": pc.coalesce(true, known)}
        columns |= {"draws_correct": pc.coalesce(draws, _correct_draws(rows))}
        tables[name] = checked(pa.table(columns), path, name, job.record)
    if PREDICTIONS not in tables:
        raise ValueError(f"{path} lacks the predictions of {job.record.label}.")
    return CardJob(job.record, job.place, job.alarms, tables)
