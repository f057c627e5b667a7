"""Stores of the user's own: the page's W&B function on a stand-in, and stores that fail."""

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.conftest import REPOSITORY

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


def test_the_function_of_the_page_writes_runs_of_weights_and_biases(monkeypatch, tmp_path):
    config: dict[str, Any] = {}
    run = MagicMock(**{"config.get": config.get, "config.keys": config.keys})
    run.config.__getitem__.side_effect = config.__getitem__
    run.config.update.side_effect = lambda values, allow_val_change: config.update(values)
    wandb = SimpleNamespace(init=MagicMock(return_value=run))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    publish = import_module("wandb_tracker").publish
    (tmp_path / "images").mkdir()
    files = [tmp_path / "attacks.csv", tmp_path / "images" / "0.png"]
    for file in files:
        file.touch()
    points = [("n", 0.5, 0), ("n", 1.0, 8)]
    for sweep in ("first", "second"):
        tags = {"run_key": "k", "job": "j", sweep: "here", "error": "no luck"}
        places = [files[0], files[1].parent]
        publish("pair", "a -> b", {"steps": 10}, points, tags, places, project="mine")
    words = {"id": "k", "name": "a -> b", "job_type": "pair", "group": "j", "project": "mine"}
    wandb.init.assert_called_with(resume="allow", **words)
    assert [its.args[0] for its in run.log.call_args_list] == [
        {"n": 0.5, "step": 0},
        {"n": 1.0, "step": 8},
    ]
    assert [its.args[0] for its in run.save.call_args_list] == [*map(str, files)]
    run.finish.assert_called_with(exit_code=True)
    assert {"steps": 10, "first": "here", "second": "here"}.items() <= config.items()


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
