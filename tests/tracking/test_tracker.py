"""What is logged, read back through MLflow's own client."""

import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import quote

import mlflow
import pandas as pd
import pytest
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

from src.config.settings import TrackingSettings
from src.experiment.metrics import pair_metrics
from src.tracking import Run, Tracker, download_sweep, open_tracker

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path, empty_store):
    shutil.copytree(empty_store, tmp_path / "mlruns")
    return TrackingSettings(name="mlflow", directory=str(tmp_path / "mlruns"))


@pytest.fixture
def store(settings):
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{settings.directory}/mlflow.db")


def status(store, run: str) -> str:
    return store.get_run(run).info.status


def test_a_job_ends_as_what_happened_to_it(settings, store):
    tracker = open_tracker(settings, "images")
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
    tracker.end_sweep(sweep, "FAILED")
    assert status(store, sweep) == "FAILED"


def test_whole_budgets_become_steps_and_fractions_do_not(settings, store):
    tracker = open_tracker(settings, "images")
    tracker.log_pair(
        Run("job", "sweep"),
        "fgsm a -> b",
        tags={"source": "a"},
        parameters={"steps": 10},
        curves={"robust_accuracy": [(0.0, 1.0), (0.25, 0.9), (8.0, 0.5)]},
        metrics={"reference_robust_accuracy": 0.5},
    )
    (run,) = store.search_runs([store.get_experiment_by_name("images").experiment_id])
    history = store.get_metric_history(run.info.run_id, "robust_accuracy")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (8, 0.5)]
    assert run.data.metrics["reference_robust_accuracy"] == 0.5
    assert run.data.params == {"steps": "10"} and run.info.status == "FINISHED"
    tags = run.data.tags
    assert (tags["kind"], tags["sweep"], tags["job"]) == ("pair", "sweep", "job")
    assert tags["source"] == "a"


def test_files_of_a_folder_are_stored(settings, store, tmp_path):
    tracker = open_tracker(settings, "images")
    folder = tmp_path / "job"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "a.csv").write_text("1")
    (folder / ".hydra" / "b.yaml").write_text("2")
    with tracker.job("job", None, {}) as run:
        tracker.log_files(run, folder)
    assert [file.path for file in store.list_artifacts(run.id)] == ["a.csv"]


def test_a_sweeps_files_can_be_fetched(settings, tmp_path):
    tracker = open_tracker(settings, "images")
    sweep = tracker.start_sweep("sweep", {})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text(name)
        with tracker.job(name, sweep, {}) as run:
            tracker.log_files(run, tmp_path / name)
    assert download_sweep(settings, sweep, tmp_path / "back")
    found = {path.parent.name: path.read_text() for path in tmp_path.glob("back/*/a.csv")}
    assert found == {"0-one": "one", "1-two": "two"}
    assert not download_sweep(settings, "another", tmp_path / "none")


def test_a_training_whose_run_is_gone_gets_a_new_one(settings, store, tmp_path):
    tracker = open_tracker(settings, "images")
    first = tracker.training_logger("train", {}, {}, tmp_path)
    assert tracker.training_logger("train", {}, {}, tmp_path).version == first.version
    (tmp_path / "mlflow_run_id").write_text("0123456789abcdef0123456789abcdef")
    second = tracker.training_logger("train", {}, {}, tmp_path)
    assert second.version != first.version
    assert store.get_run(second.version).data.tags["kind"] == "training"


def test_a_tracker_can_be_sent_to_a_launchers_worker(settings, store):
    sent = pickle.loads(pickle.dumps(open_tracker(settings, "images")))
    with sent.job("job", None, {}) as run:
        pass
    assert store.get_run(run.id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")]
)
def test_a_training_ends_as_what_stopped_it(settings, store, tmp_path, error, status):
    run = open_tracker(settings, "images").training_logger("train", {}, {}, tmp_path)

    class Stopped(BoringModel):
        def training_step(self, batch, batch_idx):
            raise error

    trainer = pl.Trainer(max_epochs=1, logger=run, enable_checkpointing=False)
    with pytest.raises((SystemExit, ValueError)):
        trainer.fit(Stopped())
    assert store.get_run(run.version).info.status == status


@pytest.mark.parametrize("uri", ["postgresql://me:secret@host/db", "http://me:secret@host"])
def test_links_hide_a_password(uri, monkeypatch):
    client = Mock(**{"experiment.return_value": "1"})
    monkeypatch.setattr("src.tracking.mlflow_tracker.open_client", lambda *args: (client, uri))
    links = open_tracker(TrackingSettings(name="mlflow", uri=uri), "images").links("abc", ["bim"])
    assert "secret" not in str(links)
    server = "http://host" if uri.startswith("http") else "http://127.0.0.1:5000"
    assert links["bim curves"].startswith(f"{server}/#/experiments/1/")
    assert ("serve" in links) == uri.startswith("postgresql")


def test_links_lead_to_the_pairs_of_each_attack_and_to_the_report(settings):
    tracker = open_tracker(settings, "images")
    sweep = tracker.start_sweep("sweep", {})
    links = tracker.links(sweep, ["fgsm", "bim"], "report.html")
    assert "sqlite:///" in links["serve"]
    wanted = quote(f"tags.sweep = '{sweep}' and tags.attack = 'bim'")
    assert f"compareRunsMode=CHART&searchFilter={wanted}" in links["bim curves"]
    assert all("?workflowType=machine_learning" in links[it] for it in links if it != "serve")
    assert f"/runs/{sweep}/artifacts/report.html?" in links["artifacts"]


CREATE = """
from src.tracking.mlflow_store import open_client
client, _ = open_client(None, "mlruns")
print(client.experiment("images-sweeps", None))
"""


def test_sweeps_and_the_ui_can_create_a_store_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    commands = [["-m", "src.tracking", "--help"], ["-c", CREATE], ["-c", CREATE]]
    running = [
        subprocess.Popen([sys.executable, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for words in commands
    ]
    served, *experiments = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert "mlflow ui" in served and experiments[0] == experiments[1]
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    names = [experiment.name for experiment in store.search_experiments()]
    assert sorted(names) == ["Default", "images-sweeps"]


def test_a_store_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    for changes, named in (
        ({"uri": "nonsense://x"}, r"tracking.uri: the MLflow store nonsense://x"),
        ({"directory": str(tmp_path / "file" / "mlruns")}, r"file/mlruns/mlflow.db .*irectory"),
    ):
        with pytest.raises(ValueError, match=named):
            open_tracker(TrackingSettings(name="mlflow", **changes), "images")


@pytest.mark.parametrize("experiments", ["known", "new"])
def test_a_store_that_cannot_be_written_is_refused_in_a_sentence(settings, capfd, experiments):
    open_tracker(settings, "known").start_sweep("sweep", {})
    file = f"sqlite:///file:{settings.directory}/mlflow.db?mode=ro&uri=true"
    with pytest.raises(ValueError, match="attempt to write a readonly database") as caught:
        open_tracker(settings.model_copy(update={"uri": file}), experiments).start_sweep(
            "sweep", {}
        )
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("accepting", [True, False])
def test_a_server_that_does_not_answer_is_refused_within_seconds(settings, accepting):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if accepting:
            server.listen()
        uri = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ValueError, match="timed out" if accepting else "refused") as caught:
            open_tracker(settings.model_copy(update={"uri": uri}), "images")
    assert time.monotonic() - started < 10
    assert "secret" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_store_that_goes_away_is_named_once_and_costs_no_job(settings, monkeypatch, caplog):
    tracker = open_tracker(settings, "images")
    sweep = tracker.start_sweep("sweep", {})
    tried = []

    def gone(*arguments, **keywords):
        tried.append(arguments)
        raise OSError("connection reset")

    for name in ("create_run", "log_batch", "set_tag", "set_terminated", "log_artifact"):
        monkeypatch.setattr(mlflow.MlflowClient, name, gone)
    for name in ("one", "two"):
        with tracker.job(name, sweep, {}) as run:
            tracker.log_metrics(run, {"n": 1})
            tracker.log_pair(run, "a", tags={}, parameters={}, curves={}, metrics={"n": 1})
    tracker.end_sweep(sweep, "FINISHED", note="matrix")
    assert tracker.links(sweep, ["fgsm"]) == {}  # none to nothing
    assert len(tried) == 1 and len(caplog.records) == 1
    assert "connection reset" in caplog.text


def test_no_tracking_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = open_tracker(TrackingSettings(name="none"), "images")
    assert type(tracker) is Tracker
    assert tracker.start_sweep("sweep", {}) is None
    with tracker.job("job", None, {}) as run:
        tracker.log_metrics(run, {"n": 1})
    assert not list(tmp_path.iterdir())


def test_pair_metrics_are_the_curves_and_their_values_with_intervals():
    rows = pd.DataFrame({"eps_255": [0.0, 8.0], "confidence": [0.9, 0.6]})
    rows["true_confidence"] = [0.9, float("nan")]
    for name, values in {"robust_accuracy": [1.0, 0.5], "success_rate": [0.0, 0.5]}.items():
        rows[name], rows[f"{name}_low"], rows[f"{name}_high"] = values, 0.0, [1.0, 0.9]
    curves, metrics = pair_metrics(rows, 8.0)
    assert curves["robust_accuracy"] == [(0.0, 1.0), (8.0, 0.5)]
    assert curves["true_confidence"] == [(0.0, 0.9)]  # what is not a number is left out
    assert len(curves) == 4
    rates = {"reference_robust_accuracy": 0.5, "reference_success_rate": 0.5}
    ends = {f"{name}_{end}": value for name in rates for end, value in (("low", 0), ("high", 0.9))}
    assert metrics == {**rates, **ends, "reference_confidence": 0.6}
