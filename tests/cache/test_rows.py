"""Rows that other processes remove or write meanwhile, and the limit of their size."""

import os
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from src.cache.rows import Rows


def row(number: int, key: str = "a") -> pa.Table:
    return pa.table({"key": [key], "index": [number], "image": [f"image {number}"]})


@pytest.fixture
def rows(tmp_path) -> Rows:
    """A store with a table of two files."""
    rows = Rows(tmp_path)
    for number in range(2):
        rows.add("0f", "table", row(number))
    return rows


def index_of(rows: Rows, origin: str = "0f") -> list[int]:
    table = rows.read(origin, "table")
    return [] if table is None else sorted(table["index"].to_pylist())


def meanwhile(monkeypatch, moment: str, rows: Rows) -> None:
    """Discard the rows of a key once, after a file's bytes were read or written."""
    real = getattr(Path, moment)

    def call(path: Path, *content: bytes) -> bytes | int:
        result = real(path, *content)
        monkeypatch.undo()
        rows.discard("0f", "table", ["a"])
        return result

    monkeypatch.setattr(Path, moment, call)


def test_a_file_that_is_removed_while_rows_are_read_is_missing_rows(rows, monkeypatch):
    meanwhile(monkeypatch, "read_bytes", rows)
    assert len(index_of(rows)) == 1 and index_of(rows) == []


def test_discarded_rows_leave_those_of_other_keys_and_those_being_written(rows, monkeypatch):
    rows.add("0f", "table", pa.concat_tables([row(7), row(7, "b")]))
    meanwhile(monkeypatch, "write_bytes", rows)
    rows.add("0f", "table", row(2))
    assert index_of(rows) == [2, 7]


@pytest.mark.parametrize("moment", ["write_bytes", "rename", "replace", "unlink"])
def test_a_kill_while_rows_are_discarded_loses_no_other_row(rows, monkeypatch, moment):
    rows.add("0f", "table", pa.concat_tables([row(7), row(7, "b")]))
    real = getattr(Path, moment)

    def stop(path: Path, *words: object, **options: object) -> None:
        monkeypatch.setattr(Path, moment, real)  # what ends the process may clean up
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, moment, stop)
    with suppress(KeyboardInterrupt):
        rows.discard("0f", "table", ["a"])
    left = rows.read("0f", "table")
    assert left is not None and "b" in left["key"].to_pylist()


def test_damaged_and_moved_files_are_discarded_and_lost_ones_have_no_size(rows):
    damaged, whole = sorted((rows.folder / "0f" / "table").iterdir())
    for place in ("0f/other", "1e/table"):
        moved = rows.folder / place / whole.name
        moved.parent.mkdir(parents=True)
        moved.write_bytes(whole.read_bytes())
        assert rows.read(*place.split("/")) is None and not moved.exists()
    assert index_of(rows) == [0, 1]
    damaged.write_bytes(b"damaged")
    rows.discard("0f", "table", ["a"])
    assert index_of(rows) == [] and not damaged.exists() and not whole.exists()
    rows.add("0f", "table", row(1))
    (rows.folder / "0f" / "table" / "gone.parquet").symlink_to("nowhere")
    assert rows.sizes()[rows.folder / "0f"] > 0


def test_rows_that_two_processes_computed_are_read_once(rows):
    rows.add("0f", "table", pa.concat_tables([row(1), row(1, "b"), row(3)]))
    for _ in ("in three files", "in one"):
        assert index_of(rows) == [0, 1, 1, 3]
        rows.merge("0f", "table")
    assert len(list((rows.folder / "0f" / "table").iterdir())) == 1
    assert rows.select("0f", "table", "a", [1, 3])["index"].to_pylist() == [1, 3]


def test_what_was_used_longest_ago_goes_first_and_never_what_is_in_use(rows):
    for hours, origin in enumerate(("1a", "1b", "1c", "1d"), start=2):
        rows.add(origin, "table", row(0))
        os.utime(rows.folder / origin, (0, time.time() - 3600 * hours))
    size = min(rows.sizes().values())
    index_of(rows, "1d")  # is a use
    with rows.locked(["1c"]):
        rows.shrink(4 * size / 1e9)
        assert index_of(rows, "1b") == [] and index_of(rows, "1c") == [0]
    rows.shrink(0)
    assert {path.name for path in rows.sizes()} == {"0f", "1c", "1d"}
