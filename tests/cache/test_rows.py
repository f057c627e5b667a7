"""Rows that another process removes or writes meanwhile."""

from pathlib import Path

import pyarrow as pa
import pytest

from src.cache.rows import Rows


@pytest.fixture
def rows(tmp_path) -> Rows:
    """A store with an entry of two files."""
    rows = Rows(tmp_path)
    for number in range(2):
        rows.add("entry", pa.table({"index": [number]}))
    return rows


def test_a_file_that_is_removed_while_rows_are_read_is_missing_rows(rows, monkeypatch):
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        content = real(path)
        rows.discard(["entry"])
        return content

    monkeypatch.setattr(Path, "read_bytes", read)
    assert len(rows.read("entry")) == 1
    assert rows.read("entry") is None


def test_rows_that_are_discarded_leave_those_that_are_being_written(rows, monkeypatch):
    real = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        size = real(path, content)
        rows.discard(["entry"])
        return size

    monkeypatch.setattr(Path, "write_bytes", write)
    rows.add("entry", pa.table({"index": [2]}))
    assert rows.read("entry")["index"].to_pylist() == [2]
