"""A store is whole, or it is not there: whatever stops the process that builds it."""

import multiprocessing
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


def test_a_build_that_stops_leaves_no_store(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("alembic.command.upgrade", stop)
    with pytest.raises(KeyboardInterrupt):
        used(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.lock"]


def test_a_damaged_store_of_ones_own_costs_tracking_alone(tmp_path, caplog):
    (tmp_path / "mlflow.db").write_text("no SQLite file")
    assert used(tmp_path) == WHOLE
    assert f"{tmp_path}/mlflow.db" in caplog.text
    assert (tmp_path / "mlflow.db").read_text() == "no SQLite file"


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
