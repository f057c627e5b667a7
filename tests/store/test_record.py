"""What tables say of their job, and what they keep to themselves."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.store.record import JobRecord, public, read_record, with_record
from src.store.tables import read_job_table

RECORD = JobRecord(
    key="k",
    data="d",
    images=2,
    class_names=("a", "b"),
    weights={"net": "w"},
    source="one+two",
    targets=["net"],
    attack="bim",
    label="bim (steps=20)",
    budgets=(0.0, 8.0),
    reference=8.0,
    protocol="joint",
    storage="float32",
    dataset="cifar10_mini",
    config={
        "attack": {"settings": {"steps": 20}, "target_label": None, "norm": "linf"},
        "dataset": {},
        "ensemble": "logits",
        "model": {},
    },
    overrides=("attack=bim",),
)


def test_a_table_says_what_it_is(tmp_path):
    table = with_record(pa.table({"x": [1, 2]}), "flips", RECORD)
    pq.write_table(table, tmp_path / "renamed.parquet")
    name, record = read_record(tmp_path / "renamed.parquet")
    assert (name, record) == ("flips", RECORD)


@pytest.mark.parametrize(
    ("precision", "trainer", "words"),
    [
        ("32-true", {}, "float32"),
        ("32-true", {"attack_precision": "32-true"}, "float32"),
        ("32-true", {"attack_precision": "tf32"}, "gradients in TF32"),
        ("bf16-mixed", {"attack_precision": "bf16"}, "bf16-mixed, gradients in bfloat16"),
    ],
)
def test_a_record_says_its_arithmetic_in_words(precision, trainer, words):
    changes = {"precision": precision, "config": {**RECORD.config, "trainer": trainer}}
    assert RECORD.model_copy(update=changes).arithmetic == words


def test_other_files_are_told_from_this_programs(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "plain.parquet")
    assert read_record(tmp_path / "plain.parquet") is None
    (tmp_path / "no.parquet").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        read_record(tmp_path / "no.parquet")
    newer = pa.table({"x": [1]}).replace_schema_metadata({b"transferability": b'{"format": 99}'})
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(ValueError, match=r"newer\.parquet has the format 99, and"):
        read_record(tmp_path / "newer.parquet")
    odd = b'{"format": 3, "table": "flips", "job": {"surprise": 1}}'
    pq.write_table(
        newer.replace_schema_metadata({b"transferability": odd}), tmp_path / "odd.parquet"
    )
    with pytest.raises(ValueError, match="what no job can be"):
        read_record(tmp_path / "odd.parquet")


def test_tables_of_the_format_before_get_what_their_columns_mean(tmp_path):
    columns = {
        "index": [0, 1],
        "label": [0, 1],
        "target_label": [None, None],
        "target": ["net"] * 2,
    }
    columns |= {"eps_255": [0.0, 0.0], "predicted": [0, 0], "confidence": [0.5, 1.0]}
    rows = pa.table({**columns, "true_confidence": [0.5, 0.0]})
    own = RECORD.model_copy(update={"budgets": (0.0,), "reference": 0.0})
    record = own.model_dump(mode="json", exclude={"surrogate", "layer", "source_defence"})
    old = json.dumps({"format": 3, "table": "predictions", "job": record}).encode()
    path = tmp_path / "predictions.parquet"
    pq.write_table(rows.replace_schema_metadata({b"transferability": old}), path)
    name, found = read_record(path)
    assert found == own
    row = read_job_table(path, name, found).to_pylist()[1]
    assert {
        key: row[key] for key in ("defence", "draws", "iteration", "gradients", "forwards")
    } == {
        **{"defence": "none", "draws": 1, "iteration": None},
        **{"gradients": None, "forwards": None},
    }


def test_passwords_and_the_store_stay_out_of_commands():
    words = ["a=1", "tracking.uri=postgresql://me:secret@db/x", "+tracking.more=2", "tracking=none"]
    assert public([*words, "attack.path=s3://me:se/cret@host/x"]) == (
        "a=1",
        "attack.path=s3://...@host/x",
    )
