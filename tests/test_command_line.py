"""Whole runs through the real command line, with two tiny models."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from src.data.cifar10_mini import CLASSES
from tests.conftest import REPOSITORY

COLUMNS = [
    *("index", "label", "target_label", "target", "eps_255"),
    *("predicted", "confidence", "true_confidence", "top5_classes", "top5_confidences"),
    *("defence", "draws", "iteration", "gradients", "forwards"),
]
FRESH = ["model.coarse.weights=null", "dataset.n_train=100"]
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
        noise = pd.read_parquet(folder / job / "predictions-noise.parquet")
        for frame in (table(folder / job), noise):
            assert list(frame.columns) == COLUMNS
            assert len(frame) == 23 * (2 * 3 + ("+" in job))  # an ensemble is a model of its own
        names = {path.name for path in (folder / job).iterdir()}
        assert {"config.yaml", "rates.csv", "minimum-budgets.csv", "alarms.json"} <= names
    csv = pd.read_csv(folder / "matrix-bim.csv").set_index("source")
    assert list(csv.index) == ["clean", "coarse", "coarse+fine"]
    assert printed.count(csv.loc["coarse", "fine"]) >= 2  # when its job ends, and at the end
    first = printed.index(csv.loc["coarse+fine", "fine"])
    assert printed.index(csv.loc["coarse", "fine"]) < printed.index("job 3 of 4") < first
    assert "excess transfer over random-sign noise" in printed
    excess = pd.read_csv(folder / "3-bim-coarse+fine" / "excess.csv")
    assert set(excess["control"]) == {"noise", "shuffled"}


def test_a_sweep_leaves_runs(sweep):
    workspace, printed = sweep
    store = client(workspace)
    pairs, jobs = runs(store, "cifar10_mini", "pair"), runs(store, "cifar10_mini-sweeps", "job")
    (whole,) = runs(store, "cifar10_mini-sweeps", "sweep")
    sources, targets = ("coarse", "coarse+fine"), ("coarse", "fine")
    names = {f"{a} {s} -> {t}" for a in ("fgsm", "bim") for s in sources for t in targets}
    assert {pair.info.run_name for pair in pairs} == names
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {whole.info.run_id}
    assert len(jobs) == 4 and all(run.info.status == "FINISHED" for run in [whole, *jobs])
    assert {pair.data.tags["sweep"] for pair in pairs} == {whole.info.run_id}
    assert {pair.data.tags["job"] for pair in pairs} == {run.info.run_id for run in jobs}
    assert all("mlflow.parentRunId" not in pair.data.tags for pair in pairs)
    gradients = {run.info.run_name: run.data.metrics["gradients_per_image"] for run in jobs}
    assert gradients["bim coarse+fine"] == 2 * (1 + 2 * 9)
    stored = {file.path for file in store.list_artifacts(jobs[0].info.run_id)}
    assert {"config.yaml", "rates.csv"} <= stored
    stored = {file.path for file in store.list_artifacts(whole.info.run_id)}
    assert {"matrix-fgsm.csv", "matrix-bim.csv"} <= stored
    assert printed.count("compareRunsMode=CHART&searchFilter=tags.sweep") == 2  # one an attack
    assert f"/runs/{whole.info.run_id}" in printed
    cell = pd.read_csv(output(workspace) / "matrix-bim.csv").set_index("source").loc["coarse"]
    settings = {"sources": "coarse, coarse+fine", "targets": "coarse, fine", "attacks": "fgsm, bim"}
    more = {"budgets_255": "0.5, 8", "n_images": "23", "protocol": "joint", "seed": "0"}
    assert {**settings, **more, "dataset": "cifar10_mini"}.items() <= whole.data.params.items()
    rates = {pair.info.run_name: pair.data.metrics["reference/success_rate"] for pair in pairs}
    transferred = rates.pop("bim coarse -> fine")
    white = [rate for name, rate in rates.items() if name.startswith("bim")]
    for kind, value in {"transfer": transferred, "white_box": np.mean(white)}.items():
        (point,) = store.get_metric_history(whole.info.run_id, f"{kind}_success/bim")
        assert (point.step, point.value) == (8, pytest.approx(value))
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
    pairs = {pair.info.run_name: pair for pair in runs(client(workspace), "cifar10_mini", "pair")}
    pair = pairs["bim coarse -> fine"]
    metrics, params, tags = pair.data.metrics, pair.data.params, pair.data.tags
    assert (params["n_images"], params["denominator"]) == ("23", str(joint.sum()))
    for name, value in {
        "robust_accuracy": still,
        "success_rate": 1 - still,
        "confidence": at["confidence"][joint].mean(),
        "true_confidence": at["true_confidence"][joint].mean(),
    }.items():
        assert metrics[f"reference/{name}"] == pytest.approx(value)
    known = {"source": "coarse", "target": "fine", "attack": "bim", "dataset": "cifar10_mini"}
    assert known.items() <= tags.items()
    assert len(tags["source_weights"]) == 16 and tags["git_commit"]


def test_the_same_command_gives_the_same_table(sweep, command_line, workspace):
    assert command_line("attack=bim", "controls=true") == 0
    again = pq.read_table(output(workspace) / "predictions.parquet")
    assert again.equals(pq.read_table(output(sweep[0]) / "1-bim-coarse" / "predictions.parquet"))
    assert not (workspace / "mlruns").exists()  # tracking=none


def test_training_happens_once_and_is_tracked(command_line, workspace, store):
    words = [*FRESH, "targets=[coarse]"]
    assert command_line(*words, "tracking=mlflow") == 0
    checkpoints = workspace / "cache" / "checkpoints"
    (trained,) = checkpoints.glob("*.safetensors")
    stamp = trained.stat().st_mtime_ns
    assert trained.name.startswith("coarse-") and not list(checkpoints.glob("*.training"))
    (run,) = runs(store, "cifar10_mini-training", "training")
    assert run.data.tags["model"] == "coarse" and run.info.status == "FINISHED"
    assert len(store.get_metric_history(run.info.run_id, "test_accuracy")) == 2
    assert store.get_metric_history(run.info.run_id, "train_loss")

    assert command_line(*words, "seed=3") == 0  # other images, the same weights
    assert trained.stat().st_mtime_ns == stamp
    assert command_line(*words, "training.seed=1") == 0
    assert len(list(checkpoints.glob("*.safetensors"))) == 2


NETWORK = """
from torch import nn

def build():
    layers = [nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 20), nn.ACTIVATION(), nn.Linear(20, 10)]
    return nn.Sequential(*layers)
"""


def own_builder(workspace: Path, code: str) -> None:
    """Let the model `coarse` be built by a module of the user's own."""
    file = workspace / "conf" / "model" / "coarse.yaml"
    text = file.read_text()
    network = "network: {_target_: handmade.build}\n"
    file.write_text(text[: text.index("network:")] + network + text[text.index("mean:") :])
    (workspace / "handmade.py").write_text(code)


def test_a_sweep_builds_each_model_once(command_line, workspace):
    counting = NETWORK.replace("ACTIVATION", "ReLU").replace(
        "return", 'open("built.txt", "a").write("once ")\n    return'
    )
    own_builder(workspace, counting)
    words = ["-m", "attack=fgsm,bim", "source=coarse,fine", "targets=[coarse,fine]"]
    for count in (1, 2):
        assert command_line(*words, *FRESH, "training.epochs=1") == 0
        assert (workspace / "built.txt").read_text().split() == ["once"] * count


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


def test_an_estimator_of_ones_own(command_line, workspace):
    text = "defaults: [mi, _self_]\nestimator: {_target_: one_code.estimator, _partial_: true}"
    own_attack(workspace, "one", text, "estimator = lambda gradient, state: gradient(state.at)")
    tables = []
    for name in ("one", "mi"):
        assert command_line(f"attack={name}", f"hydra.run.dir={name}") == 0
        tables.append(table(workspace / name))
    assert tables[0].equals(tables[1])


def test_a_transform_of_ones_own_and_a_changed_one(command_line, workspace, store):
    text = "defaults: [mi, _self_]\ntransforms: [{_target_: mirror_code.Mirror}]"
    keys = []
    for code in (MIRROR, MIRROR.replace("-1", "-2")):
        own_attack(workspace, "mirror", text, code)
        assert command_line("attack=mirror", "tracking=mlflow") == 0
        pair = runs(store, "cifar10_mini", "pair")[0]  # the newest
        keys.append(pair.data.tags["job_key"])
    assert keys[0] != keys[1]
    for job in runs(store, "cifar10_mini-sweeps", "job"):
        assert job.data.metrics["gradients_per_image"] == 2 * (1 + 2 * 9)


def test_settings_unlike_the_files_stand_in_every_name(command_line, workspace, store, capsys):
    words = ["attack=bim", "attack.norm=l2", "attack.steps=2,10", "targets=[fine]"]
    assert command_line("-m", *words, "attack.target_label=next", "tracking=mlflow") == 0
    printed = " ".join(capsys.readouterr().out.split())
    labels = [f"bim ({steps}norm=l2, target_label=next)" for steps in ("steps=2, ", "")]
    assert all(f"{label} on cifar10_mini, eps = 8/255" in printed for label in labels)
    assert "target class reached / denominator" in printed
    files = sorted(output(workspace).glob("matrix*"))
    names = ["matrix-bim-norm=l2-target_label=next", "matrix-bim-steps=2-norm=l2-target_label=next"]
    assert [path.stem for path in files] == names
    assert "fine targeted_success_rate" in pd.read_csv(files[0]).columns
    pairs = {pair.info.run_name for pair in runs(store, "cifar10_mini", "pair")}
    assert pairs == {f"{label} coarse -> fine" for label in labels}
    jobs = [path.parent for path in sorted(output(workspace).glob("*/rates.csv"))]
    together = pd.concat([pd.read_csv(job / "rates.csv") for job in jobs])  # may be joined
    own = ["variant", "attack", "source", "norm", "arithmetic", "protocol", "target", "eps_255"]
    assert list(together.columns[:8]) == own and not together.duplicated(own).any()
    assert list(together["attack"].unique()) == labels and set(together["norm"]) == {"l2"}
    attacked = table(jobs[0]).query("eps_255 > 0")
    assert (attacked["target_label"] == (attacked["label"] + 1) % 10).all()


TEXTBOOK = """
import torch

def textbook(model, images, labels, eps):
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum"), leaf
    )
    return (leaf + eps.reshape(-1, 1, 1, 1, 1) * gradient.sign()).clamp(0, 1)
"""


def test_a_textbook_attack_of_ones_own_is_fgsm(command_line, workspace):
    own_attack(workspace, "textbook", "_target_: textbook_code.textbook", TEXTBOOK)
    assert command_line("-m", "attack=fgsm,textbook", "hydra.sweep.dir=here") == 0
    one, two = (
        pd.read_parquet(workspace / "here" / f"{job}-coarse" / "predictions.parquet")
        for job in ("0-fgsm", "1-textbook")
    )
    pd.testing.assert_frame_equal(one, two)


def test_attacks_are_named_by_a_pattern(command_line, workspace):
    own_attack(workspace, "still", "_target_: still_code.still\nsteps: 10", STILL)
    words = ["attack=glob([f*,still],exclude=fgsm_l2)", "hydra.sweep.dir=here"]
    assert command_line("-m", *words) == 0
    jobs = sorted(path.name for path in (workspace / "here").glob("[0-9]-*"))
    assert jobs == ["0-fgsm-coarse", "1-still-coarse"]


def test_what_ends_a_launcher_is_said_in_a_sentence(command_line, monkeypatch, capsys):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    def killed(*arguments, **keywords):
        raise RuntimeError("A worker process was killed.")

    monkeypatch.setattr(BasicLauncher, "launch", killed)
    assert command_line("-m", "attack=fgsm") == 1
    out, err = capsys.readouterr()
    assert "A worker process was killed." in out and "Traceback" not in out + err


def test_a_random_attack_depends_on_the_seed_alone(command_line, workspace):
    code = "def noise(model, x, y, eps): return x + eps[:, None, None, None, None] * randn_like(x)"
    text = "_target_: noise_code.noise"
    own_attack(workspace, "noise", text, f"from torch import randn_like\n{code}")
    for folder in ("cold", "warm"):  # of the cache
        assert command_line("attack=noise", "targets=[fine]", f"hydra.run.dir={folder}") == 0
    assert table(workspace / "cold").equals(table(workspace / "warm"))


def test_images_to_mix_in_do_not_depend_on_the_subset(command_line, workspace):
    words = ["attack=admix", "attack.scales=1", "attack.steps=3", "targets=[fine]"]
    tables = []
    for count in (10, 20):
        assert command_line(*words, f"n_images={count}", f"hydra.run.dir={count}") == 0
        rows = table(workspace / str(count)).query("target == 'fine'")
        tables.append(rows.set_index(["index", "eps_255"])["true_confidence"])
    both = pd.concat(tables, axis=1, join="inner")
    assert len(both) == 10 * 3  # of clean and attacked images
    np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-5)


def test_a_used_folder_does_not_mix_old_jobs_in(command_line, workspace, capsys):
    words = ["-m", "hydra.sweep.dir=here", "targets=[fine]"]
    assert command_line(*words, "attack=rfgsm,fgsm", "controls=true") == 0
    assert "excess transfer" in capsys.readouterr().out
    for noted in (workspace / "here").glob("*/.hydra/config.yaml"):
        os.utime(noted, (0, 0))  # the clocks of files are coarse
    (workspace / "here" / "figures").mkdir()
    for name in ("answer.png", "answer.vl.json", "mine.png"):
        (workspace / "here" / "figures" / name).touch()
    assert command_line(*words, "attack=rfgsm") == 0
    figures = (workspace / "here" / "figures").iterdir()
    assert [path.name for path in figures] == ["mine.png"]  # the user's own
    assert "excess transfer" not in capsys.readouterr().out
    assert [path.name for path in (workspace / "here").glob("matrix-*")] == ["matrix-rfgsm.csv"]
    left = " ".join(path.name for path in (workspace / "here" / "0-rfgsm-coarse").iterdir())
    assert "predictions.parquet" in left and "noise" not in left and "excess" not in left
    assert command_line("attack=fgsm", "hydra.run.dir=here") == 0
    assert [path.name for path in (workspace / "here").glob("matrix-*")] == ["matrix-fgsm.csv"]


def test_a_failed_job_leaves_the_others_alone(command_line, workspace, store, capsys):
    wanted = ["model.fine.expected_accuracy=0.999", "clean_accuracy_check.tolerance=0.0001"]
    words = ["clean_accuracy_check.action=stop,warn", "tracking=mlflow"]
    assert command_line("-m", *words, *wanted) == 1
    printed = capsys.readouterr().out
    assert "FAILED 0-fgsm-coarse: model fine: clean accuracy is" in printed
    assert printed.count("its file expects 99.90%") == 2  # the other job warns
    assert (output(workspace) / "1-fgsm-coarse" / "predictions.parquet").exists()
    jobs = runs(store, "cifar10_mini-sweeps", "job")
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FINISHED"]
    assert [run.info.status for run in runs(store, "cifar10_mini-sweeps", "sweep")] == ["FAILED"]
    (failed,) = [run for run in jobs if run.info.status == "FAILED"]
    assert "clean accuracy" in failed.data.tags["error"]


def test_weights_that_state_their_classes_are_for_these(
    command_line, workspace, tiny_weights, run_in, capsys
):
    def weights(names: str) -> None:
        state = load_file(tiny_weights / "fine.safetensors")
        facts = {"class_names": names, "expected_accuracy": "0.99"}
        save_file(state, workspace / "fine.safetensors", facts)

    words = ["source=fine", "targets=[fine]", "model.fine.weights=fine.safetensors"]
    weights(",".join(CLASSES))
    assert command_line(*words) == 0
    assert "its file expects 99.00%" in " ".join(capsys.readouterr().out.split())
    numbers = ",".join(f"'{number}'" for number in range(10))
    assert command_line(*words, f"dataset.class_names=[{numbers}]") == 0
    assert "expects" not in capsys.readouterr().out
    weights(",".join(reversed(CLASSES)))
    assert command_line(*words) != 0
    assert "model.fine.weights=null trains it here" in capsys.readouterr().out


def test_files_of_the_users_are_kept_and_in_a_jobs_own_folder_refused(
    command_line, workspace, capfd
):
    (workspace / "mine").mkdir()
    (workspace / "mine" / "config.yaml").write_text("mine")
    assert command_line("hydra.run.dir=mine") == 2
    assert "holds config.yaml" in capfd.readouterr().err
    assert os.listdir(workspace / "mine") == ["config.yaml"]
    assert command_line("-m", "attack=fgsm", "hydra.sweep.dir=mine") == 0
    assert (workspace / "mine" / "config.yaml").read_text() == "mine"


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
    assert store.get_experiment_by_name("cifar10-sweeps") is None


REFUSED = [
    (["-m", "source=coarse,nonet"], "'nonet', which is not among the models: coarse, fine"),
    (["-m", "attack=fgsm,bim", "trainer.devices=2"], "in a sweep give every job one device"),
    (["dataset=image_folder", "dataset.root=gone"], "dataset.root=gone is no folder"),
    (["tracking=mlflow", "tracking.uri=nonsense://x"], "the MLflow store nonsense://x cannot be"),
    (["controls=true", "n_images=1"], "controls=true needs at least 2 images"),
    (["attack.target_label=data"], "attack.target_label=data, but the data set cifar10_mini names"),
    (["-m", "seed=interval(0,1)"], "RANGE sweeps"),
    (["trainer.devices=-1"], "trainer in the config: "),
    (["epsilon=[4,8]"], "epsilon.grid=[4,8]"),
    (["model.fine.input_size=100000"], "model.fine.input_size=100000: a batch of 10 images"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_bad_input_is_refused_in_a_sentence(command_line, workspace, capfd, arguments, message):
    assert command_line(*arguments) != 0
    out, err = capfd.readouterr()
    assert message in (out + err).replace("\n", "")
    assert "Traceback" not in out + err
    assert all(path.stat().st_size for path in workspace.rglob("summary.txt"))


EARLY = ["model.fine.mean=[0.5]", "model.fine.std=[0,1,1]", "trainer.devices=0", "hydra.run.dir="]
EARLY += ["trainer.accelerator=foo", "model.fine.network._target_=a.b", "cache_dir=/proc/x"]
EARLY += ["+model.fine.network.bogus=1"]


@pytest.mark.parametrize("word", EARLY)
def test_mistakes_in_models_trainer_and_folders_stop_the_command(
    command_line, workspace, capfd, word
):
    assert command_line(word) == 2
    out, err = capfd.readouterr()
    assert word.lstrip("+").partition(".")[0] in err or "/proc/x" in err
    assert not out and err.count("\n") == 1 and not (workspace / "outputs").exists()


def test_what_the_config_shows_is_refused_before_torch_is_imported(workspace, tiny_run):
    words = [*tiny_run, "model.fine.weights=gone.pt"]
    script = f"import sys\nsys.argv[1:] = {words}\nfrom src.main import main\n"
    script += "try:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "False\n")
    assert "gone.pt is not a file" in told.stderr and told.stderr.count("\n") == 1


def test_the_largest_images_are_those_of_which_a_batch_fits(command_line, capfd, monkeypatch):
    memory = 10 * 3 * 3 * 32**2 * 4  # ten images of 32 pixels with two versions, in float32
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}
    monkeypatch.setattr("os.sysconf", lambda name: sizes[name])
    assert command_line("dataset.image_size=33") == 2
    assert "up to 32 fits" in capfd.readouterr().err
    assert command_line("dataset.image_size=32") == 0


def test_a_file_that_is_no_image_is_named_before_training(command_line, workspace, capfd):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (workspace / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(workspace / "pictures" / name / "0.png")
    (workspace / "pictures" / "test" / "b" / "0.png").write_text("no image")
    for count in ("null", "1"):  # an image outside the subset may be mixed in
        words = ["dataset=image_folder", "dataset.root=pictures", f"n_images={count}"]
        assert command_line(*words, "model.coarse.weights=null") == 1
        out, err = capfd.readouterr()
        assert "test/b/0.png) cannot be read as an image" in out and "Training" not in out
        assert "Traceback" not in out + err


STILL = """
def still(model, images, labels, eps, *, steps, norm="linf"):
    return images.expand(len(eps), *images.shape)
"""


def test_an_attack_that_does_nothing_raises_alarms(command_line, workspace, store, capsys):
    own_attack(workspace, "still", "_target_: still_code.still\nsteps: 10", STILL)
    words = ["source=[coarse,fine]", "n_images=100", "epsilon.grid=[8]", "tracking=mlflow"]
    assert command_line("-m", "attack=fgsm,still", *words) == 0
    printed = capsys.readouterr().out
    assert "ALARM 1-still-coarse+fine: loss_not_rising" in printed
    assert "ALARM 1-still-coarse+fine: weaker_than_fgsm" in printed
    jobs = {run.info.run_name: run.data.tags for run in runs(store, "cifar10_mini-sweeps", "job")}
    assert "alarm.loss_not_rising" in jobs["still coarse+fine"]
    assert "alarm.loss_not_rising" not in jobs["fgsm coarse+fine"]
    (sweep,) = runs(store, "cifar10_mini-sweeps", "sweep")
    assert "ALARM 1-still-coarse+fine: weaker_than_fgsm" in sweep.data.tags["mlflow.note.content"]


def test_an_attack_in_the_l2_ball_is_compared_with_a_step_there(command_line, workspace, capsys):
    own_attack(workspace, "still", "_target_: still_code.still\nsteps: 10\nnorm: l2", STILL)
    assert command_line("-m", "attack=fgsm_l2,still", "n_images=100", "epsilon.grid=[8]") == 0
    assert "ALARM 1-still-coarse: weaker_than_fgsm" in capsys.readouterr().out


def test_every_alarm_of_a_name_is_in_the_tags(command_line, store):
    assert command_line("attack=fgsm", "n_images=5", "tracking=mlflow") == 0
    (job,) = runs(store, "cifar10_mini-sweeps", "job")
    few = job.data.tags["alarm.few_images"].splitlines()
    assert len(few) == 2 and "coarse -> coarse" in few[0] and "coarse -> fine" in few[1]


GUESSING = """
from torch import nn

def build():
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    nn.init.zeros_(network[2].weight)
    return network
"""


def test_a_model_that_guesses_is_named_once_before_the_matrix(command_line, workspace, capsys):
    own_builder(workspace, GUESSING)
    words = ["targets=[coarse]", "model.coarse.weights=included"]
    assert command_line("-m", "attack=fgsm,bim", *words) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("ALARM")]
    (named,) = [line for line in lines if "clean_at_chance: coarse" in line]
    assert named.startswith("ALARM 0-fgsm-coarse (and 1 more)") and " / 23 = " in named
    assert printed.index(named) < printed.rindex("-> coarse\n")
    assert printed.count("wrong mean or std") == 1
    (few,) = [line for line in lines if "few_images" in line]
    assert "coarse -> coarse" in few
    for job in output(workspace).glob("*-coarse"):
        listed = {alarm["name"] for alarm in json.loads((job / "alarms.json").read_text())}
        assert {"clean_at_chance", "few_images", "zero_gradients"} <= listed
