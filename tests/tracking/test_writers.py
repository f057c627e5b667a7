"""Several processes write to one store at once: nothing is lost, and nothing is there twice."""

import shutil
from functools import partial

import mlflow
import pytest

from src.config.settings import TrackingSettings
from src.tracking import open_tracker


def write(settings: TrackingSettings, sweep: str, writer: int, jobs: int) -> None:
    """Log some jobs of two pairs each."""
    tracker = open_tracker(settings, "images")
    for number in range(jobs):
        name = f"{writer}-{number}"
        with tracker.job(name, sweep, {"writer": writer}) as run:
            for target in ("a", "b"):
                tracker.log_pair(
                    run,
                    f"{name} -> {target}",
                    tags={"target": target},
                    parameters={"number": number},
                    points=[("robust_accuracy", 1.0, 0), ("robust_accuracy", number / jobs, 8)],
                )
            tracker.log_job(run, {"n": number}, {}, [])
    assert tracker.address, "the store was given up"


def written(settings: TrackingSettings, at_once, writers: int, jobs: int) -> None:
    """Let processes write at once, and check what the store then holds."""
    tracker = open_tracker(settings, "images")
    sweep = tracker.start_sweep("sweep", {})
    calls = [partial(write, settings, sweep, writer, jobs) for writer in range(writers)]
    at_once(*calls, method="spawn")
    tracker.end_sweep(sweep, "FINISHED", [], "", [])
    store = mlflow.MlflowClient(tracking_uri=tracker.address)
    names = {f"{writer}-{number}" for writer in range(writers) for number in range(jobs)}
    found = {}
    for experiment in ("images", "images-sweeps"):
        number = store.get_experiment_by_name(experiment).experiment_id
        found[experiment] = store.search_runs([number], max_results=5000)
        assert {run.info.status for run in found[experiment]} == {"FINISHED"}
    pairs = [run.info.run_name for run in found["images"]]
    assert sorted(pairs) == sorted(f"{name} -> {target}" for name in names for target in ("a", "b"))
    jobs_there = [run.info.run_name for run in found["images-sweeps"] if run.info.run_id != sweep]
    assert sorted(jobs_there) == sorted(names)
    for run in found["images"]:
        number = int(run.data.params["number"])
        history = store.get_metric_history(run.info.run_id, "robust_accuracy")
        assert [(point.step, point.value) for point in history] == [(0, 1.0), (8, number / jobs)]


def test_stores_created_at_once_are_one(empty_store):
    """Two processes have built it; see `empty_store`."""
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{empty_store}/mlflow.db")
    number = store.get_experiment_by_name("atonce-sweeps").experiment_id
    assert len(store.search_runs([number])) == 2


def test_a_build_that_stops_leaves_no_store(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("alembic.command.upgrade", stop)
    with pytest.raises(KeyboardInterrupt):
        open_tracker(TrackingSettings(name="mlflow", directory=str(tmp_path)), "images")
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.lock"]


@pytest.mark.slow
def test_four_processes_share_an_sqlite_store(tmp_path, empty_store, at_once):
    shutil.copytree(empty_store, tmp_path / "mlruns")
    settings = TrackingSettings(name="mlflow", directory=str(tmp_path / "mlruns"))
    written(settings, at_once, writers=4, jobs=10)
