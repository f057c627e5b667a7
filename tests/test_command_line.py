"""Whole runs through the real command line, with two tiny models."""

import json
import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

COLUMNS = [
    *("index", "label", "target_label", "target", "eps_255"),
    *("predicted", "confidence", "true_confidence", "top5_classes", "top5_confidences"),
]
BIM = ["attack=bim", "attack.steps=3"]
FRESH = ["model.coarse.weights=null", "model.fine.weights=null", "dataset.n_train=100"]
FRESH += ["dataset.n_test=100", "training.epochs=2", "training.batch_size=50"]


def client(workspace: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")


def runs(store: mlflow.MlflowClient, experiment: str, kind: str) -> list:
    found = store.get_experiment_by_name(experiment)
    return list(store.search_runs([found.experiment_id], f"tags.kind = '{kind}'"))


def output(workspace: Path) -> Path:
    (folder,) = (workspace / "outputs").iterdir()
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


@pytest.fixture
def store(workspace, empty_store) -> mlflow.MlflowClient:
    shutil.copytree(empty_store, workspace / "mlruns")
    return client(workspace)


@pytest.fixture(scope="module")
def sweep(new_workspace, run_tiny, printed_by, empty_store):
    """The workspace of a tracked sweep of four jobs, and what it has printed."""
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")
    words = ["-m", "attack=fgsm,bim", "source=coarse,[coarse,fine]", "controls=true"]
    code, printed = printed_by(run_tiny, folder, *words, "ensemble=loss", "tracking=mlflow")
    assert code == 0
    return folder, printed


def test_a_sweep_leaves_files(sweep):
    workspace, printed = sweep
    assert [line for line in printed.splitlines() if line.startswith("job ")] == [
        f"job {number} of 4" for number in (1, 2, 3, 4)
    ]
    folder = output(workspace)
    jobs = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert jobs == ["0-fgsm-coarse", "1-bim-coarse", "2-fgsm-coarse+fine", "3-bim-coarse+fine"]
    for job in jobs:
        frame = table(folder / job)
        assert list(frame.columns) == COLUMNS
        assert len(frame) == 23 * (2 * 3 + ("+" in job))  # an ensemble is a model of its own
        names = {path.name for path in (folder / job).iterdir()}
        assert {"config.yaml", "rates.csv", "minimum-budgets.csv", "alarms.json"} <= names
        assert not {name for name in names if name.endswith(".png")}
    csv = pd.read_csv(folder / "matrix-bim.csv").set_index("source")
    assert list(csv.index) == ["clean", "coarse", "coarse+fine"]
    assert csv.loc["coarse", "fine"] in printed


def test_a_sweep_leaves_runs(sweep):
    workspace, printed = sweep
    store = client(workspace)
    pairs = runs(store, "photos", "pair")
    assert {pair.info.run_name for pair in pairs} == {
        f"{attack} {source} -> {target}"
        for attack in ("fgsm", "bim")
        for source in ("coarse", "coarse+fine")
        for target in ("coarse", "fine")
    }
    (whole,) = runs(store, "photos-sweeps", "sweep")
    jobs = runs(store, "photos-sweeps", "job")
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {whole.info.run_id}
    assert len(jobs) == 4 and all(run.info.status == "FINISHED" for run in [whole, *jobs])
    assert {pair.data.tags["sweep"] for pair in pairs} == {whole.info.run_id}
    assert {pair.data.tags["job"] for pair in pairs} == {run.info.run_id for run in jobs}
    assert all("mlflow.parentRunId" not in pair.data.tags for pair in pairs)
    stored = {file.path for file in store.list_artifacts(jobs[0].info.run_id)}
    assert {"config.yaml", "predictions.parquet", "rates.csv"} <= stored
    stored = {file.path for file in store.list_artifacts(whole.info.run_id)}
    assert {"matrix-fgsm.csv", "matrix-bim.csv"} <= stored
    assert printed.count("compareRunsMode=CHART&searchFilter=tags.sweep") == 2  # one an attack
    assert f"{whole.info.run_id}/artifacts/matrix-bim" in printed
    cell = pd.read_csv(output(workspace) / "matrix-bim.csv").set_index("source").loc["coarse"]
    described = whole.data.tags["mlflow.note.content"]
    assert described.index(cell["fine"]) < described.index("ALARM")


def test_a_pair_run_says_what_the_table_says(sweep):
    workspace, _ = sweep
    frame = table(output(workspace) / "1-bim-coarse")
    clean = frame[frame["eps_255"] == 0].pivot(index="index", columns="target", values="predicted")
    label = frame.groupby("index")["label"].first()
    joint = (clean["coarse"] == label) & (clean["fine"] == label)
    at = frame[(frame["target"] == "fine") & (frame["eps_255"] == 8)].set_index("index")
    still = (at["predicted"] == at["label"])[joint].mean()

    (pair,) = [
        run
        for run in runs(client(workspace), "photos", "pair")
        if run.info.run_name == "bim coarse -> fine"
    ]
    metrics, params, tags = pair.data.metrics, pair.data.params, pair.data.tags
    assert (params["n_images"], params["denominator"]) == ("23", str(joint.sum()))
    assert len(metrics) == 12
    for name, value in {
        "robust_accuracy": still,
        "success_rate": 1 - still,
        "confidence": at["confidence"][joint].mean(),
        "true_confidence": at["true_confidence"][joint].mean(),
    }.items():
        assert metrics[f"reference_{name}"] == pytest.approx(value)
    history = client(workspace).get_metric_history(pair.info.run_id, "robust_accuracy")
    assert [point.step for point in history] == [0, 8]  # MLflow's steps hold no 0.5
    assert [point.value for point in history] == [1, pytest.approx(still)]
    assert (tags["source"], tags["target"], tags["attack"]) == ("coarse", "fine", "bim")
    assert tags["dataset"] == "photos" and tags["seed"] == "0"
    assert len(tags["source_weights"]) == 16 and tags["git_commit"]


def test_controls_and_ensembles_reach_files_terminal_and_runs(sweep):
    workspace, printed = sweep
    assert "excess transfer over random-sign noise" in printed and "coarse+fine" in printed
    job = output(workspace) / "2-fgsm-coarse+fine"
    assert set(pd.read_csv(job / "excess.csv")["control"]) == {"noise", "shuffled"}
    assert {"float32", "noise", "shuffled"} <= set(pd.read_csv(job / "rates.csv")["variant"])
    noise = pd.read_parquet(job / "predictions-noise.parquet")
    assert len(noise) == len(table(job))
    clean = noise[(noise["target"] == "coarse+fine") & (noise["eps_255"] == 0)]
    assert len(clean) == 23  # the ensemble's own answers, for the joint protocol
    of_jobs = runs(client(workspace), "photos-sweeps", "job")
    gradients = {run.info.run_name: run.data.metrics["gradients_per_image"] for run in of_jobs}
    assert gradients["bim coarse+fine"] == 2 * (1 + 2 * 9)


def test_the_same_command_gives_the_same_table(sweep, command_line, workspace):
    assert command_line("attack=bim", "controls=true") == 0
    again = pq.read_table(output(workspace) / "predictions.parquet")
    assert again.equals(pq.read_table(output(sweep[0]) / "1-bim-coarse" / "predictions.parquet"))
    assert not (workspace / "mlruns").exists()  # tracking=none


def test_training_happens_once_and_is_tracked(command_line, workspace, store):
    assert command_line("-m", "attack=fgsm,bim", *FRESH, "tracking=mlflow") == 0
    checkpoints = workspace / "cache" / "checkpoints"
    trained = sorted(checkpoints.glob("*.safetensors"))
    assert [path.name.split("-")[0] for path in trained] == ["coarse", "fine"]
    stamps = [path.stat().st_mtime_ns for path in trained]
    assert not list(checkpoints.glob("*.training"))
    trainings = runs(store, "photos-training", "training")
    assert sorted(run.data.tags["model"] for run in trainings) == ["coarse", "fine"]
    for run in trainings:
        assert run.info.status == "FINISHED"
        assert len(store.get_metric_history(run.info.run_id, "test_accuracy")) == 2
        assert store.get_metric_history(run.info.run_id, "train_loss")

    assert command_line(*FRESH, "seed=3") == 0  # other images, the same weights
    assert [path.stat().st_mtime_ns for path in trained] == stamps
    assert len(list((workspace / "cache" / "clean").glob("*.parquet"))) == 4
    assert command_line(*FRESH, "training.seed=1", "targets=[coarse]") == 0
    assert len(list(checkpoints.glob("*.safetensors"))) == 3


NETWORK = """
from torch import nn

def build():
    layers = [nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 20), nn.ACTIVATION(), nn.Linear(20, 10)]
    return nn.Sequential(*layers)
"""


def test_a_changed_builder_is_trained_anew(command_line, workspace):
    text = (workspace / "conf" / "model" / "coarse.yaml").read_text()
    network = "network: {_target_: handmade.build}\n"
    own = text[: text.index("network:")] + network + text[text.index("mean:") :]
    (workspace / "conf" / "model" / "coarse.yaml").write_text(own)
    for count, activation in enumerate(["ReLU", "Tanh"], 1):
        (workspace / "handmade.py").write_text(NETWORK.replace("ACTIVATION", activation))
        assert command_line("targets=[coarse]", *FRESH, "training.epochs=1") == 0
        assert len(list((workspace / "cache" / "checkpoints").glob("*.safetensors"))) == count


def own_attack(workspace: Path, name: str, text: str, code: str = "") -> None:
    """Add an attack of the user's own, its file and perhaps its module."""
    (workspace / "conf" / "attack" / f"{name}.yaml").write_text(f"{text}\nname: {name}\n")
    (workspace / f"{name}_code.py").write_text(code)


MIRROR = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Mirror:
    copies: int = 2

    def __call__(self, images, draws, copy):
        return images.flip(-1) if copy else images
"""


def test_a_transform_of_ones_own_and_a_changed_one(command_line, workspace, store):
    text = "defaults: [mi, _self_]\ntransforms: [{_target_: mirror_code.Mirror}]"
    keys = []
    for code in (MIRROR, MIRROR.replace("-1", "-2")):
        own_attack(workspace, "mirror", text, code)
        assert command_line("attack=mirror", "tracking=mlflow") == 0
        pair = runs(store, "photos", "pair")[0]  # the newest
        keys.append(pair.data.tags["job_key"])
    assert keys[0] != keys[1]
    for job in runs(store, "photos-sweeps", "job"):
        assert job.data.metrics["gradients_per_image"] == 2 * (1 + 2 * 9)


def test_an_attack_of_ones_own_has_the_settings_of_its_file(command_line, workspace, capfd):
    own_attack(workspace, "mine", "defaults: [mi, _self_]\nkernel_size: 3")
    assert command_line("attack=mine", "++attack.lookahead=momentum") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "lookahead" in line and "kernel_size" in line and "(conf/attack/mine.yaml)" in line


def test_settings_unlike_the_files_stand_in_every_name(command_line, workspace, store, capsys):
    words = ["attack=bim", "attack.norm=l2", "attack.steps=2,10", "targets=[fine]"]
    assert command_line("-m", *words, "tracking=mlflow") == 0
    printed = " ".join(capsys.readouterr().out.split())
    folder = output(workspace)
    labels = ["bim (steps=2, norm=l2)", "bim (norm=l2)"]
    names = {path.name for path in folder.glob("matrix*")}
    assert names == {"matrix-bim-steps=2-norm=l2.csv", "matrix-bim-norm=l2.csv"}
    assert {pair.info.run_name for pair in runs(store, "photos", "pair")} == {
        f"{label} coarse -> fine" for label in labels
    }
    together = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("*/rates.csv"))])
    own = ["variant", "attack", "source", "norm", "protocol", "target", "eps_255"]
    assert list(together.columns[:7]) == own and not together.duplicated(own).any()
    assert list(together["attack"].unique()) == labels and set(together["norm"]) == {"l2"}
    assert set(together["protocol"]) == {"all", "source_correct", "target_correct", "joint"}
    for label in labels:
        assert f"{label} on photos, eps = 8/255" in printed


NOISE = """
import torch

def noise(model, images, labels, eps):
    return images + eps.reshape(-1, 1, 1, 1, 1) * torch.randn_like(images).sign()
"""


def test_a_random_attack_depends_on_the_seed_alone(command_line, workspace):
    own_attack(workspace, "noise", "_target_: noise_code.noise", NOISE)
    for folder in ("cold", "warm"):  # of the cache
        assert command_line("attack=noise", f"hydra.run.dir={folder}") == 0
    cold, warm = (
        pq.read_table(workspace / name / "predictions.parquet") for name in ("cold", "warm")
    )
    assert warm.equals(cold)


def test_images_to_mix_in_do_not_depend_on_the_subset(command_line, workspace):
    words = ["attack=admix", "attack.scales=1", "attack.steps=3", "epsilon.grid=[8]"]
    tables = []
    for count in (10, 20):
        assert command_line(*words, f"n_images={count}", f"hydra.run.dir={count}") == 0
        rows = table(workspace / str(count)).set_index(["index", "target", "eps_255"])
        tables.append(rows["true_confidence"])
    both = pd.concat(tables, axis=1, join="inner")
    assert len(both) == 10 * 2 * 2  # of clean and attacked images, by two targets
    np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-5)


def test_a_used_folder_does_not_mix_old_jobs_in(command_line, workspace, capsys):
    words = ["-m", "hydra.sweep.dir=here", *BIM]
    assert command_line(*words, "attack=bim,mi", "controls=true") == 0
    assert "excess transfer" in capsys.readouterr().out
    for noted in (workspace / "here").glob("*/.hydra/config.yaml"):
        os.utime(noted, (0, 0))  # the clocks of files are coarse
    assert command_line(*words, "attack=bim") == 0
    assert "excess transfer" not in capsys.readouterr().out
    matrices = [path.name for path in (workspace / "here").glob("matrix-*")]
    assert matrices == ["matrix-bim-steps=3.csv"]
    left = {path.name for path in (workspace / "here" / "0-bim-coarse").iterdir()}
    assert "predictions.parquet" in left
    assert not {name for name in left if "noise" in name or "excess" in name}


def test_a_failed_job_leaves_the_others_alone(command_line, workspace, store, capsys):
    wanted = ["model.fine.expected_accuracy=0.999", "clean_accuracy_check.tolerance=0.0001"]
    words = ["clean_accuracy_check.action=stop,warn", "tracking=mlflow"]
    assert command_line("-m", *words, *wanted) == 1
    printed = capsys.readouterr().out
    assert "FAILED 0-fgsm-coarse: model fine: clean accuracy is" in printed
    assert printed.count("its file expects 99.90%") == 2  # the other job warns
    assert (output(workspace) / "1-fgsm-coarse" / "predictions.parquet").exists()
    jobs = runs(store, "photos-sweeps", "job")
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FINISHED"]
    assert [run.info.status for run in runs(store, "photos-sweeps", "sweep")] == ["FAILED"]
    (failed,) = [run for run in jobs if run.info.status == "FAILED"]
    assert "clean accuracy" in failed.data.tags["error"]


def test_jobs_that_cannot_be_seen_are_no_success(command_line, capsys):
    assert command_line("-m", "attack=fgsm", "hydra.output_subdir=null") == 1
    assert "FAILED 1 of 1 jobs" in capsys.readouterr().out


def test_a_store_that_goes_away_costs_no_results(
    command_line, workspace, store, capsys, monkeypatch
):
    log_batch, served = mlflow.MlflowClient.log_batch, []

    def some(*arguments, **keywords):
        served.append(arguments)
        if len(served) > 3:  # the sweep, its first job and one of its pairs
            raise mlflow.MlflowException("no route to host")
        log_batch(*arguments, **keywords)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", some)
    assert command_line("-m", "attack=fgsm,fgsm_l2", "tracking=mlflow") == 0
    out, err = capsys.readouterr()
    assert (out + err).count("no route to host") == 1 and "http://" not in out
    assert len(served) == 4
    names = {path.name for path in output(workspace).glob("matrix*")}
    assert names == {"matrix-fgsm.csv", "matrix-fgsm_l2.csv"}


def test_data_that_cannot_be_had_is_refused_before_a_sweep_opens(
    command_line, store, capfd, monkeypatch
):
    tried = []

    def unreachable(*arguments, **keywords):
        tried.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr("src.data.cifar10.CIFAR10.__init__", unreachable)
    assert command_line("-m", "dataset=cifar10", "attack=fgsm,bim", "tracking=mlflow") == 2
    out, err = capfd.readouterr()
    assert err.count("no route to host") == 1 and not out
    assert len(tried) == 1
    assert len(store.search_experiments()) == 1  # MLflow's own


REFUSED = [
    (["-m", "source=coarse,nonet"], "'nonet', which is not among the models: coarse, fine"),
    (["-m", "attack=fgsm,bim", "trainer.devices=2"], "in a sweep give every job one device"),
    (["n_images=100000"], "n_images=100000"),
    (["dataset=image_folder", "dataset.root=gone"], "dataset.root=gone does not exist"),
    (["dataset=image_folder"], "dataset.root is not set"),
    (["dataset=image_csv", "dataset.root=."], "images.csv"),
    (["model.fine.network._args_.2.out_features=7"], "7"),
    (["tracking=mlflow", "tracking.uri=nonsense://x"], "the MLflow store nonsense://x cannot be"),
    (["trainer=gpu"], "trainer in the config: "),
    (["controls=true", "n_images=1"], "controls=true needs at least 2 images"),
    (["-m", "attack=fgsm,fgsmm"], "there is no attack=fgsmm among admix"),
    (["-m", "seed=interval(0,1)"], "sweep"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_bad_input_is_refused_in_a_sentence(command_line, capfd, arguments, message):
    assert command_line(*arguments) != 0
    out, err = capfd.readouterr()
    assert message in (out + err).replace("\n", "")
    assert "Traceback" not in out + err


def test_a_file_that_is_no_image_is_named_before_training(command_line, workspace, capfd):
    for number, place in enumerate(
        f"{split}/{name}" for split in ("train", "test") for name in "ab"
    ):
        (workspace / "pictures" / place).mkdir(parents=True)
        pixels = np.full((32, 32, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(workspace / "pictures" / place / "0.png")
    (workspace / "pictures" / "test" / "b" / "0.png").write_text("no image")
    words = ["dataset=image_folder", "dataset.root=pictures", "n_images=null"]
    assert command_line(*words, "model.coarse.weights=null") == 1
    out, err = capfd.readouterr()
    assert "test/b/0.png) cannot be read as an image" in out and "Training" not in out
    assert "Traceback" not in out + err


def test_long_names_of_an_ensemble_fit_the_file_system(command_line, workspace):
    models = workspace / "conf" / "model"
    names = ["coarse" + "x" * 94, "fine" + "x" * 96]
    for short, name in zip(("coarse", "fine"), names, strict=True):
        text = (models / f"{short}.yaml").read_text()
        (models / f"{name}.yaml").write_text(text.replace(f"model.{short}", f"model.{name}"))
    both = ",".join(names)
    words = [f"model=[{both}]", f"source=[{both}]", f"targets=[{names[0]}]"]
    assert command_line("-m", *words) == 0
    assert len(list(output(workspace).glob("0-fgsm-*/predictions.parquet"))) == 1


def test_a_target_label_makes_success_reaching_it(command_line, workspace, capsys):
    words = ["attack=bim", "attack.target_label=least_likely,random,next,data"]
    assert command_line("-m", *words) == 1
    printed = capsys.readouterr().out
    assert "target class reached / denominator" in printed
    assert "FAILED 3-bim-coarse: attack.target_label=data, but the data set photos names" in printed
    for number, rule in enumerate(("least_likely", "random", "next")):
        frame = table(output(workspace) / f"{number}-bim-coarse")
        attacked = frame[frame["eps_255"] > 0]
        assert attacked["target_label"].notna().all() and frame["target_label"].isna().any()
        assert (attacked["target_label"] != attacked["label"]).all()
        if rule == "next":
            assert (attacked["target_label"] == (attacked["label"] + 1) % 10).all()
        cells = pd.read_csv(output(workspace) / f"matrix-bim-target_label={rule}.csv")
        assert "coarse targeted_success_rate" in cells.columns


def test_sweeps_over_models_are_not_compared_across_them(command_line):
    words = ["-m", "attack=fgsm,bim", "training.epochs=1,2", *FRESH[1:4]]
    assert command_line(*words) == 0


STILL = """
def still(model, images, labels, eps, *, steps):
    return images.expand(len(eps), *images.shape)
"""


def test_an_attack_that_does_nothing_raises_alarms(command_line, workspace, store, capsys):
    own_attack(workspace, "still", "_target_: still_code.still\nsteps: 10", STILL)
    words = ["source=[coarse,fine]", "n_images=100", "epsilon.grid=[8]", "tracking=mlflow"]
    assert command_line("-m", "attack=fgsm,still", *words) == 0
    printed = capsys.readouterr().out
    assert "ALARM 1-still-coarse+fine: loss_not_rising" in printed
    assert "ALARM 1-still-coarse+fine: weaker_than_fgsm" in printed
    jobs = {run.info.run_name: run.data.tags for run in runs(store, "photos-sweeps", "job")}
    assert "alarm.loss_not_rising" in jobs["still coarse+fine"]
    assert "alarm.loss_not_rising" not in jobs["fgsm coarse+fine"]
    (sweep,) = runs(store, "photos-sweeps", "sweep")
    assert "ALARM 1-still-coarse+fine: weaker_than_fgsm" in sweep.data.tags["mlflow.note.content"]


@pytest.mark.usefixtures("coarse_guesses")
def test_a_model_that_guesses_is_named_once_before_the_matrix(command_line, workspace, capsys):
    assert command_line("-m", "attack=fgsm,bim", "targets=[coarse]") == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("ALARM")]
    (named,) = [line for line in lines if "clean_at_chance: coarse" in line]
    assert named.startswith("ALARM 0-fgsm-coarse (and 1 more)") and " / 23 = " in named
    assert printed.index(named) < printed.index("-> coarse\n")
    assert printed.count("wrong mean or std") == 1
    (few,) = [line for line in lines if "few_images" in line]
    assert "coarse -> coarse" in few
    for job in output(workspace).glob("*-coarse"):
        listed = {one["name"]: one for one in json.loads((job / "alarms.json").read_text())}
        assert {"clean_at_chance", "few_images", "zero_gradients"} <= set(listed)


@pytest.mark.usefixtures("coarse_guesses")
def test_without_an_attack_models_that_guess_are_named(command_line, workspace, capsys):
    assert command_line("attack=none", "source=null") == 0
    printed = capsys.readouterr().out
    frame = table(output(workspace))
    assert set(frame["target"]) == {"coarse", "fine"} and (frame["eps_255"] == 0).all()
    of_fine = frame[frame["target"] == "fine"]
    k, n = int((of_fine["label"] == of_fine["predicted"]).sum()), len(of_fine)
    assert f"{n} clean images" in printed and f"fine {k / n:.2%}" in printed
    (named,) = json.loads((output(workspace) / "alarms.json").read_text())
    assert named["finding"].startswith("coarse: ")
    assert f"clean_at_chance: {named['finding']}" in printed
