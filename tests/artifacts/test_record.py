"""Records of jobs in their tables, ranges of columns, and which jobs a sweep has."""

import json
import math
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts import sweep_state as state
from src.artifacts.jobs import find_jobs
from src.artifacts.record import (
    REMOVED_KEYS,
    _digest,
    public,
    read_record,
    with_record,
)
from src.artifacts.tables import CLASSES, FLOAT, INDEX, LABEL, column, read_job_table
from tests.conftest import REPOSITORY
from tests.records import make_record

DEMO = REPOSITORY / "docs" / "results" / "demo"

RECORD = make_record(
    **{"key": "k", "images": 2, "class_names": ("a", "b"), "weights": {"net": "w"}},
    **{"source": "one+two", "attack": "bim", "label": "bim (steps=20)"},
    **{"budgets": (0.0, 8.0), "reference": 8.0},
)


def test_other_files_are_told_from_this_programs(tmp_path):
    path, table = tmp_path / "x.parquet", pa.table({"x": [1]})
    path.write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        read_record(path)
    pq.write_table(table, path)
    assert read_record(path) is None
    pq.write_table(with_record(table, "flips", RECORD), path)
    assert read_record(path) == ("flips", RECORD)
    flipped = with_record(table, "flips", RECORD).schema.metadata[b"transferability"]
    flipped = flipped.replace(b'"logits"', b'"logitz"')
    for content, message in (
        (b'{"format": 99}', r"x\.parquet has the format 99, "),
        (b'{"format": 3, "table": "flips", "job": {}}', "has the format 3, "),
        (b'{"format": 6, "table": "flips", "job": {"surprise": 1}}', "no valid record of its job"),
        (flipped, "its record is damaged"),
    ):
        pq.write_table(table.replace_schema_metadata({b"transferability": content}), path)
        with pytest.raises(ValueError, match=message):
            read_record(path)


@pytest.mark.parametrize("key", REMOVED_KEYS)
def test_a_removed_setting_is_named_and_the_folder_is_read(tmp_path, caplog, key):
    table = pq.read_table(DEMO / "8-mi-inception_small" / "predictions.parquet")
    content = json.loads(table.schema.metadata[b"transferability"])
    *sections, name = key.replace("*", "vgg_small").split(".")
    section, records = content["job"]["config"], []
    for part in sections:
        section = section.setdefault(part, {})
    for value in (REMOVED_KEYS[key], "other"):
        section[name] = value
        content["digest"] = _digest(content["job"])
        text = {b"transferability": json.dumps(content).encode()}
        for number in ("0", "1"):
            (tmp_path / number).mkdir(exist_ok=True)
            file = tmp_path / number / "predictions.parquet"
            pq.write_table(table.replace_schema_metadata(text), file)
        (job,) = find_jobs([tmp_path])
        records.append(job.record)
        assert job.record == records[0] and f"'{name}'" not in str(job.record.config)
        assert len(caplog.messages) == (value == "other") == caplog.text.count(f"{key}=other,")


def test_passwords_stay_out_of_commands_and_damaged_notes_are_read(tmp_path):
    (tmp_path / "error.txt").write_bytes(b"no s\xf5ace\n\nTraceback")
    assert state.noted_failure(tmp_path) == "no s\N{REPLACEMENT CHARACTER}ace"
    words = ["a=1", "tracking.uri=postgresql://me:secret@db/x", "+tracking.more=2", "tracking=none"]
    assert public([*words, "attack.path=s3://me:se/cret@host/x"]) == (
        "a=1",
        "attack.path=s3://...@host/x",
    )


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("index", [0], [-1]),
        ("label", [0, 9], [10]),  # of ten classes
        ("cosine", [-1.0, 1.0, math.nan], [1.5]),
        ("share", [0.0, 5.0, None], [-0.1, math.nan]),
        ("ranks", [[0, 9]], [[0, 10]]),
    ],
)
def test_values_are_read_if_they_are_inside_the_ranges_of_their_columns(
    name, inside, outside, tmp_path
):
    record, path = find_jobs([DEMO])[0].record, tmp_path / "similarity.parquet"
    share, cosine = column("share", FLOAT, 0, null=True), column("cosine", FLOAT, -1, 1, nan=True)
    ranks = column("ranks", pa.list_(pa.int64()), 0, CLASSES)
    schema = pa.schema([INDEX, LABEL, cosine, share, ranks])
    row = {"index": 7, "label": 9, "cosine": -1.0, "share": 5.0, "ranks": [0, 9]}
    for value in inside:
        pq.write_table(pa.Table.from_pylist([row | {name: value}], schema), path)
        assert read_job_table(path, "similarity", record).num_rows == 1
    for value in outside:
        pq.write_table(pa.Table.from_pylist([row | {name: value}], schema), path)
        with pytest.raises(ValueError, match=rf"similarity\.parquet .*column {name} "):
            read_job_table(path, "similarity", record)


@pytest.mark.parametrize(
    ("sweep", "required"), [("demo", "predicted"), ("targeted", "target_label")]
)
def test_unknown_columns_are_left_out_and_required_ones_must_be_there(sweep, required, tmp_path):
    job, path = find_jobs([DEMO.parent / sweep])[0], tmp_path / "predictions.parquet"
    table = pq.read_table(job.files["predictions"])
    pq.write_table(table.append_column("calibration", pa.nulls(len(table))), path)
    rows = read_job_table(path, "predictions", job.record)
    assert rows.num_rows == len(table) and "calibration" not in rows.column_names
    pq.write_table(table.drop_columns(required), path)
    with pytest.raises(ValueError, match=required):
        read_job_table(path, "predictions", job.record)


@pytest.mark.parametrize("seconds", [-30, 0, 30])  # by which the file server's clock is off
def test_a_sweep_has_the_jobs_that_hold_its_id_whatever_their_times(tmp_path, seconds):
    manifest, now = state.SweepManifest(jobs=["mi", "bim"], single=False, id="12e5"), time.time()
    state.write_manifest(tmp_path, manifest)
    for number, sweep in enumerate(("'12e5'", "'12e5'", "12e55", "null")):
        folder = tmp_path / f"{number}-job"
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(f"seed: 0\nsweep: {sweep}\nhydra: 1\n")
        (folder / "predictions.parquet").touch()
        for file, ended in ((".hydra/config.yaml", 0), ("predictions.parquet", 5)):
            os.utime(folder / file, (0, now + ended + seconds))
    assert list(state.job_folders(tmp_path, manifest)) == [0, 1]
    done = ("done", pytest.approx(5, abs=1))
    assert [job[2:4] for job in state.job_statuses(tmp_path)] == [done] * 2
