"""Tables of a job: columns with ranges, declared for writing and checked when reading."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from ..utils.files import atomic_write, reading
from ..utils.model_names import ABSTAINED, NO_DEFENCE, ModelRef, behind_each
from ..utils.refusals import first_line, printable_all
from .layout import ALARMS, PREDICTIONS
from .record import JobRecord

INTEGER, FLOAT, SINGLE, TEXT = pa.int64(), pa.float64(), pa.float32(), pa.string()
CLASSES = "classes"
"""Upper bound of class columns: the job's number of classes minus one."""
_LOW, _HIGH, _NAN = b"low", b"high", b"nan"


def column(
    name: str,
    data_type: pa.DataType,
    low: float = -math.inf,
    high: float | str = math.inf,
    *,
    nan: bool = False,
    null: bool = False,
) -> pa.Field:
    """Return a column whose values (or values in its lists) must be in [low, high].

    `high` may be `CLASSES`. With `nan`, NaN is allowed and means undefined. With `null`, values may
    be missing.
    """
    ranges: dict[bytes | str, bytes | str] = {_LOW: str(low), _HIGH: str(high)}
    return pa.field(name, data_type, null, ranges | ({_NAN: ""} if nan else {}))


INDEX = column("index", INTEGER, 0)
IMAGE = column("image", TEXT)
"""Digest of the image, see `ImageDataset.image_digests`."""
LABEL = column("label", INTEGER, 0, CLASSES)
EPS_255 = column("eps_255", FLOAT, 0, 255)
CERTAIN = 1 + 1e-6  # a sum of float32 probabilities may exceed 1
TARGET_LABEL = column("target_label", INTEGER, 0, CLASSES, null=True)
PREDICTED = (
    column("predicted", INTEGER, ABSTAINED, CLASSES),
    column("confidence", SINGLE, 0, CERTAIN, nan=True),
    column("true_confidence", SINGLE, 0, CERTAIN, nan=True),
)
"""Predicted class (-1: the target abstained), its probability, and the true class's."""
DRAWS = tuple(column(name, INTEGER, 0, null=True) for name in ("draws", "draws_correct"))
"""Number of draws of the target's defence, and how many of them predict the true class."""
COST = tuple(column(name, FLOAT, 0, 1e15, null=True) for name in ("gradients", "forwards"))
"""Gradients and forward passes per image, for all budgets together; null: unknown."""
ITERATION = column("iteration", INTEGER, 0, null=True)
PREDICTION_SCHEMA = pa.schema(
    [INDEX, IMAGE, LABEL, TARGET_LABEL, *DRAWS, EPS_255, ITERATION, *PREDICTED, *COST]
)
NAMES = (column("target", TEXT), column("defence", TEXT))
"""Columns that name a row's target."""


def named(table: pa.Table, pair: ModelRef) -> pa.Table:
    """Return a target's rows with its names as columns; rows in the cache have none."""
    for field, name in zip(NAMES, pair.columns, strict=True):
        table = table.append_column(field, pa.repeat(name, len(table)))
    return table


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file atomically."""
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_job_table(path: Path, name: str, record: JobRecord) -> pa.Table:
    """Read a table of a job and check it."""
    with reading(path, "a parquet file"):
        table = pq.read_table(path, page_checksum_verification=True)
    return checked(table, path, name, record)


def checked(table: pa.Table, path: Path, name: str, record: JobRecord) -> pa.Table:
    """Return a table of a job after checks of its values; check the rows of predictions, too.

    Predictions have the columns of today, whichever version wrote them, see `with_schema`.
    """
    of_predictions = name.partition("-")[0] == PREDICTIONS
    with reading(path, f"the table {name}"):
        if of_predictions:  # regardless of the file's own schema
            table = with_schema(table, pa.schema([*PREDICTION_SCHEMA, *NAMES]))
        _check_values(table, len(record.class_names))
        if of_predictions:
            _check_rows(table, record, name == PREDICTIONS)
    return table


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of a schema; optional columns that the table lacks are null."""
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)


def read_images(path: Path) -> dict[str, np.ndarray]:
    """Read the images that a job stores for its report; empty if there is no file."""
    if not path.is_file():
        return {}
    with reading(path, "a NumPy archive"), np.load(path, allow_pickle=False) as file:
        return dict(file)


class Alarm(NamedTuple):
    """A failed sanity check: its name, and the finding for a model or pair, with counts."""

    name: str
    finding: str


def read_alarms(folder: Path) -> list[Alarm]:
    """Read a job's alarms; an empty list if it has no file of alarms."""
    path = folder / ALARMS
    with reading(path, "a list of alarms"):
        stated = json.loads(path.read_bytes()) if path.is_file() else []
        return TypeAdapter(list[Alarm]).validate_python(printable_all(stated))


def _check_values(table: pa.Table, classes: int) -> None:
    """Refuse values outside their column's range, and missing values in required columns."""
    for field in table.schema:
        ranges: Mapping[bytes, bytes] = field.metadata or {}
        values = table[field.name]
        missing = values.null_count and not field.nullable
        if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            values = pc.list_flatten(values)
        if _LOW not in ranges or not pa.types.is_primitive(values.type):
            continue
        high = ranges[_HIGH].decode()
        bounds = float(ranges[_LOW]), classes - 1 if high == CLASSES else float(high)
        extremes = [value for value in pc.min_max(values).as_py().values() if value is not None]
        undefined = pc.any(pc.is_nan(values)).as_py() and _NAN not in ranges
        if missing or undefined or any(end < bounds[0] or end > bounds[1] for end in extremes):
            interval = f"{bounds[0]:g} to {bounds[1]:g}"
            raise ValueError(f"in column {field.name} some values are outside {interval}")


def _check_rows(table: pa.Table, record: JobRecord, primary: bool) -> None:
    """Refuse predictions without exactly one row per target, budget and image, including clean.

    Only targets behind a defence may abstain.
    """
    pairs = len(record.targets) * (1 + len(record.defences) * primary)
    if pairs * len(record.budgets) > len(table):  # listing them all could fill the memory
        raise ValueError("it has fewer rows than targets and budgets")
    abstains = pc.or_(pc.equal(table["predicted"], ABSTAINED), pc.is_nan(table["confidence"]))
    if pc.any(pc.and_(abstains, pc.equal(table["defence"], NO_DEFENCE))).as_py():
        raise ValueError("a target without a defence abstains")
    lacks_label = pc.and_(pc.greater(table["eps_255"], 0), pc.is_null(table["target_label"]))
    if record.config["attack"]["target_label"] and pc.any(lacks_label).as_py():
        raise ValueError("rows of a targeted attack lack their target_label")
    if pc.any(pc.greater(table["draws_correct"], table["draws"])).as_py():
        raise ValueError("more draws are correct than were drawn")
    facts = ("label", "target_label", "image")
    images = table.group_by("index").aggregate([(name, "count_distinct") for name in facts])
    if max(pc.max(images[f"{name}_count_distinct"]).as_py() or 0 for name in facts) > 1:
        raise ValueError("rows of one image have different labels or digests")
    counts = [("index", "count"), ("index", "count_distinct")]
    keys = ["target", "defence", "eps_255"]
    groups: dict[str, list[Any]] = table.group_by(keys).aggregate(counts).to_pydict()
    rows = set(zip(*(groups[key] for key in keys), strict=True))
    numbers = {*groups["index_count"], *groups["index_count_distinct"], len(images)}
    targets = record.evaluated if primary else behind_each(record.targets, ())
    attacked = {(*target.columns, eps) for target in targets for eps in record.budgets if eps > 0}
    source = record.source_model
    behind = source.is_defended and record.config["source"]  # a saved set may lack its source
    sources = [source] if behind else []
    clean = {
        (*pair.columns, 0.0) for pair in (*map(ModelRef.parse, record.weights), *targets, *sources)
    }
    if rows != attacked | clean or numbers != {record.images}:
        raise ValueError("it must have one row per target, budget and image of its job")


def _cause(error: Exception) -> str:
    return first_line(error)[:400].rstrip(".")
