"""Measurements that the config names by their `_target_`."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts.layout import PREDICTIONS, TOP_FIVE
from ..artifacts.tables import IMAGE, NAMES
from ..cache.code_digest import code_of
from ..cache.keys import content_key
from ..config.sections import MeasurementSettings
from ..utils.call_target import call_target
from ..utils.devices import named_errors
from ..utils.vocabulary import CONTROLS
from .attack_cost import AdversarialImages, AttackCost
from .protocol import EvaluatedBatch, Job, Measurement, Needs
from .registry import TABLES

_RESERVED = {PREDICTIONS, TOP_FIVE, "float32", "uint8", "stored", *CONTROLS, *TABLES}
_RESERVED |= {kind.name for kind in (AttackCost, AdversarialImages)}
_ADDED = {*(field.name for field in (*NAMES, IMAGE)), "attack", "source", "key", "file"}
"""Columns that are added to a table: by the job, by `load_table`, and in the cache."""


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

    def __init__(self, name: str, measurement: Any, key: str) -> None:
        if not isinstance(measurement, Measurement):
            raise ValueError(
                f"{type(measurement).__name__} is no src.measure.protocol.Measurement. Inherit it."
            )
        schema: Any = getattr(measurement, "schema", None)
        if not isinstance(schema, pa.Schema) or schema.names[:1] != ["index"]:
            raise ValueError("its schema must be a pyarrow.Schema whose first column is INDEX.")
        order = [column.removeprefix("-") for column in measurement.order]
        if {*order} - {*schema.names} or len({*schema.names}) < len(schema.names):
            raise ValueError("its schema must have the columns of `order`, and each name once.")
        if taken := sorted({*schema.names} & _ADDED):
            raise ValueError(
                f"its schema has the column {taken[0]}, but tables get their own columns "
                f"{', '.join(sorted(_ADDED))}."
            )
        identity = ["index", *order, *({"eps_255"} & {*schema.names})]
        self._identity = list(dict.fromkeys(identity))
        self.name, self.measurement, self.key = name, measurement, key
        self.schema, self.order = schema, measurement.order
        self.attacked, self.correct_only = measurement.attacked, measurement.correct_only
        self.each_budget, measurement.name = measurement.each_budget, name

    @property
    def stored_as(self) -> str:
        """Name of the table in the cache: other code or settings may have other columns."""
        return f"{self.name}-{self.key}"

    def needs(self, job: Job) -> Needs:
        """Return what the user's rows depend on.

        Raises:
            ValueError: The user's code fails, or names images or models that the job lacks.
        """
        with named_errors(f"measurements.{self.name}: needs"):
            needs = self.measurement.needs(job)
            self.key_parts = self.measurement.key_parts  # which may follow from the job
            models, index = {*needs.targets, *needs.others} - {None}, np.asarray(needs.images)
            if unknown := [str(model) for model in models if model not in job.classifiers]:
                raise ValueError(f"it has the model {min(unknown)}, which the job lacks")
            if other := {*needs.budgets} - {*job.budgets}:
                raise ValueError(f"it has the budget {min(other)}, which the job lacks")
            if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
                raise ValueError("images must return whole numbers, of shape (n,)")
            if len(others := np.setdiff1d(index, job.images.indices)):
                raise ValueError(f"it has image {others[0]}, which the job lacks")
            return needs._replace(images=np.unique(index).astype(np.int64))

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return the user's rows with the columns of the schema.

        Raises:
            ValueError: The user's code fails, or its rows do not fit the schema or the batch.
        """
        with named_errors(f"measurements.{self.name}: rows"):
            table = _check_table("rows", self.measurement.rows(batch))
            return self._fitting(table, batch, pa.array(batch.batch.index.cpu().numpy()))

    def finish(self, table: pa.Table, job: Job) -> pa.Table:
        """Return the table as the user finishes it.

        Raises:
            ValueError: The user's code fails, or returns no table with the columns of the schema.
        """
        fields = table.schema
        with named_errors(f"measurements.{self.name}: finish"):
            table = _check_table("finish", self.measurement.finish(table, job))
            columns = table.column_names
            needed = [name for name in fields.names if name != IMAGE.name]
            if missing := [column for column in needed if columns.count(column) != 1]:
                raise ValueError(f"finish must return the column {missing[0]} once")
            if unknown := [column for column in columns if column not in fields.names]:
                raise ValueError(f"finish adds the column {unknown[0]}, which the schema lacks")
            return table.cast(pa.schema([fields.field(column) for column in columns]))

    def _fitting(self, table: pa.Table, batch: EvaluatedBatch, images: pa.Array) -> pa.Table:
        """Return a batch's rows with the columns of the schema; refuse what does not fit."""
        table = table.select(self.schema.names).cast(self.schema)
        if not pc.all(pc.is_in(images, table["index"].combine_chunks())).as_py():
            raise ValueError("an image of the batch has no row")
        if not pc.all(pc.is_in(table["index"], images), min_count=0).as_py():
            raise ValueError("rows of images that are not in the batch")
        # Attacked rows without budgets state theirs. Tensors of float32 may have held a budget.
        if "eps_255" in table.column_names and (batch.budgets or not self.attacked):
            budgets = pa.array(batch.budgets or (0.0,), pa.float32())
            is_budget = pc.is_in(table["eps_255"].cast(pa.float32()), budgets)
            if not pc.all(is_budget, min_count=0).as_py():
                other = pc.filter(table["eps_255"], pc.invert(is_budget))[0].as_py()
                asked = [*batch.budgets] or [0.0]
                raise ValueError(f"rows with eps_255={other} for the budgets {asked}")
        if len(table.group_by(self._identity).aggregate([])) < len(table):
            raise ValueError(
                f"several rows have the same {', '.join(self._identity)}; `order` must have all "
                "columns that tell rows of an image apart"
            )
        return table


def _check_table(method: str, table: Any) -> pa.Table:
    """Return what a method returns; refuse anything but a table."""
    if not isinstance(table, pa.Table):
        raise ValueError(f"{method} returns {type(table).__name__} instead of a pyarrow.Table")
    return table


def own_measurements(sections: Mapping[str, MeasurementSettings]) -> list[Measurement]:
    """Return the measurements that a job's config names, by the name of their table.

    Raises:
        ValueError: A name is taken, an object cannot be made or is no measurement, or a chart shows
            a column that the table does not have.
    """
    measurements = list[Measurement]()
    for name, section in sections.items():
        with named_errors(f"measurements.{name}"):
            if name in _RESERVED:
                raise ValueError("this program has a table of this name. Use another")
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
                raise ValueError(
                    "no free name for a table. Use a small letter, then small letters, digits or _"
                )
            key = content_key({"settings": section.call, "code": code_of(section.call)})
            measurement = OwnMeasurement(name, call_target(section.call), key)
            if section.chart:
                section.chart.check({*measurement.schema.names, "target"})
        measurements.append(measurement)
    return measurements
