"""Readers of a job's files, which refuse content that no job writes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from src.analysis.sanity_checks import Alarm
from src.artifacts.layout import ALARMS, PREDICTIONS, TOP_FIVE
from src.artifacts.record import JobRecord
from src.utils.defended_names import ABSTAINED, PLAIN, Evaluated, behind_each, split_source
from src.utils.parquet import read_table
from src.utils.refusals import first_line

_BAND, _PREDICTED = "frequency_low frequency_high", "predicted confidence true_confidence"
_TOP = ("top5_classes", "top5_confidences")
_COLUMNS = {
    PREDICTIONS: "index label target_label target defence draws draws_correct eps_255 iteration "
    f"{_PREDICTED} gradients forwards",
    TOP_FIVE: f"index label target defence eps_255 {_PREDICTED} {' '.join(_TOP)}",
    "flips": f"index label target below_eps_255 eps_255 {_PREDICTED}",
    "filtered": f"index label target eps_255 band kind {_BAND} {_PREDICTED}",
    "low_passed": f"index label target cutoff {_PREDICTED}",
    "similarity": "index label target cosine",
    "iterations": f"index label target_label target eps_255 iteration step_255 {_PREDICTED}",
    "stealth": "index eps_255 rms_255 linf_255 psnr ssim",
    "spectra": f"kind eps_255 {_BAND} n share",
}
_TYPES = {
    **dict.fromkeys(("index", "label", "target_label", "predicted", "n"), pa.int64()),
    **dict.fromkeys(("draws", "draws_correct", "iteration"), pa.int64()),
    **dict.fromkeys(("target", "defence", "band", "kind"), pa.string()),
    **dict.fromkeys(("confidence", "true_confidence"), pa.float32()),
}
"""Types of columns as written; the other columns are float64."""


def read_job_table(path: Path, name: str, record: JobRecord) -> pa.Table:
    """Read one of a job's tables and check its values; of predictions also the rows."""
    table, classes = read_table(path), len(record.class_names)
    kind = name.partition("-")[0]
    lists = (pa.list_(each, min(5, classes)) for each in (pa.int32(), pa.float32()))
    types = _TYPES | dict(zip(_TOP, lists, strict=True))
    names = columns_of(name)
    try:
        schema = pa.schema([(column, types.get(column, pa.float64())) for column in names])
        table = table.select(names).cast(schema)
        _check_values(table, classes)
        if kind == PREDICTIONS:
            _check_rows(table, record, name == PREDICTIONS)
    except (ValueError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{path} is no table of its job: {first_line(error)[:400]}.") from error
    return table


def columns_of(name: str) -> list[str]:
    """Return the columns of a job's table."""
    return _COLUMNS[name.partition("-")[0]].split()


def with_cost(table: pa.Table, gradients: Any = None, forwards: Any = None) -> pa.Table:
    """Return predictions with what their images took, a number, one per row, or unknown."""
    columns = {"iteration": None, "gradients": gradients, "forwards": forwards}
    for name, value in columns.items():
        if not isinstance(value, pa.ChunkedArray):
            value = pa.array([value] * len(table), _TYPES.get(name, pa.float64()))
        table = table.append_column(name, value)
    return table


def read_images(path: Path) -> dict[str, np.ndarray]:
    """Read the images that a job keeps for its report; no arrays where there is no file."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{path} is damaged ({first_line(error)[:400]}).") from error


def read_alarms(folder: Path) -> list[Alarm]:
    """Read a job's alarms; none where it has no file of them."""
    path = folder / ALARMS
    try:
        return TypeAdapter(list[Alarm]).validate_json(path.read_bytes()) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no list of alarms ({first_line(error)[:400]}).") from error


def _check_values(table: pa.Table, classes: int) -> None:
    """Refuse values out of range, and missing ones other than target labels."""
    if "defence" in table.column_names:
        abstains = pc.equal(table["predicted"], ABSTAINED)
        table = table.filter(pc.invert(pc.and_(abstains, pc.not_equal(table["defence"], PLAIN))))
    most: dict[str, float] = {"index": math.inf}
    most |= dict.fromkeys(("label", "target_label", "predicted", _TOP[0]), classes - 1)
    most |= dict.fromkeys(("confidence", "true_confidence", _TOP[1]), 1 + 1e-6)  # rounded up
    for name in (column for column in table.column_names if column in most):
        column = pc.list_flatten(table[name]) if name in _TOP else table[name]
        inside = pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, most[name]))
        lacking = column.null_count + table[name].null_count if name != "target_label" else 0
        if lacking or not pc.all(inside, min_count=0).as_py():
            raise ValueError(f"in its column {name} not every value is from 0 to {most[name]:.0f}")


def _check_rows(table: pa.Table, record: JobRecord, primary: bool) -> None:
    """Refuse rows that are not each target, budget and image once, the clean ones included."""
    counts = [("index", "count"), ("index", "count_distinct")]
    keys = ["target", "defence", "eps_255"]
    groups = table.group_by(keys).aggregate(counts).to_pydict()
    rows = set(zip(*(groups[key] for key in keys), strict=True))
    images = {*groups["index_count"], *groups["index_count_distinct"]}
    images.add(pc.count_distinct(table["index"]).as_py())
    targets = record.evaluated if primary else behind_each(record.targets, ())
    attacked = {(*target, eps) for target in targets for eps in record.budgets if eps > 0}
    source = split_source(record.source)
    behind = source.defence != PLAIN and record.config["source"]  # a saved set's may not be
    own = [source] if behind else []
    clean = {(*each, 0.0) for each in (*map(Evaluated, record.weights), *targets, *own)}
    if rows != attacked | clean or images != {record.images}:
        raise ValueError("its rows are not every target, budget and image of its job, each once")
