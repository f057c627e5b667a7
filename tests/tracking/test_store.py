"""A store is whole, or it is not there: whatever stops the process that builds it."""

import multiprocessing
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from src.config.settings import TrackingSettings
from src.tracking import open_tracker

WHOLE = ["mlflow.db", "mlflow.lock"]


def used(folder: Path) -> list[str]:
    """Start a sweep in a folder's store, and return what the folder then holds."""
    settings = TrackingSettings(name="mlflow", directory=str(folder))
    open_tracker(settings, "images").start_sweep("sweep", "p", {}, folder / "x")
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_build_that_stops_leaves_no_store(tmp_path, monkeypatch, error):
    def stop(*arguments):
        raise error("stopped")

    monkeypatch.setattr("alembic.command.upgrade", stop)
    with pytest.raises(error, match="stopped"):
        used(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.lock"]


@pytest.mark.parametrize("runs", [0, 1])
def test_a_store_that_cannot_be_opened_is_replaced_if_it_holds_no_run(tmp_path, caplog, runs):
    (tmp_path / ".mlflow.0.db-journal").write_text("of a build that was killed")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as half:
        half.execute("CREATE TABLE metrics (a)")  # not as MLflow has it
        half.execute("CREATE TABLE _alembic_tmp_runs (a)")
        half.executemany("INSERT INTO _alembic_tmp_runs VALUES (?)", [(1,)] * runs)
        half.commit()
    os.utime(tmp_path / "mlflow.db", (0, 0))  # nobody builds it at the moment
    if runs:
        with pytest.raises(ValueError, match="is damaged"):
            used(tmp_path)
        assert sorted(file.name for file in tmp_path.iterdir()) == WHOLE and not caplog.text
    else:
        aside, *others = used(tmp_path)
        assert aside.startswith("mlflow-unusable-") and aside in caplog.text
        assert others == WHOLE and used(tmp_path) == [aside, *WHOLE]


@pytest.mark.slow
def test_a_store_whose_build_was_killed_is_built_anew(tmp_path):
    for moment in range(15):
        folder = tmp_path / str(moment)
        killed = multiprocessing.get_context("fork").Process(target=used, args=[folder])
        killed.start()
        killed.join(moment / 5)
        killed.kill()
        killed.join()
        assert used(folder) == WHOLE
