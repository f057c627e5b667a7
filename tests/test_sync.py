"""Sweeps that a tracking store did not take are delivered from their folders, each once."""

import shutil
from pathlib import Path

import mlflow
import pytest


def tracked(workspace: Path) -> dict[str, list]:
    """Return the finished runs of the store by kind, and how many have another status."""
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    every = store.search_experiments()
    ids = [one.experiment_id for one in every if one.name.startswith("cifar10_mini")]
    found: dict[str, list] = {"job": [], "pair": [], "sweep": [], "unfinished": []}
    for run in store.search_runs(ids):
        finished = run.info.status == "FINISHED"
        found[run.data.tags["kind"] if finished else "unfinished"].append(run)
    return found


@pytest.mark.parametrize("at", [1, 4, 7])
def test_what_a_store_did_not_take_is_delivered_once(
    command_line, run_in, workspace, empty_store, monkeypatch, capsys, at
):
    shutil.copytree(empty_store, workspace / "mlruns")
    words = ["-m", "attack=fgsm,bim", "targets=[coarse,fine]", "tracking=mlflow"]
    real, calls = mlflow.MlflowClient.log_batch, []

    def gone_from_some_call_on(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) > at:
            raise OSError("connection reset")
        real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", gone_from_some_call_on)
        assert command_line(*words, "hydra.sweep.dir=outputs/away") == 0  # no job fails for it
    folder = f"{workspace}/mlruns"
    assert f"python -m src.sync --directory {folder} delivers them" in capsys.readouterr().out
    for damaged in (False, True):
        if damaged:
            (workspace / "outputs" / "a").mkdir()
            (workspace / "outputs" / "a" / "sweep.json").write_text("{")
        assert run_in(workspace, module="src.sync") == (2 if damaged else 0)
        found = tracked(workspace)
        pairs = sorted(run.info.run_name for run in found["pair"])
        targets = "coarse", "fine"
        assert pairs == [f"{name} coarse -> {one}" for name in ("bim", "fgsm") for one in targets]
        (sweep,) = found["sweep"]
        assert [run.data.tags["sweep"] for run in found["job"]] == [sweep.info.run_id] * 2
    assert "0 jobs delivered" in capsys.readouterr().out
    assert "fgsm on cifar10_mini" in sweep.data.tags["mlflow.note.content"]
    points = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").get_metric_history(
        sweep.info.run_id, "transfer_success/bim"
    )
    assert [point.step for point in points] == [8]  # once
    assert {run.info.status for run in found["unfinished"]} <= {"KILLED"}


def test_a_damaged_store_costs_tracking_and_no_table(
    command_line, run_in, workspace, empty_store, caplog, capsys
):
    shutil.copytree(empty_store, workspace / "mlruns")
    store = workspace / "mlruns" / "mlflow.db"
    whole = store.read_bytes()
    store.write_bytes(whole[: 5 * 4096])
    assert command_line("attack=fgsm", "tracking=mlflow", "hydra.run.dir=outputs/a") == 0
    assert f"{store} cannot be used" in caplog.text + "".join(capsys.readouterr())
    assert (workspace / "outputs" / "a" / "predictions.parquet").exists()
    assert run_in(workspace, module="src.sync") == 2
    assert store.read_bytes() == whole[: 5 * 4096]
    store.write_bytes(whole)
    assert run_in(workspace, module="src.sync") == 0
    assert len(tracked(workspace)["pair"]) == 2


def test_an_unfinished_sweep_is_delivered_as_one_unless_it_is_damaged(
    command_line, run_in, workspace, empty_store, capsys
):
    assert command_line("-m", "attack=fgsm,bim", "hydra.sweep.dir=outputs/a") == 0
    shutil.rmtree(workspace / "outputs" / "a" / "1-bim-coarse")
    shutil.copytree(empty_store, workspace / "mlruns")
    file = workspace / "outputs" / "a" / "0-fgsm-coarse" / "metrics.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b":", b";", 1))
    assert run_in(workspace, "outputs/a", module="src.sync") == 2
    assert "outputs/a/0-fgsm-coarse/metrics.json is damaged" in capsys.readouterr().err
    file.write_bytes(whole)
    assert run_in(workspace, "outputs/a", module="src.sync") == 0
    statuses = {run.data.tags["kind"]: run.info.status for run in tracked(workspace)["unfinished"]}
    assert statuses == {"sweep": "KILLED", "job": "FAILED"}  # the one of damaged metrics


def test_a_sweep_over_data_sets_is_delivered_once(
    command_line, run_in, workspace, empty_store, capsys
):
    shutil.copytree(empty_store, workspace / "mlruns")
    text = "defaults: [cifar10_mini, _self_]\nname: other\n"
    (workspace / "conf" / "dataset").mkdir(exist_ok=True)
    (workspace / "conf" / "dataset" / "other.yaml").write_text(text)
    words = ["dataset=cifar10_mini,other", "attack=fgsm", "tracking=mlflow"]
    assert command_line("-m", *words, "hydra.sweep.dir=outputs/a") == 0
    capsys.readouterr()
    assert run_in(workspace, "outputs/a", module="src.sync") == 0
    assert "0 jobs delivered" in capsys.readouterr().out


@pytest.mark.parametrize("attack", ["fgsm", "none"])
def test_an_untracked_sweep_is_delivered_on_request_alone(
    command_line, run_in, workspace, empty_store, attack
):
    source = [] if attack == "fgsm" else ["source=null"]
    assert command_line(f"attack={attack}", *source, "hydra.run.dir=outputs/here") == 0
    assert run_in(workspace, module="src.sync") == 0
    assert not (workspace / "mlruns").exists()
    shutil.copytree(empty_store, workspace / "mlruns")
    shutil.move(workspace / "outputs", workspace / "copied")
    for _ in range(2):
        assert run_in(workspace, "copied/here", module="src.sync") == 0
        counts = [len(runs) for runs in tracked(workspace).values()]
        assert counts == [1, 2 if attack == "fgsm" else 0, 1, 0]  # jobs, pairs, sweeps, unfinished
