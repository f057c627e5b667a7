"""Whole runs through the real command line, with two tiny models."""

import importlib
import json
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from src.experiment.provenance import read_record

COLUMNS = [
    "index",
    "label",
    "target_label",
    "target",
    "eps_255",
    "predicted",
    "confidence",
    "true_confidence",
    "top5_classes",
    "top5_confidences",
]


def client(workspace: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")


def runs(store: mlflow.MlflowClient, experiment: str) -> list:
    found = store.get_experiment_by_name(experiment)
    return [] if found is None else list(store.search_runs([found.experiment_id]))


def outputs(workspace: Path) -> Path:
    (folder,) = (workspace / "outputs").iterdir()
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pq.read_table(folder / "predictions.parquet").to_pandas()


def test_a_sweep_leaves_files_runs_and_a_matrix(command_line, workspace, capsys):
    assert command_line("-m", "attack=fgsm,bim", "source=coarse,fine") == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("job ")] == [
        f"job {number} of 4" for number in (1, 2, 3, 4)
    ]
    folder = outputs(workspace)
    jobs = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert jobs == ["0-fgsm-coarse", "1-bim-coarse", "2-fgsm-fine", "3-bim-fine"]
    for job in jobs:
        frame = table(folder / job)
        assert list(frame.columns) == COLUMNS
        assert len(frame) == 23 * 2 * 4
        names = {path.name for path in (folder / job).iterdir()}
        assert {"config.yaml", "rates.csv", "first-flips.csv", "alarms.json"} <= names

    store = client(workspace)
    pairs = runs(store, "photos")
    assert {pair.info.run_name for pair in pairs} == {
        f"{attack} {source} -> {target}"
        for attack in ("fgsm", "bim")
        for source in ("coarse", "fine")
        for target in ("coarse", "fine")
    }
    (whole,) = [run for run in runs(store, "photos-sweeps") if run.data.tags["kind"] == "sweep"]
    inner = [run for run in runs(store, "photos-sweeps") if run.data.tags["kind"] == "job"]
    assert {run.data.tags["mlflow.parentRunId"] for run in inner} == {whole.info.run_id}
    assert len(inner) == 4 and all(run.info.status == "FINISHED" for run in [whole, *inner])
    assert {pair.data.tags["sweep"] for pair in pairs} == {whole.info.run_id}
    assert {pair.data.tags["job"] for pair in pairs} == {run.info.run_id for run in inner}
    assert all("mlflow.parentRunId" not in pair.data.tags for pair in pairs)
    stored = {file.path for file in store.list_artifacts(inner[0].info.run_id)}
    assert {"config.yaml", "predictions.parquet", "rates.csv"} <= stored
    stored = {file.path for file in store.list_artifacts(whole.info.run_id)}
    assert {"matrix-fgsm.csv", "matrix-bim.csv"} <= stored

    csv = pd.read_csv(folder / "matrix-bim.csv")
    assert csv["source"].tolist() == ["clean", "coarse", "fine"]
    cell = csv.set_index("source").loc["coarse", "fine"]
    assert cell in printed
    assert printed.count("compareRunsMode=CHART&searchFilter=tags.sweep") == 2  # one an attack
    assert f"{whole.info.run_id}/artifacts/matrix-bim.csv" in printed
    described = whole.data.tags["mlflow.note.content"]
    assert cell in described and described.index(cell) < described.index("ALARM")


def test_a_pair_run_says_what_the_table_says(command_line, workspace):
    assert command_line("attack=bim", "source=fine", "targets=[coarse]") == 0
    frame = table(outputs(workspace))
    clean = frame[frame["eps_255"] == 0].pivot(index="index", columns="target", values="predicted")
    label = frame.groupby("index")["label"].first()
    joint = (clean["coarse"] == label) & (clean["fine"] == label)
    at = frame[(frame["target"] == "coarse") & (frame["eps_255"] == 8)].set_index("index")
    still = int((at["predicted"] == at["label"])[joint].sum())

    (pair,) = runs(client(workspace), "photos")
    metrics, params = pair.data.metrics, pair.data.params
    assert pair.info.run_name == "bim fine -> coarse"
    assert (params["n_images"], params["denominator"]) == ("23", str(joint.sum()))
    assert len(metrics) == 12
    assert metrics["reference_robust_accuracy"] == pytest.approx(still / joint.sum())
    assert metrics["reference_success_rate"] == pytest.approx(1 - still / joint.sum())
    assert metrics["reference_confidence"] == pytest.approx(at["confidence"][joint].mean())
    assert metrics["reference_true_confidence"] == pytest.approx(
        at["true_confidence"][joint].mean()
    )
    history = client(workspace).get_metric_history(pair.info.run_id, "robust_accuracy")
    assert [point.step for point in history] == [0, 4, 8]  # MLflow's steps hold no 0.5
    assert history[0].value == 1 and history[-1].value == pytest.approx(still / joint.sum())
    tags = pair.data.tags
    assert (tags["source"], tags["target"], tags["attack"]) == ("fine", "coarse", "bim")
    assert tags["kind"] == "pair" and tags["dataset"] == "photos" and tags["seed"] == "0"
    assert len(tags["source_weights"]) == 16 and tags["git_commit"]


def test_training_happens_once_and_is_tracked(command_line, workspace):
    assert command_line("-m", "attack=fgsm,bim") == 0
    trained = sorted((workspace / "cache" / "checkpoints").glob("*.safetensors"))
    assert [path.name.split("-")[0] for path in trained] == ["coarse", "fine"]
    stamps = [path.stat().st_mtime_ns for path in trained]
    assert not list((workspace / "cache" / "checkpoints").glob("*.training"))
    store = client(workspace)
    trainings = runs(store, "photos-training")
    assert sorted(run.data.tags["model"] for run in trainings) == ["coarse", "fine"]
    for run in trainings:
        assert run.info.status == "FINISHED" and run.data.tags["kind"] == "training"
        assert len(store.get_metric_history(run.info.run_id, "test_accuracy")) == 2
        assert store.get_metric_history(run.info.run_id, "train_loss")

    assert command_line("attack=fgsm", "seed=3") == 0  # other images, the same weights
    assert [path.stat().st_mtime_ns for path in trained] == stamps
    assert len(runs(store, "photos-training")) == 2
    assert len(list((workspace / "cache" / "clean").glob("*.parquet"))) == 4

    assert command_line("training.seed=1") == 0
    assert len(list((workspace / "cache" / "checkpoints").glob("*.safetensors"))) == 4


NETWORK = """
from torch import nn

def build():
    layers = [nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 20), nn.ACTIVATION(), nn.Linear(20, 10)]
    return nn.Sequential(*layers)
"""


def rewritten(module, text: str) -> None:
    """Write a module of the user's own, as if the next command were of another process."""
    module.write_text(text)
    sys.modules.pop(module.stem, None)
    importlib.invalidate_caches()


def test_a_changed_builder_is_trained_anew(command_line, workspace, monkeypatch):
    text = (workspace / "conf" / "model" / "coarse.yaml").read_text()
    network = "network: {_target_: handmade.build}\n"
    own = text[: text.index("network:")] + network + text[text.index("mean:") :]
    (workspace / "conf" / "model" / "coarse.yaml").write_text(own)
    monkeypatch.syspath_prepend(workspace)
    for count, activation in enumerate(["ReLU", "Tanh", "Tanh"]):
        rewritten(workspace / "handmade.py", NETWORK.replace("ACTIVATION", activation))
        assert command_line("targets=[coarse]", "tracking=none") == 0
        trained = list((workspace / "cache" / "checkpoints").glob("coarse-*.safetensors"))
        assert len(trained) == min(count + 1, 2)


def test_a_changed_transform_makes_another_job(command_line, workspace, monkeypatch):
    (workspace / "conf" / "attack").mkdir()
    (workspace / "conf" / "attack" / "mirror.yaml").write_text(
        "defaults: [mi, _self_]\nname: mirror\ntransforms: [{_target_: mirrored.Mirror}]\n"
    )
    monkeypatch.syspath_prepend(workspace)
    keys = []
    for folder, text in (("a", MIRROR), ("b", MIRROR), ("c", MIRROR.replace("-1", "-2"))):
        rewritten(workspace / "mirrored.py", text)
        assert command_line("attack=mirror", "tracking=none", f"hydra.run.dir={folder}") == 0
        _, record = read_record(workspace / folder / "predictions.parquet")
        keys.append(record.key)
    assert keys[0] == keys[1] != keys[2]


def test_the_same_command_gives_the_same_table(command_line, workspace):
    assert command_line("attack=bim", "cache_dir=one", "tracking=none", "report=none") == 0
    assert command_line("attack=bim", "cache_dir=two", "tracking=none", "report=none") == 0
    first, second = (
        pq.read_table(path / "predictions.parquet") for path in (workspace / "outputs").iterdir()
    )
    assert first.equals(second)


def test_settings_unlike_the_files_stand_in_every_name(command_line, workspace, capsys):
    words = ["attack.norm=l2", "attack.steps=2,10", "targets=[fine]", "report=none"]
    assert command_line("-m", "attack=bim,mi", *words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    folder = outputs(workspace)
    labels = [f"{name} ({own}norm=l2)" for name in ("bim", "mi") for own in ("steps=2, ", "")]
    names = {path.name for path in folder.glob("matrix*")}
    assert {"matrix-bim-steps=2-norm=l2.csv", "matrix-mi-norm=l2.csv"} < names and len(names) == 4
    assert {pair.info.run_name for pair in runs(client(workspace), "photos")} == {
        f"{label} coarse -> fine" for label in labels
    }
    files = sorted(folder.glob("*/rates.csv"))
    together = pd.concat([pd.read_csv(file) for file in files])
    own = ["attack", "source", "norm", "protocol", "target", "eps_255"]
    assert list(together.columns[:6]) == own and not together.duplicated(own).any()
    assert list(together["attack"].unique()) == labels and set(together["norm"]) == {"l2"}
    assert set(together["protocol"]) == {"all", "source_correct", "target_correct", "joint"}
    for label in labels:
        assert f"{label} on photos, eps = 8/255" in printed


NOISE = """
import torch

def noise(model, images, labels, eps, *, scale):
    step = scale * eps.reshape(-1, 1, 1, 1, 1)
    return images + step * torch.randn_like(images).sign()
"""


MIRROR = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Mirror:
    copies: int = 2

    def __call__(self, images, draws, copy):
        return images.flip(-1) if copy else images
"""


def test_the_readmes_attack_of_ones_own(command_line, workspace, monkeypatch):
    (workspace / "conf" / "attack").mkdir()
    (workspace / "conf" / "attack" / "mirror.yaml").write_text(
        "defaults: [mi, _self_]\nname: mirror\ntransforms: [{_target_: mirrored.Mirror}]\n"
    )
    (workspace / "mirrored.py").write_text(MIRROR)
    monkeypatch.syspath_prepend(workspace)
    assert command_line("attack=mirror", "report=none") == 0
    jobs = [run for run in runs(client(workspace), "photos-sweeps") if "attack" in run.data.params]
    (gradients,) = {run.data.metrics["gradients_per_image"] for run in jobs}
    assert gradients == 2 * (1 + 3 * 9)


def test_an_attack_of_ones_own_has_the_settings_of_its_file(command_line, workspace, capfd):
    (workspace / "conf" / "attack").mkdir()
    text = "defaults: [mi, _self_]\nname: mine\nkernel_size: 3\n"
    (workspace / "conf" / "attack" / "mine.yaml").write_text(text)
    assert command_line("attack=mine", "++attack.lookahead=momentum", "tracking=none") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("attack=mine has no setting lookahead; its settings are steps,")
    assert "kernel_size" in line and "(conf/attack/mine.yaml)" in line


def test_a_random_attack_depends_on_the_seed_alone(command_line, workspace, monkeypatch):
    (workspace / "conf" / "attack").mkdir()
    (workspace / "conf" / "attack" / "noise.yaml").write_text(
        "name: noise\n_target_: noisy.noise\nscale: 1.0\n"
    )
    (workspace / "noisy.py").write_text(NOISE)
    monkeypatch.syspath_prepend(workspace)
    quiet = ["attack=noise", "tracking=none", "report=none"]
    for folder, words in (("cold", []), ("warm", []), ("other", ["attack.scale=0.5"])):
        assert command_line(*quiet, f"hydra.run.dir={folder}", *words) == 0
    cold, warm, other = (
        pq.read_table(workspace / folder / "predictions.parquet")
        for folder in ("cold", "warm", "other")
    )
    assert warm.equals(cold) and not other.equals(cold)


def test_images_to_mix_in_do_not_depend_on_the_subset(command_line, workspace):
    quiet = ["attack=admix", "attack.scales=1", "epsilon.grid=[8]", "tracking=none"]
    tables = []
    for count in (20, 40):
        assert command_line(*quiet, f"n_images={count}", f"hydra.run.dir={count}") == 0
        table = pd.read_parquet(workspace / str(count) / "predictions.parquet")
        tables.append(table.set_index(["index", "target", "eps_255"])["true_confidence"])
    both = pd.concat(tables, axis=1, join="inner")
    assert len(both) == 20 * 2 * 2  # of clean and attacked images, by two targets
    np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-5)


def test_a_file_that_is_no_image_is_named_before_training(command_line, workspace, capfd):
    for split in ("train", "test"):
        for name in "ab":
            folder = workspace / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = np.full((32, 32, 3), 40 * number, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    bad = workspace / "pictures" / "test" / "b" / "2.png"
    bad.write_text("no image")
    words = ["dataset=image_folder", "dataset.root=pictures", "n_images=null", "tracking=none"]
    assert command_line(*words) == 1
    out, err = capfd.readouterr()
    assert "2.png cannot be read as an image" in out and "Training" not in out
    assert "Traceback" not in out + err


def test_a_used_folder_does_not_mix_old_jobs_in(command_line, workspace):
    quiet = ["tracking=none", "report=none", "hydra.sweep.dir=here"]
    assert command_line("-m", "attack=fgsm,bim", *quiet) == 0
    time.sleep(1.5)  # the clocks of files are coarse
    assert command_line("-m", "attack=bim", "epsilon.grid=[2]", *quiet) == 0
    matrix = pd.read_csv(workspace / "here" / "matrix-bim.csv")
    assert matrix["source"].tolist() == ["clean", "coarse"]


def test_parts_can_be_switched_off(command_line, workspace):
    assert command_line("tracking=none", "report=none") == 0
    assert not (workspace / "mlruns").exists()
    names = {path.name for path in outputs(workspace).iterdir()}
    assert "predictions.parquet" in names and "matrix-fgsm.csv" in names
    assert not {name for name in names if name.endswith(".png")}


def test_a_failed_job_leaves_the_others_alone(command_line, workspace, capsys):
    gone = "model.fine.expected_accuracy=0.999,null"
    assert command_line("-m", "clean_accuracy_check.tolerance=0.0001", gone) == 1
    printed = capsys.readouterr().out
    assert "FAILED 0-fgsm-coarse: model fine: clean accuracy is" in printed
    folder = outputs(workspace)
    assert (folder / "1-fgsm-coarse" / "predictions.parquet").exists()
    store = client(workspace)
    by_kind = {"job": [], "sweep": []}
    for run in runs(store, "photos-sweeps"):
        by_kind[run.data.tags["kind"]].append(run)
    assert sorted(run.info.status for run in by_kind["job"]) == ["FAILED", "FINISHED"]
    assert [run.info.status for run in by_kind["sweep"]] == ["FAILED"]
    (failed,) = [run for run in by_kind["job"] if run.info.status == "FAILED"]
    assert "clean accuracy" in failed.data.tags["error"]


def test_jobs_that_cannot_be_seen_are_no_success(command_line, workspace, capsys):
    words = ["attack=fgsm,bim", "tracking=none", "hydra.output_subdir=null"]
    assert command_line("-m", *words) == 1
    assert "FAILED 2 of 2 jobs" in capsys.readouterr().out


def test_a_store_that_goes_away_costs_no_results(command_line, workspace, capsys, monkeypatch):
    log_batch, served = mlflow.MlflowClient.log_batch, []

    def some(*arguments, **keywords):
        served.append(arguments)
        if len(served) > 6:  # in the first training
            raise mlflow.MlflowException("no route to host")
        log_batch(*arguments, **keywords)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", some)
    assert command_line("-m", "attack=fgsm,bim") == 0
    out, err = capsys.readouterr()
    assert (out + err).count("no route to host") == 1 and "http://" not in out
    assert len(served) == 7
    assert {path.name for path in outputs(workspace).glob("matrix*")} == {
        "matrix-bim.csv",
        "matrix-fgsm.csv",
    }


def test_data_that_cannot_be_had_is_refused_before_a_sweep_opens(
    command_line, workspace, capfd, monkeypatch
):
    tried = []

    def unreachable(*arguments, **keywords):
        tried.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr("src.data.cifar10.CIFAR10.__init__", unreachable)
    assert command_line("-m", "dataset=cifar10", "attack=fgsm,bim") == 2
    out, err = capfd.readouterr()
    assert err.count("no route to host") == 1 and not out
    assert len(tried) == 1
    assert not runs(client(workspace), "cifar10-sweeps")
    assert len(client(workspace).search_experiments()) == 1  # MLflow's own


def test_the_gate_can_warn_instead(command_line, workspace, capsys):
    wanted = ["model.fine.expected_accuracy=0.999", "clean_accuracy_check.tolerance=0.0001"]
    assert command_line("clean_accuracy_check.action=warn", "tracking=none", *wanted) == 0
    assert "its file expects 99.90%" in capsys.readouterr().out
    assert (outputs(workspace) / "predictions.parquet").exists()


REFUSED = [
    (["source=nonet"], "'nonet', which is not among the models: coarse, fine"),
    (["-m", "source=coarse,nonet"], "'nonet', which is not among the models: coarse, fine"),
    (["targets=[]"], "targets is empty"),
    (["epsilon.grid=[300]"], "budgets are numbers from 0 to 255"),
    (["-m", "attack=fgsm,bim", "trainer.devices=2"], "in a sweep give every job one device"),
    (["n_images=100000"], "n_images=100000"),
    (["dataset=image_folder", "dataset.root=gone"], "dataset.root=gone does not exist"),
    (["dataset=image_folder"], "dataset.root is not set"),
    (["dataset=image_csv", "dataset.root=."], "images.csv"),
    (["model.coarse.weights=gone.pt"], "model.coarse.weights=gone.pt is not a file"),
    (["model.fine.network._args_.2.out_features=7"], "7"),
    (["tracking.uri=nonsense://x"], "tracking.uri: the MLflow store nonsense://x cannot be used"),
    (["trainer=gpu"], "trainer in the config: "),
    (["controls=true", "n_images=1"], "controls=true needs at least 2 images"),
    (["++attack.steps=20"], "attack=fgsm has no setting steps; its settings are norm,"),
    (["-m", "attack=fgsm,fgsmm"], "there is no attack=fgsmm among admix"),
    (["-m", "seed=interval(0,1)"], "sweep"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_bad_input_is_refused_in_a_sentence(command_line, capfd, arguments, message):
    assert command_line(*arguments) != 0
    out, err = capfd.readouterr()
    assert message in (out + err).replace("\n", "")
    assert "Traceback" not in out + err


def test_controls_and_ensembles_reach_files_terminal_and_runs(command_line, workspace, capsys):
    words = ["-m", "attack=fgsm,bim", "source=coarse,[coarse,fine]", "controls=true"]
    assert command_line(*words, "ensemble=loss") == 0
    printed = capsys.readouterr().out
    assert "excess transfer over random-sign noise" in printed and "coarse+fine" in printed
    folder = outputs(workspace)
    excess = pd.read_csv(folder / "matrix-bim-excess.csv")
    assert excess["source"].tolist() == ["coarse", "coarse+fine"] * 2
    (job,) = folder.glob("*-fgsm-coarse+fine")
    noise = pd.read_parquet(job / "predictions-noise.parquet")
    assert len(noise) == len(pd.read_parquet(job / "predictions.parquet")) == 23 * (3 + 2 * 3)
    clean = noise[(noise["target"] == "coarse+fine") & (noise["eps_255"] == 0)]
    assert len(clean) == 23  # the ensemble's own answers, for the joint protocol
    (of_job,) = [
        run
        for run in runs(client(workspace), "photos-sweeps")
        if run.info.run_name == "bim coarse+fine"
    ]
    assert of_job.data.metrics["gradients_per_image"] == 2 * (1 + 3 * 9)


def test_long_names_of_an_ensemble_fit_the_file_system(command_line, workspace):
    models = workspace / "conf" / "model"
    names = ["coarse" + "x" * 94, "fine" + "x" * 96]
    for short, name in zip(("coarse", "fine"), names, strict=True):
        text = (models / f"{short}.yaml").read_text()
        (models / f"{name}.yaml").write_text(text.replace(short, name))
    both = ",".join(names)
    words = [f"model=[{both}]", f"source=[{both}]", f"targets=[{names[0]}]", "tracking=none"]
    assert command_line("-m", *words) == 0
    assert len(list(outputs(workspace).glob("0-fgsm-*/predictions.parquet"))) == 1


@pytest.mark.parametrize("aim", ["least_likely", "random", "next"])
def test_an_aim_makes_success_reaching_it(command_line, workspace, capsys, aim):
    quiet = ["tracking=none", "report=none"]
    assert command_line("attack=bim", f"attack.target_label={aim}", *quiet) == 0
    assert "target class reached / denominator" in capsys.readouterr().out.replace("\n", "")
    frame = table(outputs(workspace))
    attacked = frame[frame["eps_255"] > 0]
    assert attacked["target_label"].notna().all() and frame["target_label"].isna().any()
    assert (attacked["target_label"] != attacked["label"]).all()
    if aim == "next":
        assert (attacked["target_label"] == (attacked["label"] + 1) % 10).all()
    cells = pd.read_csv(outputs(workspace) / f"matrix-bim-target_label={aim}.csv")
    assert "coarse targeted_success_rate" in cells.columns


def test_an_aim_that_the_data_does_not_name_is_refused(command_line, capsys):
    assert command_line("attack.target_label=data", "tracking=none") == 1
    assert "the data set photos names no target labels" in capsys.readouterr().out


def test_a_used_folder_shows_no_earlier_controls(command_line, workspace, capsys):
    quiet = ["tracking=none", "report=none", "hydra.run.dir=here"]
    assert command_line("attack=bim", "controls=true", *quiet) == 0
    assert "excess transfer" in capsys.readouterr().out
    assert command_line("attack=fgsm", *quiet) == 0
    assert "excess transfer" not in capsys.readouterr().out
    left = {path.name for path in (workspace / "here").iterdir()}
    assert "matrix-fgsm.csv" in left
    assert not {name for name in left if "noise" in name or "excess" in name or "bim" in name}


def test_sweeps_over_models_are_not_compared_across_them(command_line):
    words = ["-m", "attack=fgsm,bim", "training.epochs=1,3", "tracking=none", "report=none"]
    assert command_line(*words) == 0


ADDITIVE = """
def still(model, images, labels, eps, *, steps):
    return images.expand(len(eps), *images.shape)
"""


def test_an_attack_that_does_nothing_raises_alarms(command_line, workspace, capsys, monkeypatch):
    (workspace / "conf" / "attack").mkdir()
    (workspace / "conf" / "attack" / "still.yaml").write_text(
        "name: still\n_target_: motionless.still\nsteps: 10\n"
    )
    (workspace / "motionless.py").write_text(ADDITIVE)
    monkeypatch.syspath_prepend(workspace)
    words = ["source=[coarse,fine]", "n_images=100", "report=none"]
    assert command_line("-m", "attack=fgsm,still", "epsilon.grid=[8]", *words) == 0
    printed = capsys.readouterr().out
    assert "ALARM 1-still-coarse+fine: loss_not_rising" in printed
    assert "ALARM 1-still-coarse+fine: weaker_than_fgsm" in printed
    store = client(workspace)
    tagged = {run.info.run_name: run.data.tags for run in runs(store, "photos-sweeps")}
    assert "alarm.loss_not_rising" in tagged["still coarse+fine"]
    assert "alarm.loss_not_rising" not in tagged["fgsm coarse+fine"]
    (sweep,) = [tags for tags in tagged.values() if tags["kind"] == "sweep"]
    assert "ALARM 1-still-coarse+fine: weaker_than_fgsm" in sweep["mlflow.note.content"]


@pytest.mark.usefixtures("coarse_guesses")
def test_a_model_that_guesses_is_named_once_before_the_matrix(command_line, workspace, capsys):
    words = ["targets=[coarse]", "tracking=none", "report=none"]
    assert command_line("-m", "attack=fgsm,bim", *words) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("ALARM")]
    (named,) = [line for line in lines if "clean_at_chance: coarse" in line]
    assert named.startswith("ALARM 0-fgsm-coarse (and 1 more)") and " / 23 = " in named
    assert printed.index(named) < printed.index("-> coarse\n")
    assert printed.count("wrong mean or std") == 1
    (few,) = [line for line in lines if "few_images" in line]
    assert "coarse -> coarse" in few
    (folder,) = (workspace / "outputs").iterdir()
    for job in folder.glob("*-coarse"):
        listed = {one["name"]: one for one in json.loads((job / "alarms.json").read_text())}
        assert {"clean_at_chance", "few_images", "zero_gradients"} <= set(listed)
        assert "wrong mean or std" in listed["clean_at_chance"]["sentence"]
