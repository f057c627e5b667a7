"""Tables whose columns declare their ranges, read back."""

import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts import tables
from src.artifacts.jobs import find_jobs
from src.artifacts.tables import CLASSES, FLOAT, INDEX, LABEL, column, read_job_table
from tests.conftest import REPOSITORY

SCHEMA = pa.schema(
    [
        *(INDEX, LABEL, column("cosine", FLOAT, -1, 1, nan=True)),
        column("share", FLOAT, 0, null=True),
        column("ranks", pa.list_(pa.int64()), 0, CLASSES),
    ]
)
ROW = {"index": 7, "label": 9, "cosine": -1.0, "share": 5.0, "ranks": [0, 9]}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A function that writes one row with its ranges, and reads it as a job's table."""
    record = find_jobs([REPOSITORY / "docs" / "results" / "demo"])[0].record
    path = tmp_path_factory.mktemp("job") / "similarity.parquet"

    def make(**changes):
        pq.write_table(pa.Table.from_pylist([ROW | changes], SCHEMA), path)
        return read_job_table(path, "similarity", record)

    return make


@pytest.mark.parametrize("changes", [{}, {"cosine": math.nan}, {"share": None}, {"cosine": 1.0}])
def test_values_inside_their_ranges_are_read(read, changes):
    assert read(**changes).num_rows == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"index": -1},
        {"label": 10},  # of ten classes
        {"cosine": 1.5},
        {"share": -0.1},
        {"share": math.nan},
        {"ranks": [0, 10]},
    ],
    ids=str,
)
def test_values_outside_the_ranges_of_their_columns_are_refused(read, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=rf"similarity\.parquet .*column {name} "):
        read(**changes)


RESULTS = REPOSITORY / "docs" / "results"


@pytest.mark.parametrize("sweep", ["demo", "defences-jpeg", "targeted", "fitted"])
def test_tables_of_today_are_read_after_a_column_is_added_to_their_schema(sweep, monkeypatch):
    new = column("calibration", FLOAT, 0, 1, null=True)
    monkeypatch.setattr(tables, "PREDICTION_SCHEMA", tables.PREDICTION_SCHEMA.append(new))
    job = find_jobs([RESULTS / sweep])[0]
    before, rows = pd.read_parquet(job.files["predictions"]), job.defended
    assert rows["calibration"].isna().all()
    assert rows[["index", "target", "predicted"]].equals(before[["index", "target", "predicted"]])


def test_a_table_with_unknown_columns_is_read_and_a_required_one_must_be_there(tmp_path):
    job = find_jobs([RESULTS / "demo"])[0]
    table, path = pq.read_table(job.files["predictions"]), tmp_path / "predictions.parquet"
    pq.write_table(table.append_column("calibration", pa.nulls(len(table))), path)
    rows = read_job_table(path, "predictions", job.record)
    assert rows.num_rows == len(table) and "calibration" not in rows.column_names
    pq.write_table(table.drop_columns("predicted"), path)
    with pytest.raises(ValueError, match="predicted"):
        read_job_table(path, "predictions", job.record)


def test_targeted_predictions_need_their_target_labels(tmp_path):
    (job, *_) = find_jobs([REPOSITORY / "docs" / "results" / "targeted"])
    table = pq.read_table(job.files["predictions"])
    assert read_job_table(job.files["predictions"], "predictions", job.record).num_rows
    pq.write_table(table.drop_columns("target_label"), tmp_path / "predictions.parquet")
    with pytest.raises(ValueError, match="target_label"):
        read_job_table(tmp_path / "predictions.parquet", "predictions", job.record)
