"""Stores of the user's own: the page's W&B tracker on a stand-in, and stores that fail."""

import json
import shutil

import pytest

from tests.conftest import REPOSITORY

TRACKER = REPOSITORY / "docs" / "wandb_tracker.py"
STAND_IN = '''
"""As much of wandb's face (0.18 to 0.22) as the tracker uses, written to a file."""
import json, pathlib, uuid

class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)

class Run:
    def __init__(self, **keywords):
        self.id, self.keywords = uuid.uuid4().hex, keywords
        self.config, self.logged, self.files = Config(keywords["config"]), [], []

    def define_metric(self, name, step_metric=None):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.logged.append(values)

    def save(self, path, base_path=None, policy="live"):
        self.files.append(str(pathlib.Path(path).relative_to(base_path)))

    def finish(self, exit_code=None):
        stated = {**self.keywords, "config": dict(self.config), "id": self.id, "code": exit_code}
        with open("wandb.jsonl", "a") as file:
            row = {**stated, "logged": self.logged, "files": self.files}
            file.write(json.dumps(row, default=str) + "\\n")

def init(**keywords):
    assert keywords["reinit"] == "create_new"
    return Run(**keywords)
'''
FAILING = """
class Failing:
    def __init__(self, dataset, at="start"):
        self.at = at

    def __getattr__(self, name):
        if name not in ("start", "log", "keep", "end"):
            raise AttributeError(name)
        def call(*arguments):
            if name == self.at:
                raise RuntimeError("the wire is cut")
            return "run"
        return call
"""


def runs(place) -> list[dict]:
    text = (place / "wandb.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_weights_and_biases_gets_a_run_per_sweep_job_pair_and_training(
    workspace, run_job, monkeypatch
):
    assert len(TRACKER.read_text().splitlines()) <= 60
    shutil.copy(TRACKER, workspace)
    (workspace / "wandb.py").write_text(STAND_IN)
    (workspace / "conf" / "tracking").mkdir()
    text = "_target_: wandb_tracker.WandbTracker\nentity: me\ntags: {paper: A}\n"
    (workspace / "conf" / "tracking" / "wandb.yaml").write_text(text)
    words = ["attack=fgsm,bim", "model.fine.weights=null", "training.epochs=1"]
    words += ["dataset.n_train=100", "dataset.n_test=50", "hydra.sweep.dir=outputs/DATE"]
    assert run_job("-m", *words, "tracking=wandb") == 0
    tracked = runs(workspace)
    kinds = [run["job_type"] for run in tracked]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {"training": 1, "pair": 4, "job": 2, "sweep": 1}
    (sweep,) = (run for run in tracked if run["job_type"] == "sweep")
    assert sweep["name"] == "DATE" and "fgsm, bim" in sweep["config"]["attacks"]
    assert "attacks.csv" in sweep["files"] and sweep["config"]["note"]
    for run in tracked:
        assert run["project"] == "cifar10_mini" and run["entity"] == "me" and run["code"] == 0
        assert run["group"] == (None if run is sweep else sweep["id"])
        assert run["config"]["paper"] == "A"
    pair = next(run for run in tracked if run["name"] == "bim coarse -> fine")
    curve = [its["step"] for its in pair["logged"] if "success_rate/curve" in its]
    assert curve == [0, 8]
    training = next(run for run in tracked if run["job_type"] == "training")
    assert any("train_loss" in its for its in training["logged"])


@pytest.mark.parametrize(
    "at", ["log", *(pytest.param(name, marks=pytest.mark.slow) for name in ("keep", "end"))]
)
def test_a_store_that_fails_costs_no_job(workspace, run_job, at):
    (workspace / "failing.py").write_text(FAILING)
    words = ["tracking._target_=failing.Failing", f"+tracking.at={at}"]
    assert run_job(*words, "hydra.run.dir=outputs/a", "tracking=none") == 0
    assert (workspace / "outputs" / "a" / "predictions.parquet").is_file()
    log = (workspace / "outputs" / "a" / "main.log").read_text()
    assert log.count("the wire is cut") == 1 and "tracking stops" in log


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("failing.Failing", "the wire is cut"),
        ("builtins.dict", "it lacks start, log, keep, end"),
        ("nowhere.Store", "No module named 'nowhere'"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_before_any_job(
    workspace, run_job, target, said, capfd
):
    (workspace / "failing.py").write_text(FAILING)
    assert run_job(f"++tracking._target_={target}", "hydra.run.dir=outputs/a") == 2
    error = capfd.readouterr().err
    assert said in error and error.startswith("tracking: ") and "Traceback" not in error
    assert not (workspace / "outputs" / "a" / "predictions.parquet").exists()
