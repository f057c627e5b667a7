"""Stores of the user's own: the page's W&B function on a stand-in, and stores that fail."""

import json
import shutil
from collections import Counter

import pytest

from tests.conftest import REPOSITORY

STAND_IN = '''
"""As much of wandb's face (0.18 to 0.22) as the tracker uses, written to a file."""
import json, pathlib

class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)

class Run:
    def __init__(self, keywords):
        self.file = pathlib.Path(f"wandb/{keywords['id']}.json")
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.state = {"config": {}, "logged": [], "files": [], **keywords, **known}
        self.config = Config(self.state["config"])

    def define_metric(self, name, step_metric=None):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.state["logged"].append(values)

    def save(self, path, base_path=None, policy="live"):
        self.state["files"].append(str(pathlib.Path(path).relative_to(base_path)))

    def finish(self, exit_code=None):
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps({**self.state, "config": self.config, "code": exit_code}))

def init(resume, **keywords):
    return Run(keywords)
'''
FAILING = """
class Failing:
    def __init__(self, dataset, at="publish"):
        if at == "start":
            raise RuntimeError("the wire is cut")

    def publish(self, kind, name, parameters, metrics, tags, files):
        raise RuntimeError("the wire is cut")

class Earlier:
    def __init__(self, dataset):
        pass

    def start(self, kind, name, parameters, tags, points):
        return "run"

    log = keep = end = start

def short(kind, name):
    pass
"""


@pytest.mark.slow
def test_weights_and_biases_gets_a_run_per_sweep_job_pair_and_training(workspace, run_job):
    shutil.copy(REPOSITORY / "docs" / "wandb_tracker.py", workspace)
    (workspace / "wandb.py").write_text(STAND_IN)
    (workspace / "conf" / "tracking").mkdir()
    text = "_target_: wandb_tracker.publish\nproject: mine\ntags: {paper: A}\n"
    (workspace / "conf" / "tracking" / "wandb.yaml").write_text(text)
    words = ["attack=fgsm,bim", "model.fine.weights=null", "training.epochs=1"]
    words += ["dataset.n_train=100", "dataset.n_test=50", "tracking=wandb", "rerun=false"]
    for name in ("DATE", "AGAIN"):
        assert run_job("-m", *words, f"hydra.sweep.dir=outputs/{name}") == 0
    tracked = [json.loads(file.read_text()) for file in (workspace / "wandb").iterdir()]
    kinds = Counter(run["job_type"] for run in tracked)
    assert kinds == {"training": 1, "pair": 4, "job": 2, "sweep": 2}
    sweep, again = sorted(
        (run for run in tracked if run["job_type"] == "sweep"),
        key=lambda run: run["name"] == "AGAIN",
    )
    assert sweep["name"] == "DATE" and "fgsm, bim" in sweep["config"]["attacks"]
    assert "attacks.csv" in sweep["files"] and sweep["config"]["note"]
    identity = [run["config"]["sweep"] for run in (sweep, again)]
    for run in tracked:
        assert (run["project"], run["code"], run["config"]["paper"]) == ("mine", 0, "A")
        if run["job_type"] != "sweep":
            assert run["config"]["sweep"] == identity[0]
            assert {f"sweep.{name}" for name in identity} <= run["config"].keys()
    pair = next(run for run in tracked if run["name"] == "bim coarse -> fine")
    curve = [its["step"] for its in pair["logged"] if "success_rate/curve" in its]
    assert curve == [0, 8]
    training = next(run for run in tracked if run["job_type"] == "training")
    assert any("train_loss" in its for its in training["logged"])


def test_a_store_that_fails_costs_no_job(workspace, run_job):
    (workspace / "failing.py").write_text(FAILING)
    words = ["tracking._target_=failing.Failing", "hydra.run.dir=outputs/a", "tracking=none"]
    assert run_job(*words) == 0
    assert (workspace / "outputs" / "a" / "predictions.parquet").is_file()
    log = (workspace / "outputs" / "a" / "main.log").read_text()
    assert log.count("the wire is cut") == 1 and "tracking stops" in log


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("failing.Failing", "the wire is cut"),
        ("failing.Earlier", "method publish(kind,"),
        ("failing.short", "method publish(kind,"),
        ("nowhere.Store", "'nowhere'"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_before_any_job(
    workspace, run_job, target, said, capfd
):
    (workspace / "failing.py").write_text(FAILING)
    words = [f"++tracking._target_={target}", "hydra.run.dir=outputs/a"]
    words += ["+tracking.at=start"] * target.endswith("Failing")
    assert run_job(*words) == 2
    error = capfd.readouterr().err
    assert said in error and error.startswith("tracking: ") and "Traceback" not in error
    assert not (workspace / "outputs" / "a" / "predictions.parquet").exists()
