"""How often a command writes and reads the table of predictions."""

import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

PREDICTIONS = "predictions.parquet"


@pytest.fixture
def calls(monkeypatch):
    """Count calls of pyarrow's functions for parquet files, by function and job folder."""
    counts = Counter[tuple[str, str]]()

    def count(name, position):
        real = getattr(pq, name)

        def call(*args, **words):
            path = args[position]
            if isinstance(path, str | Path) and "predictions" in Path(path).name:
                counts[name, Path(path).parent.name] += 1
            return real(*args, **words)

        monkeypatch.setattr(pq, name, call)

    count("read_table", 0)
    count("write_table", 1)
    return counts


SWEEP = ["-m", "attack=fgsm,rfgsm", "defences=[none,jpeg]"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], SWEEP])
def test_predictions_are_written_once_last_and_read_at_most_twice(
    run_job, workspace, empty_store, calls, words
):
    shutil.copytree(empty_store, workspace / "mlruns")
    folder = "hydra.sweep.dir=out" if words else "hydra.run.dir=out"
    assert run_job(*words, "report=default", "tracking=mlflow", folder) == 0
    tables = sorted((workspace / "out").rglob(PREDICTIONS))
    assert len(tables) == (2 if words else 1)
    for table in tables:
        assert calls["write_table", table.parent.name] == 1
        assert 0 < calls["read_table", table.parent.name] <= 2
        others = [*table.parent.glob("*.parquet"), table.parent / "rates.csv"]
        assert table == max(others, key=lambda path: path.stat().st_mtime_ns)


def test_a_job_that_cannot_write_another_table_has_no_predictions(run_job, workspace, monkeypatch):
    real = pq.write_table

    def full_disk(table, where, *args, **words):
        if isinstance(where, str | Path) and "top_five" in Path(where).name:
            raise OSError(28, "No space left on device")
        return real(table, where, *args, **words)

    monkeypatch.setattr(pq, "write_table", full_disk)
    assert run_job("hydra.run.dir=out") == 1
    assert not (workspace / "out" / PREDICTIONS).exists()
    assert "cannot be written" in (workspace / "out" / "error.txt").read_text()
