"""Logged runs, read back through MLflow's own client."""

import json
import re
import shutil
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import requests
from pytorch_lightning.demos.boring_classes import BoringModel

from src.artifacts.jobs import JobInMemory
from src.artifacts.sweep_state import lock_of_sweep
from src.config.sections import TrackingSettings
from src.report.results import results_of
from src.run.track import pair_points, sweep_points
from src.tracking import Run, mlflow_store, open_tracker
from src.tracking.mlflow_store import MlflowStore
from src.utils.files import held
from tests.conftest import REPOSITORY, mlflow_settings
from tests.records import make_record

TRACKING = REPOSITORY / "docs" / "tracking.md"


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


def status(store, run: str) -> str:
    return store.get_run(run).info.status


def test_a_job_ends_as_what_happened_to_it(tracker, store):
    sweep = tracker.start_sweep("sweep", {"jobs": 3})
    with tracker.job("good", sweep, {}) as good:
        assert status(store, good.id) == "RUNNING"
    with pytest.raises(ValueError), tracker.job("bad", sweep, {}) as bad:
        raise ValueError("no such luck")
    with pytest.raises(KeyboardInterrupt), tracker.job("cut", sweep, {}) as cut:
        raise KeyboardInterrupt
    assert [status(store, run.id) for run in (good, bad, cut)] == ["FINISHED", "FAILED", "KILLED"]
    assert store.get_run(bad.id).data.tags["error"] == "ValueError: no such luck"
    assert store.get_run(good.id).data.tags["mlflow.parentRunId"] == sweep
    points = [("n", 1, step) for step in range(1200)]  # MLflow takes 1,000 in a request
    tracker.end_sweep(sweep, "FAILED", [], "", points)
    assert status(store, sweep) == "FAILED"
    assert len(store.get_metric_history(sweep, "n")) == 1200


def test_the_runs_of_a_dead_command_are_ended_and_those_of_others_stay_open(
    tracker, store, tmp_path
):
    sweeps, jobs = {}, ExitStack()
    for name in ("dead", "alive", "elsewhere"):
        if name != "elsewhere":
            (tmp_path / name).mkdir()
        sweeps[name] = tracker.start_sweep(name, {}, tmp_path / name)
    runs = {name: tracker.job(name, sweep, {}) for name, sweep in sweeps.items()}
    with jobs, held(lock_of_sweep(tmp_path / "alive")):
        opened = {name: jobs.enter_context(run).id for name, run in runs.items()}
        train = {
            name: jobs.enter_context(tracker.training_logger("train", {"sweep": sweep}, {})).version
            for name, sweep in sweeps.items()
        }
        ended = tracker.start_sweep("ended", {}, tmp_path / "dead")
        tracker.end_sweep(ended, "FINISHED", [], "", [])
        tracker.end_dead()
        for name, sweep in sweeps.items():
            state = "KILLED" if name == "dead" else "RUNNING"
            assert status(store, sweep) == status(store, opened[name]) == state
            assert status(store, train[name]) == state
        assert status(store, ended) == "FINISHED"


def test_runs_have_their_source_and_tags_and_experiments_a_name_and_a_description(settings, store):
    named = {"experiment": "attackers", "tags": {"paper": "A"}}
    tracker = open_tracker(changed(settings, **named), "images")
    run = store.get_run(tracker.start_sweep("sweep", {}))
    own = {"mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"}
    assert own <= run.data.tags.keys() and run.data.tags["paper"] == "A"
    experiment = store.get_experiment(run.info.experiment_id)
    assert experiment.name == "attackers-sweeps" and experiment.tags["mlflow.note.content"]
    tags = {"data_digest": "digest", "data_images": "60", "data_classes": "3", "data_path": "/a"}
    with tracker.training_logger("train", tags, {}) as logger:
        (data,) = store.get_run(logger.version).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("images", "digest")
    assert data.tags[0].value == "training"
    assert json.loads(data.dataset.profile) == {"images": 60, "classes": 3}
    assert mlflow.data.get_source(data).to_dict() == {"uri": "/a"}


def test_system_metrics_are_logged_during_jobs_and_need_psutil(settings, store, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    measured = changed(
        settings, system_metrics=True, uri=f"sqlite:///{settings.directory}/mlflow.db"
    )
    tracker = open_tracker(measured, "images")
    with tracker.job("job", None, {}) as run:
        tracker.log_pair(run, "a -> b", {}, {}, [("n", 1, 0)])
        end = time.monotonic() + 20
        while not store.get_run(run.id).data.metrics and time.monotonic() < end:
            time.sleep(0.1)
    assert "system/cpu_utilization_percentage" in store.get_run(run.id).data.metrics
    (pair,) = store.search_runs([store.get_experiment_by_name("images").experiment_id])
    assert set(pair.data.metrics) == {"n"}
    monkeypatch.setattr(mlflow_store, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs psutil: pip install psutil"):
        MlflowStore("images", directory=settings.directory, system_metrics=True)


def test_a_note_on_a_pair_leads_to_the_report_of_its_sweep(tracker, store):
    sweep = tracker.start_sweep("sweep", {})
    tracker.log_pair(Run("job", sweep), "a -> b", {"note": "At `file:///r.html#a=b`."}, {}, [])
    (pair,) = store.search_runs([store.get_experiment_by_name("images").experiment_id])
    note, experiment = (
        pair.data.tags["mlflow.note.content"],
        store.get_run(sweep).info.experiment_id,
    )
    assert note.startswith("At `file:///r.html#a=b`. [")
    assert f"(#/experiments/{experiment}/runs/{sweep}/artifacts/report.html" in note


def test_a_pair_is_a_run_with_all_that_is_known_of_it(tracker, store):
    curve = [("robust_accuracy/curve", 1.0, 0), ("robust_accuracy/curve", 0.5, 8)]
    tracker.log_pair(
        Run("job", "sweep"),
        "fgsm a -> b",
        tags={"source": "a", "target": "b", "data_digest": "d"},
        parameters={"steps": 10, "long": "x" * 7000},
        points=[*curve, ("robust_accuracy/reference", 0.5, 0)],
    )
    (run,) = store.search_runs([store.get_experiment_by_name("images").experiment_id])
    history = store.get_metric_history(run.info.run_id, "robust_accuracy/curve")
    assert [(point.key, point.value, point.step) for point in history] == curve
    assert run.data.metrics["robust_accuracy/reference"] == 0.5
    assert run.data.params["steps"] == "10" and run.info.status == "FINISHED"
    assert len(run.data.params["long"]) == 6000 and run.data.params["long"].endswith("x...")
    own = {"kind": "pair", "sweep": "sweep", "job": "job", "source": "a"}
    assert own.items() <= run.data.tags.items()


def test_tables_are_artifacts_where_that_is_asked_for(settings, store, tmp_path):
    files = [tmp_path / name for name in ("rates.csv", "predictions.parquet")]
    for file in files:
        file.touch()
    for tables, kept in ((None, 1), (False, 1), (True, 2)):
        tracker = open_tracker(changed(settings, tables=tables), "images")
        with tracker.job("job", None, {}) as run:
            tracker.log_job(run, {}, {}, files)
        assert len(store.list_artifacts(run.id)) == kept


def test_a_training_that_fails_ends_so(tracker, store):
    class Failing(BoringModel):
        def training_step(self, batch, batch_idx):
            raise ValueError

    with pytest.raises(ValueError), tracker.training_logger("train", {}, {}) as run:
        trainer = pl.Trainer(max_epochs=1, logger=run, enable_checkpointing=False)
        trainer.fit(Failing())
    assert status(store, run.version) == "FAILED"


def test_a_link_leads_to_the_sweep_and_hides_passwords(tracker, monkeypatch):
    sweep = tracker.start_sweep("sweep", {})
    words = f"MLflow, sweep {sweep}: mlflow ui --backend-store-uri sqlite:///"
    assert tracker.link(sweep).startswith(words)
    monkeypatch.setattr(MlflowStore, "address", f"sqlite:///{REPOSITORY}/mlruns/mlflow.db")
    monkeypatch.chdir(REPOSITORY)
    assert tracker.link(sweep) == f"MLflow, sweep {sweep}: make ui"
    monkeypatch.setattr(MlflowStore, "address", "http://me:secret@host")
    link = tracker.link(sweep)
    assert link.startswith("MLflow: http://host/#/experiments/") and sweep in link


def test_a_named_store_that_cannot_be_opened_or_written_is_refused(
    settings, tracker, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder of the name `file:`
    tracker.start_sweep("sweep", {})
    read_only = f"sqlite:///file:{settings.directory}/mlflow.db?mode=ro&uri=true"
    for changes, dataset, named in (
        ({"uri": "nonsense://x"}, "images", "nonsense://x"),
        ({"uri": "mysql://me:sec/ret@host/db"}, "images", "mysql://host/db"),
        ({"uri": read_only}, "new", "attempt to write a readonly database"),
    ):
        with pytest.raises(ValueError, match=f"tracking: .*{named}") as caught:
            open_tracker(changed(settings, **changes), dataset).start_sweep("sweep", {})
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert capfd.readouterr().err == ""


def track(directory, file) -> tuple[str, str]:
    """Track a sweep with a file in a folder's store; return its run and its experiment's name."""
    open_tracker.cache_clear()  # as another command
    tracker = open_tracker(mlflow_settings(directory), "images")
    sweep = tracker.start_sweep("sweep", {})
    tracker.end_sweep(sweep, "FINISHED", [file], "", [])
    client = tracker.store
    return sweep, client.get_experiment(client.get_run(sweep).info.experiment_id).name


def artifacts_of(directory, run: str) -> list[str]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{directory}/mlflow.db")
    return [its.path for its in client.list_artifacts(run)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "attacks.csv"
    path.write_text("mi\n")
    return path


@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_store_is_told_once_and_its_old_place_gets_no_file(
    settings, tmp_path, file, caplog, copied
):
    old, new = tmp_path / "mlruns", tmp_path / "new" / "ml runs"
    first, name = track(old, file)
    assert name == "images-sweeps" and not caplog.records
    (shutil.copytree if copied else shutil.move)(old, new)
    before = {path for path in old.rglob("*") if path.is_file()}
    for _ in range(2):
        run, name = track(new, file)
        assert name == "images-moved-sweeps" and artifacts_of(new, run) == [file.name]
    assert {path for path in old.rglob("*") if path.is_file()} == before
    assert len(caplog.records) == 1 and f"{old}/" in caplog.text and str(new) in caplog.text
    shutil.move(new, again := tmp_path / "again")
    assert track(again, file)[1] == "images-moved-moved-sweeps"
    snippet = re.search(r"```python\n(import sqlite3.*?)```", TRACKING.read_text(), re.S)[1]
    code = snippet.replace("mlruns/mlflow.db", f"{again}/mlflow.db")
    exec(code.replace("/home/me/old/mlruns", str(old)).replace("/home/me/new/mlruns", str(again)))
    assert artifacts_of(again, first) == [file.name]
    assert track(again, file)[1] == "images-sweeps"


def test_another_path_to_a_store_is_no_move(settings, tmp_path, file, caplog):
    track(tmp_path / "mlruns", file)
    (tmp_path / "link").symlink_to(tmp_path)
    run, name = track(tmp_path / "link" / "mlruns", file)
    assert name == "images-sweeps" and not caplog.records
    assert artifacts_of(tmp_path / "mlruns", run) == [file.name]


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_refused_within_seconds(settings, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # instead of its 5
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        uri = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ValueError, match="timed out") as caught:
            open_tracker(changed(settings, uri=uri), "images")
    assert time.monotonic() - started < 10 and "secret" not in str(caught.value)


def test_a_store_that_goes_away_is_named_once_and_costs_no_job(tracker, monkeypatch, caplog):
    sweep = tracker.start_sweep("sweep", {})
    tried = []

    def gone(*arguments, **keywords):
        tried.append(arguments)
        try:
            raise RuntimeError  # which says nothing, as SQLAlchemy's pool does
        except RuntimeError:
            raise OSError("connection reset")  # noqa: B904

    for name in ("create_run", "log_batch", "set_tag", "set_terminated", "log_artifact"):
        monkeypatch.setattr(mlflow.MlflowClient, name, gone)
    for name in ("one", "two"):
        with tracker.job(name, sweep, {}) as run:
            tracker.log_job(run, {"n": 1}, {}, [])
            tracker.log_pair(
                run, "a", tags={"data_digest": "d"}, parameters={}, points=[("n", 1, 0)]
            )
    tracker.end_sweep(sweep, "FINISHED", [], "matrix", [])
    assert tracker.link(sweep) == ""  # none to nothing
    assert len(tried) == 1 and len(caplog.records) == 1
    assert "connection reset" in caplog.text


def test_what_a_store_refuses_costs_nothing_else(tracker, store, tmp_path, monkeypatch, caplog):
    def upload(client, run, path, real=mlflow.MlflowClient.log_artifact):
        if path.endswith("large.csv"):
            raise requests.HTTPError("413", response=SimpleNamespace(status_code=413))
        real(client, run, path)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", upload)
    files = [tmp_path / name for name in ("large.csv", "small.csv")]
    for file in files:
        file.touch()
    with tracker.job("job", None, {}) as run:
        tracker.log_job(run, {}, {}, files)
        for name in ("a?", "a"):
            tracker.log_pair(run, name, {"data_digest": "d"}, {name: 1}, [("n", 1, 0)])
    assert status(store, run.id) == "FINISHED"
    assert [file.path for file in store.list_artifacts(run.id)] == ["small.csv"]
    pairs = store.search_runs([store.get_experiment_by_name("images").experiment_id])
    assert [pair.data.params for pair in pairs] == [{"a": "1"}, {}]
    assert len(caplog.records) == 2 and "413" in caplog.text and "a?" in caplog.text


@pytest.mark.parametrize("name", ["a%20b", "a?b"])
def test_a_folder_that_no_address_names_is_said_at_once(settings, tmp_path, name, caplog):
    other = changed(settings, directory=str(tmp_path / name))
    assert open_tracker(other, "images").store is None
    assert "set tracking.directory" in caplog.text and not (tmp_path / name).exists()


def test_the_points_of_a_pair_are_its_curves_at_whole_budgets_and_the_values_at_one():
    both = {"robust_accuracy": [1.0, 0.9, 0.5], "robust_accuracy_low": [1.0, 0.8, 0.1234]}
    rows = pd.DataFrame({"eps_255": [0.0, 0.25, 8.0], **both, "robust_accuracy_high": 0.95})
    unknown = float("nan")
    rows = rows.assign(success_rate=unknown, clean_accuracy=unknown, confidence=[0.9, 0.8, 0.6])
    rows = rows.assign(conditional=unknown)
    points, intervals = pair_points(rows.assign(true_confidence=[0.9, 0.7, unknown]), 8.0)
    assert points == [
        *[("robust_accuracy/curve", 1.0, 0), ("robust_accuracy/curve", 0.5, 8)],
        ("robust_accuracy/reference", 0.5, 0),
        *[("confidence/curve", 0.9, 0), ("confidence/curve", 0.6, 8)],
        ("confidence/reference", 0.6, 0),
        *[("eps_255", 0, 0), ("eps_255", 8, 8)],
    ]  # clean images alone, as of true_confidence, would stand for an attack
    assert intervals == {"robust_accuracy_interval": "[0.123, 0.950]"}


def test_a_sweep_has_the_success_of_the_ranking_under_names_that_mlflow_allows(tracker, store):
    # Of two images, `c` counts the first alone: the targets' mean is 3/4, that over images 1/2.
    predicted = {"a": [0, 0, 1, 0], "b": [0, 0, 1, 0], "c": [0, 1, 1, 0]}
    rows = pd.DataFrame(predicted).melt(var_name="target", value_name="predicted")
    rows = rows.assign(label=0, index=[0, 1] * 6)
    rows = rows.assign(eps_255=[0.0, 0.0, 8.0, 8.0] * 3, confidence=1, true_confidence=1)
    rows = rows.assign(defence="none", gradients=None, forwards=None)
    weights = dict.fromkeys("abc", "weights")
    facts = {"key": "k", "images": 2, "class_names": ("cat", "dog"), "budgets": (0.0, 8.0)}
    facts |= {"source": "a", "attack": "bim (x=1/2)", "weights": weights, "reference": 8.0}
    record = make_record(**facts)
    tables = {"predictions": pa.Table.from_pandas(rows, preserve_index=False)}
    job = JobInMemory(record, Path(), {"predictions": Path()}, tables=tables)
    sweep = tracker.start_sweep("sweep", {})
    points = sweep_points(results_of([job]))
    tracker.end_sweep(sweep, "FINISHED", [], "", points)
    success = {"transfer_success": 0.75, "difference_from_first": 0, "white_box_success": 0.5}
    places = ("curve", "reference")
    expected = {f"{k}/bim x 1 2/{place}": v for k, v in success.items() for place in places}
    assert store.get_run(sweep).data.metrics == expected
