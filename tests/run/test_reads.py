"""The table of predictions, which is the last that a job writes."""

from pathlib import Path

import pyarrow.parquet as pq

PREDICTIONS = "predictions.parquet"


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
