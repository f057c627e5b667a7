"""Several processes write to one store at once: nothing is lost, and nothing is there twice."""

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from src.config.sections import TrackingSettings
from src.tracking import open_tracker
from tests.conftest import free_port, mlflow_settings


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


@pytest.fixture
def postgresql():
    """The address of a database of a PostgreSQL server, and functions that stop and start it."""
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or (programs and programs[-1] / "initdb")
    if not found:
        pytest.skip("PostgreSQL is not installed")
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # never as root
    place, port = Path(tempfile.mkdtemp()), free_port()
    if as_user:
        shutil.chown(place, "postgres")

    def call(program: str, *words: str | Path) -> None:
        command = [*as_user, Path(found).resolve().with_name(program), *words]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60)

    data = ("-D", place / "data")
    call("initdb", *data, "-A", "trust", "-U", "postgres")
    options = ("-w", "-l", place / "log", "-o", f"-p {port} -k {place}")
    start = partial(call, "pg_ctl", *data, *options, "start")
    stop = partial(call, "pg_ctl", *data, "-m", "immediate", "stop")
    start()
    try:
        address = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        yield SimpleNamespace(address=address, start=start, stop=stop)
    finally:
        stop()
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
def test_eight_processes_share_a_database_of_postgresql(tmp_path, postgresql, at_once):
    settings = mlflow_settings(tmp_path / "mlruns", postgresql.address)
    written(settings, at_once, writers=8, jobs=10)


@pytest.mark.slow
def test_a_database_that_stops_costs_a_sentence_and_the_next_command_publishes_the_rest(
    postgresql, run_job, capsys, monkeypatch
):
    words = ["-m", "attack=fgsm,bim", "tracking=mlflow", "rerun=false"]
    words += [f"tracking.uri={postgresql.address}"]
    real, calls = mlflow.MlflowClient.log_batch, []

    def stopped_at_the_fifth_call(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 5:
            postgresql.stop()
        real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", stopped_at_the_fifth_call)
        assert run_job(*words, "hydra.sweep.dir=outputs/away") == 0
    printed = " ".join("".join(capsys.readouterr()).split())
    assert printed.count("cannot be used (") == 1 and "cannot be used (())" not in printed
    assert "Traceback" not in printed and "SQLAlchemy" not in printed
    postgresql.start()
    assert run_job(*words, "hydra.sweep.dir=outputs/back") == 0
    store = mlflow.MlflowClient(tracking_uri=postgresql.address)
    experiment = store.get_experiment_by_name("cifar10_mini-sweeps").experiment_id
    ends = Counter(run.info.status for run in store.search_runs([experiment]))
    assert ends == {"FINISHED": 3}  # two jobs, and the sweep that could be published
    pairs = store.search_runs([store.get_experiment_by_name("cifar10_mini").experiment_id])
    assert len({run.info.run_name for run in pairs}) == len(pairs) == 4
