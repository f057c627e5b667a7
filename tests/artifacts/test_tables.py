"""Tables whose columns declare their ranges, read back."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
