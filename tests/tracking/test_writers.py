"""Several processes write to one store at once: nothing is lost, and nothing is there twice."""

import shutil
from functools import partial

import mlflow
import pytest

from src.config.sections import TrackingSettings
from src.tracking import open_tracker
from tests.conftest import at_once, mlflow_settings

WRITERS, JOBS = 4, 10


def write(settings: TrackingSettings, writer: int) -> None:
    """Publish some pairs, and trainings that all writers have."""
    tracker = open_tracker(settings, "images")
    sweep = {"sweep": f"{writer}", f"sweep.{writer}": "true", "data_digest": "d"}
    for number in range(JOBS):
        points = [("robust_accuracy", 1.0, 0), ("robust_accuracy", number / JOBS, 8)]
        for kind, name in (("pair", f"{writer}-{number}"), ("training", f"shared {number}")):
            tags = {"run_key": name, **sweep}
            tracker.publish(kind, name, {"number": number}, points, tags)
    assert tracker.store, "the store was given up"


def test_a_build_that_stops_leaves_no_store(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("alembic.command.upgrade", stop)
    with pytest.raises(KeyboardInterrupt):
        open_tracker(mlflow_settings(tmp_path), "images")
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.lock"]


@pytest.mark.slow
def test_four_processes_share_an_sqlite_store(tmp_path, empty_store):
    shutil.copytree(empty_store, tmp_path / "mlruns")
    settings = mlflow_settings(tmp_path / "mlruns")
    at_once(*(partial(write, settings, writer) for writer in range(WRITERS)), method="spawn")
    store = mlflow.MlflowClient(tracking_uri=open_tracker(settings, "images").store.tracking_uri)
    places = [store.get_experiment_by_name(f"images{end}") for end in ("", "-training")]
    places = [place.experiment_id for place in places]
    pairs, shared = (store.search_runs([place], max_results=5000) for place in places)
    names = sorted(f"{writer}-{number}" for writer in range(WRITERS) for number in range(JOBS))
    assert sorted(run.info.run_name for run in pairs) == names
    assert sorted(run.info.run_name for run in shared) == [f"shared {at}" for at in range(JOBS)]
    for run in (*pairs, *shared):
        history = store.get_metric_history(run.info.run_id, "robust_accuracy")
        last = int(run.data.params["number"]) / JOBS
        assert [(point.step, point.value) for point in history] == [(0, 1.0), (8, last)]
        assert run.info.status == "FINISHED"
    every = {f"sweep.{writer}" for writer in range(WRITERS)}
    assert all(every <= run.data.tags.keys() for run in shared)
