"""Measurements that the config names by their `_target_`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from src.artifacts.layout import PREDICTIONS, TOP_FIVE
from src.artifacts.tables import NAMES
from src.cache.keys import measurement_key
from src.config.sections import CONTROLS
from src.config.settings import Settings
from src.measure.protocol import EvaluatedBatch, Job, Measurement, RowRequest
from src.measure.registry import MEASUREMENTS
from src.utils.call_target import call_target
from src.utils.refusals import first_line

_RESERVED = {PREDICTIONS, TOP_FIVE, "flips", "float32", "uint8", "stored", *CONTROLS}
_RESERVED |= {measurement.name for measurement in MEASUREMENTS}


class OwnMeasurement(Measurement):
    """A measurement of a user's, whose table has the name that the config gives it.

    Its rows are stored apart from those of other versions of its code and settings, so they may
    have other columns.

    Args:
        name: Name of the table.
        measurement: The user's object.
        key: Digest of its code and settings.

    Raises:
        ValueError: The object lacks a schema, or a method.
    """

    switched_by = "measurements"

    def __init__(self, name: str, measurement: Any, key: str) -> None:
        if not isinstance(measurement, Measurement):
            raise ValueError(
                f"{type(measurement).__name__} is no src.measure.protocol.Measurement. Inherit it."
            )
        schema: Any = getattr(measurement, "schema", None)
        if not isinstance(schema, pa.Schema) or schema.names[:1] != ["index"]:
            raise ValueError("its schema must be a pyarrow.Schema whose first column is INDEX.")
        missing = {column.removeprefix("-") for column in measurement.order} - {*schema.names}
        if missing or {*schema.names} & {field.name for field in NAMES}:
            raise ValueError(
                "its schema must have the columns of `order`, and neither target nor defence."
            )
        self.name, self.measurement, self.key = name, measurement, key
        self.schema, self.order = schema, measurement.order
        measurement.name = name

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return the user's requests; their table in the cache also has the key of the code."""
        table = f"{self.name}-{self.key}"
        return [replace(request, table=table) for request in self.measurement.requests(job, clean)]

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return the user's rows with the columns of the schema.

        Raises:
            ValueError: The rows do not fit the schema or the requests.
        """
        tables = [*self.measurement.rows(batch, requests)]
        try:
            if len(tables) != len(requests):
                raise ValueError(f"{len(tables)} tables for {len(requests)} requests")
            tables = [table.select(self.schema.names).cast(self.schema) for table in tables]
            images = pa.array(batch.batch.index.cpu().numpy())
            for table in tables:
                if not pc.all(pc.is_in(images, table["index"].combine_chunks())).as_py():
                    raise ValueError("an image of the batch has no row")
                if not pc.all(pc.is_in(table["index"], images), min_count=0).as_py():
                    raise ValueError("rows of images that are not in the batch")
        except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise ValueError(f"measurements.{self.name}: {first_line(error)}.") from error
        return tables

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the table as the user finishes it."""
        return self.measurement.finish(name, tables, job)


def own_measurements(settings: Settings) -> list[Measurement]:
    """Return the measurements that a job's config names.

    Raises:
        ValueError: A name is taken, an object cannot be made or is no measurement, or a chart shows
            a column that the table does not have.
    """
    measurements = list[Measurement]()
    for name, section in settings.measurements.items():
        try:
            if name in _RESERVED or not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
                raise ValueError(
                    "no free name for a table. Use a small letter, then small letters, digits or _"
                )
            key = measurement_key(section)
            measurement = OwnMeasurement(name, call_target(section.call), key)
            if section.chart:
                section.chart.check({*measurement.schema.names, "target"})
        except ValueError as error:
            raise ValueError(f"measurements.{name}: {error}") from error
        measurements.append(measurement)
    return measurements
