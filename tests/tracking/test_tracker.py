"""Logged runs, read back through MLflow's own client."""

import re
import shutil
import time
from types import SimpleNamespace
from urllib.parse import unquote
from uuid import uuid4

import mlflow
import pytest
import requests

from src.config.sections import TrackingSettings
from src.tracking import open_tracker
from src.tracking.mlflow_store import MlflowStore
from tests.conftest import REPOSITORY, mlflow_settings


def changed(settings: TrackingSettings, **changes) -> TrackingSettings:
    """Return settings with other keys of the store, and of every store."""
    return TrackingSettings.model_validate({**settings.model_dump(), **changes})


@pytest.fixture
def settings(tmp_path, empty_store):
    shutil.copytree(empty_store, tmp_path / "mlruns")
    return mlflow_settings(tmp_path / "mlruns")


@pytest.fixture
def tracker(settings):
    return open_tracker(settings, "images")


@pytest.fixture
def store(settings):
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{settings.directory}/mlflow.db")


def publish(tracker, kind="pair", name="a -> b", parameters=None, metrics=(), files=(), **tags):
    """Publish a run that belongs to a sweep."""
    sweep = tags.pop("sweep", "first")
    tags = {"run_key": f"{kind} {name}", "sweep": sweep, f"sweep.{sweep}": "true", **tags}
    tracker.publish(kind, name, parameters or {}, metrics, tags, files)


def runs(store, experiment="images") -> list:
    return store.search_runs([store.get_experiment_by_name(experiment).experiment_id])


def again(settings):
    """Return the tracker that a later command opens."""
    open_tracker.cache_clear()
    return open_tracker(settings, "images")


def test_a_run_is_published_once_and_gets_the_new_tags_of_later_sweeps(settings, store):
    curve = [("n", 1.0, 0), ("n", 0.5, 8)]
    for sweep, steps in (("first", "x" * 7000), ("second", "2")):
        tracker = again(changed(settings, tags={"paper": f"of the {sweep}", sweep: "here"}))
        points = curve if sweep == "first" else []
        publish(tracker, sweep=sweep, metrics=points, parameters={"steps": steps})
        publish(tracker, sweep=sweep, name="only the first" if points else "a -> b")
    run, other = sorted(runs(store), key=lambda its: its.info.run_name)
    assert other.info.run_name == "only the first" and "sweep.second" not in other.data.tags
    known = {"sweep": "first", "sweep.first": "true", "sweep.second": "true"}
    known |= {"paper": "of the first", "first": "here", "second": "here", "kind": "pair"}
    assert known.items() <= run.data.tags.items()
    history = store.get_metric_history(run.info.run_id, "n")
    assert [(point.key, point.value, point.step) for point in history] == curve
    assert len(run.data.params["steps"]) == 6000 and run.data.params["steps"].endswith("x...")


def test_a_run_ends_as_what_happened_and_jobs_are_below_their_first_sweep(tracker, store):
    for sweep in ("first", "second"):
        publish(tracker, "job", "good", sweep=sweep)
        publish(tracker, "job", "bad", error="no such luck", sweep=sweep)
        points = [("n", 1, step) for step in range(1200)]  # MLflow takes 1,000 in a request
        publish(tracker, "sweep", sweep, metrics=points, sweep=sweep)
    found = {run.info.run_name: run for run in runs(store, "images-sweeps")}
    ends = {name: run.info.status for name, run in found.items()}
    assert ends == dict(good="FINISHED", bad="FAILED", first="FINISHED", second="FINISHED")
    assert found["bad"].data.tags["error"] == "no such luck"
    first = found["first"].info.run_id
    assert {found[job].data.tags["mlflow.parentRunId"] for job in ("good", "bad")} == {first}
    assert len(store.get_metric_history(first, "n")) == 1200


def test_a_run_has_the_duration_of_its_job(tracker, store):
    began = 1000 * int(time.time()) - 120_000
    publish(tracker, started=f"{began}")
    (run,) = runs(store)
    assert run.info.start_time == began and "started" not in run.data.tags
    assert 120_000 <= run.info.end_time - run.info.start_time < 240_000


def test_a_run_that_was_left_open_is_completed(settings, store, monkeypatch, caplog):
    words = {"metrics": [("n", 1, 0), ("n", 2, 8)], "data_digest": "d"}
    with monkeypatch.context() as patch:
        patch.delattr(mlflow.MlflowClient, "set_terminated")
        publish(again(settings), **words)
    assert [run.info.status for run in runs(store)] == ["RUNNING"] and caplog.records
    publish(again(settings), **words, sweep="second")
    (run,) = runs(store)
    assert run.info.status == "FINISHED" and "sweep.second" in run.data.tags
    assert [its.value for its in store.get_metric_history(run.info.run_id, "n")] == [1, 2]
    assert len(run.inputs.dataset_inputs) == 1


def test_processes_that_publish_a_run_at_the_same_time_leave_one(settings, store, monkeypatch):
    tracker, other = again(settings), again(settings)
    real, begun = mlflow.MlflowClient.create_run, []

    def create(*arguments, **keywords):
        begun.append(1)
        if len(begun) == 1:
            publish(other, sweep="second", metrics=[("n", 1, 0)])
        return real(*arguments, **keywords)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", create)
    publish(tracker, metrics=[("n", 1, 0)])
    (run,) = runs(store)
    assert len(begun) == 2 and {"sweep.first", "sweep.second"} <= run.data.tags.keys()
    assert run.info.status == "FINISHED" and run.data.metrics == {"n": 1}


def test_a_link_leads_to_the_pairs_of_a_sweep_and_hides_passwords(tracker, monkeypatch):
    assert "first: mlflow ui --backend-store-uri sqlite:///" in tracker.link("first")
    uri = "http://me:secret@host"
    monkeypatch.setattr(MlflowStore, "tracking_uri", property(lambda self: uri))
    link = unquote(tracker.link("first"))
    assert "http://host/#/experiments/" in link and "tags.`sweep.first` = 'true'" in link


def test_a_named_store_that_cannot_be_opened_or_written_is_refused(
    settings, tracker, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder of the name `file:`
    read_only = f"sqlite:///file:{settings.directory}/mlflow.db?mode=ro&uri=true"
    for uri, named in {
        "nonsense://x": "nonsense://x",
        "mysql://me:sec/ret@host/db": "mysql://host/db",
        read_only: "readonly database",
        "file:./my runs": "'tracking.directory=\"./my runs\"'",
    }.items():
        with pytest.raises(ValueError, match=f"tracking: .*{named}") as caught:
            open_tracker(changed(settings, uri=uri), "new")
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert capfd.readouterr().err == ""


def track(directory, file) -> tuple[str, str]:
    """Track a sweep with a file in a folder's store; return its run and its experiment's name."""
    store, name = again(mlflow_settings(directory)).store, uuid4().hex
    publish(again(mlflow_settings(directory)), "sweep", name, files=[file])
    wanted = f"attributes.run_name = '{name}'"
    (run,) = store.search_runs(list(store.experiments.values()), wanted)
    return run.info.run_id, store.get_experiment(run.info.experiment_id).name


def artifacts_of(directory, run: str) -> list[str]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{directory}/mlflow.db")
    return [its.path for its in client.list_artifacts(run)]


@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_store_is_told_once_and_its_old_place_gets_no_file(
    settings, tmp_path, caplog, copied
):
    old, new, file = tmp_path / "mlruns", tmp_path / "new" / "ml runs", tmp_path / "attacks.csv"
    file.touch()
    first, name = track(old, file)
    (tmp_path / "link").symlink_to(tmp_path)
    assert name == track(tmp_path / "link" / "mlruns", file)[1] == "images-sweeps"  # no move
    assert not caplog.records
    (shutil.copytree if copied else shutil.move)(old, new)
    before = {path for path in old.rglob("*") if path.is_file()}
    for _ in range(2):
        run, name = track(new, file)
        assert name == "images-moved-sweeps" and artifacts_of(new, run) == [file.name]
    assert {path for path in old.rglob("*") if path.is_file()} == before
    assert len(caplog.records) == 1 and f"{old}/" in caplog.text and str(new) in caplog.text
    if not copied:
        page = (REPOSITORY / "docs" / "tracking.md").read_text()
        snippet = re.search(r"```python\n(import sqlite3.*?)```", page, re.S)[1]
        code = snippet.replace("mlruns/mlflow.db", f"{new}/mlflow.db")
        exec(code.replace("/home/me/old/mlruns", str(old)).replace("/home/me/new/mlruns", str(new)))
        assert artifacts_of(new, first) == [file.name]
        assert track(new, file)[1] == "images-sweeps"


def test_what_a_store_refuses_costs_nothing_else(tracker, store, tmp_path, monkeypatch, caplog):
    def upload(client, run, path, folder=None, real=mlflow.MlflowClient.log_artifact):
        if path.endswith("large.csv"):
            raise requests.HTTPError("413", response=SimpleNamespace(status_code=413))
        real(client, run, path, folder)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", upload)
    files = [tmp_path / name for name in ("large.csv", "small.csv")]
    for file in files:
        file.touch()
    publish(tracker, files=files, parameters={"a?": 1})
    (run,) = runs(store)
    assert run.info.status == "FINISHED" and run.data.params == {}
    assert [file.path for file in store.list_artifacts(run.info.run_id)] == ["small.csv"]
    assert len(caplog.records) == 2 and "413" in caplog.text and "a?" in caplog.text


def test_a_folder_that_no_address_names_is_said_at_once(settings, tmp_path, caplog):
    other = changed(settings, directory=str(tmp_path / "a%20b"))
    assert open_tracker(other, "images").store is None
    assert "set tracking.directory" in caplog.text and not (tmp_path / "a%20b").exists()
