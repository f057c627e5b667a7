"""A store is whole, or it is not there: whatever stops the process that builds it."""

import multiprocessing
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from src.config.settings import TrackingSettings
from src.tracking import open_tracker


def use(folder: Path) -> None:
    settings = TrackingSettings(name="mlflow", directory=str(folder))
    open_tracker(settings, "images").start_sweep("sweep", "p", {}, folder / "x")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_build_that_stops_leaves_no_store(tmp_path, monkeypatch, error):
    def stop(*arguments):
        raise error("stopped")

    monkeypatch.setattr("alembic.command.upgrade", stop)
    with pytest.raises(error, match="stopped"):
        use(tmp_path)
    assert names(tmp_path) == ["mlflow.lock"]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_store_that_cannot_be_opened_is_replaced_if_it_holds_no_run(tmp_path, caplog, rows):
    (tmp_path / ".mlflow.0.db-journal").write_text("of a build that was killed")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as half:
        half.execute("CREATE TABLE metrics (a)")  # not as MLflow has it
        half.execute("CREATE TABLE _alembic_tmp_runs (a)")
        half.executemany("INSERT INTO _alembic_tmp_runs VALUES (?)", [(1,)] * rows)
        half.commit()
    if rows:
        with pytest.raises(ValueError, match="cannot be used"):
            use(tmp_path)
        assert names(tmp_path) == ["mlflow.db", "mlflow.lock"] and not caplog.records
    else:
        use(tmp_path)
        use(tmp_path)
        aside, *others = names(tmp_path)
        assert aside.startswith("mlflow-unusable-") and others == ["mlflow.db", "mlflow.lock"]
        (record,) = (one for one in caplog.records if one.name.startswith("src."))
        assert aside in record.message


@pytest.mark.slow
def test_a_store_whose_build_was_killed_is_built_anew(tmp_path):
    def begun(folder: Path) -> multiprocessing.Process:
        process = multiprocessing.get_context("fork").Process(target=use, args=[folder])
        process.start()
        return process

    start = time.monotonic()
    begun(tmp_path / "whole").join()
    took = time.monotonic() - start
    for moment in range(12):
        killed = begun(tmp_path / str(moment))
        time.sleep(took * moment / 12)
        killed.kill()
        killed.join()
        (again := begun(tmp_path / str(moment))).join()
        assert again.exitcode == 0
        assert names(tmp_path / str(moment)) == ["mlflow.db", "mlflow.lock"]
