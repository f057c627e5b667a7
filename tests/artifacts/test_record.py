"""Records of jobs in their tables: read back, refused, and without secrets."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts.jobs import find_jobs
from src.artifacts.record import (
    REMOVED_KEYS,
    _backward_rule,
    _digest,
    public,
    read_record,
    with_record,
)
from src.artifacts.sweep_state import noted_failure
from src.config.attack_settings import AttackSettings
from tests.records import make_record

RECORD = make_record(
    **{"key": "k", "images": 2, "class_names": ("a", "b"), "weights": {"net": "w"}},
    **{"source": "one+two", "attack": "bim", "label": "bim (steps=20)"},
    **{"budgets": (0.0, 8.0), "reference": 8.0},
)


def test_a_record_names_the_backward_rule():
    def name(category, **keys):
        about = {"category": category}
        return _backward_rule(AttackSettings(name="sgm", label="sgm", about=about, settings=keys))

    assert (name("backward", gamma=0.5), name("gradient", backward_rule=None)) == ("sgm", "")
    assert name("own", backward_rule={"_target_": "package.Linear", "from_block": 3}) == "Linear"


def test_a_program_without_a_commit_states_its_version():
    versions = {"transferability": "0.5.0", "torch": "2.11"}
    for commit, text in (("unknown", "version 0.5.0"), ("1a2b+changes", "commit 1a2b+changes")):
        record = RECORD.model_copy(update={"commit": commit, "versions": versions})
        assert record.program == text


def test_a_table_says_what_it_is(tmp_path):
    table = with_record(pa.table({"x": [1, 2]}), "flips", RECORD)
    pq.write_table(table, tmp_path / "renamed.parquet")
    name, record = read_record(tmp_path / "renamed.parquet")
    assert (name, record) == ("flips", RECORD)


@pytest.mark.parametrize(
    ("precision", "gradients", "words"),
    [
        ("32-true", "32-true", "float32"),
        ("bf16-mixed", "bf16", "bf16-mixed, gradients in bfloat16"),
    ],
)
def test_a_record_says_its_arithmetic_in_words(precision, gradients, words):
    config = {"attack": {"kind": "crafted"}, "trainer": {"attack_precision": gradients}}
    changed = RECORD.model_copy(update={"precision": precision, "config": config})
    assert changed.arithmetic == words


def test_other_files_are_told_from_this_programs(tmp_path):
    path, table = tmp_path / "x.parquet", pa.table({"x": [1]})
    path.write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        read_record(path)
    pq.write_table(table, path)
    assert read_record(path) is None
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
    path = Path("docs/results/demo/8-mi-inception_small/predictions.parquet")
    table = pq.read_table(path)
    content = json.loads(table.schema.metadata[b"transferability"])
    section, name = content["job"]["config"], key.rpartition(".")[2]
    for part in key.replace("*", "vgg_small").split(".")[:-1]:
        section = section.setdefault(part, {})
    records = []
    for value in (REMOVED_KEYS[key], "other"):
        section[name] = value
        content["digest"] = _digest(content["job"])
        text = {b"transferability": json.dumps(content).encode()}
        for folder in (tmp_path / "0", tmp_path / "1"):
            folder.mkdir(exist_ok=True)
            pq.write_table(table.replace_schema_metadata(text), folder / path.name)
        (job,) = find_jobs([tmp_path])
        records.append(job.record)
        assert job.record == records[0] and f"'{name}'" not in str(job.record.config)
        assert len(caplog.messages) == (value == "other") == caplog.text.count(f"{key}=other,")


def test_a_damaged_note_of_a_failure_is_a_failure(tmp_path):
    (tmp_path / "error.txt").write_bytes(b"no s\xf5ace\n\nTraceback")
    assert noted_failure(tmp_path) == "no s\N{REPLACEMENT CHARACTER}ace"


def test_passwords_and_the_store_stay_out_of_commands():
    words = ["a=1", "tracking.uri=postgresql://me:secret@db/x", "+tracking.more=2", "tracking=none"]
    assert public([*words, "attack.path=s3://me:se/cret@host/x"]) == (
        "a=1",
        "attack.path=s3://...@host/x",
    )
