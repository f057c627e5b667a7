"""Several processes write to one store at once: nothing is lost, and nothing is there twice."""

import shutil
from functools import partial

import mlflow
import pytest

from src.config.sections import TrackingSettings
from src.tracking import open_tracker
from tests.conftest import mlflow_settings


def write(settings: TrackingSettings, writer: int, jobs: int) -> None:
    """Publish some jobs of two pairs each, and a pair that all writers have."""
    tracker = open_tracker(settings, "images")
    sweep = {"sweep": f"{writer}", f"sweep.{writer}": "true", "data_digest": "d"}
    for number in range(jobs):
        name = f"{writer}-{number}"
        tracker.publish("job", name, {"writer": writer}, [], {"run_key": name, **sweep})
        for target in ("a", "b"):
            points = [("robust_accuracy", 1.0, 0), ("robust_accuracy", number / jobs, 8)]
            tags = {"run_key": f"{name}-{target}", "target": target, **sweep}
            tracker.publish("pair", f"{name} -> {target}", {"number": number}, points, tags)
        shared = {"run_key": f"shared {number}", **sweep}
        tracker.publish("training", f"shared {number}", {}, [("n", 1, 0)], shared)
    assert tracker.store, "the store was given up"


def written(settings: TrackingSettings, at_once, writers: int, jobs: int) -> None:
    """Let processes write at once, and check what the store then holds."""
    calls = [partial(write, settings, writer, jobs) for writer in range(writers)]
    at_once(*calls, method="spawn")
    store = mlflow.MlflowClient(tracking_uri=open_tracker(settings, "images").store.tracking_uri)
    names = {f"{writer}-{number}" for writer in range(writers) for number in range(jobs)}
    found = {}
    for end in ("", "-sweeps", "-training"):
        number = store.get_experiment_by_name(f"images{end}").experiment_id
        found[end] = store.search_runs([number], max_results=5000)
        assert {run.info.status for run in found[end]} == {"FINISHED"}
    pairs = [run.info.run_name for run in found[""]]
    assert sorted(pairs) == sorted(f"{name} -> {target}" for name in names for target in ("a", "b"))
    assert sorted(run.info.run_name for run in found["-sweeps"]) == sorted(names)
    for run in found[""]:
        number = int(run.data.params["number"])
        history = store.get_metric_history(run.info.run_id, "robust_accuracy")
        assert [(point.step, point.value) for point in history] == [(0, 1.0), (8, number / jobs)]
    shared = {run.info.run_name: run.data for run in found["-training"]}
    assert len(shared) == len(found["-training"]) == jobs
    for data in shared.values():
        assert data.metrics == {"n": 1}
        assert {f"sweep.{writer}" for writer in range(writers)} <= data.tags.keys()


def test_stores_created_at_once_are_one(empty_store):
    """Two processes have built it and published one run; see `empty_store`."""
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{empty_store}/mlflow.db")
    number = store.get_experiment_by_name("atonce-sweeps").experiment_id
    assert [run.info.status for run in store.search_runs([number])] == ["FINISHED"]


def test_a_build_that_stops_leaves_no_store(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("alembic.command.upgrade", stop)
    with pytest.raises(KeyboardInterrupt):
        open_tracker(mlflow_settings(tmp_path), "images")
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.lock"]


@pytest.mark.slow
def test_four_processes_share_an_sqlite_store(tmp_path, empty_store, at_once):
    shutil.copytree(empty_store, tmp_path / "mlruns")
    settings = mlflow_settings(tmp_path / "mlruns")
    written(settings, at_once, writers=4, jobs=10)
