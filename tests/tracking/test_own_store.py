"""Stores of the user's own that fail."""

import json
import time
from typing import Any

import pytest

FAILING = """
class Failing:
    def __init__(self, dataset, at="publish"):
        if at == "start":
            raise RuntimeError("the wire is cut")

    def publish(self, kind, name, parameters, metrics, tags, files):
        raise RuntimeError("the wire is cut")

def short(kind, name):
    pass
"""


def test_a_store_that_fails_costs_no_job(workspace, run_job):
    (workspace / "failing.py").write_text(FAILING)
    words = ["tracking._target_=failing.Failing", "hydra.run.dir=outputs/a", "tracking=none"]
    assert run_job(*words) == 0
    assert (workspace / "outputs" / "a" / "predictions.parquet").is_file()
    log = (workspace / "outputs" / "a" / "main.log").read_text()
    assert log.count("the wire is cut") == 1 and "tracking stops" in log


REFUSED = {
    "failing.Failing": "the wire is cut",
    "failing.short": "method publish(kind,",
    "nowhere.Store": "'nowhere'",
}


@pytest.mark.parametrize("target", REFUSED)
def test_a_store_that_cannot_be_used_is_refused_before_any_job(workspace, run_job, target, capfd):
    (workspace / "failing.py").write_text(FAILING)
    words = [f"++tracking._target_={target}", "hydra.run.dir=outputs/a"]
    words += ["+tracking.at=start"] * target.endswith("Failing")
    assert run_job(*words) == 2
    error = capfd.readouterr().err
    assert REFUSED[target] in error and error.startswith("tracking: ") and "Traceback" not in error
    assert not (workspace / "outputs" / "a" / "predictions.parquet").exists()


RECORDING = """
import json

def publish(kind, name, parameters, metrics, tags, files):
    names = [metric for metric, _, _ in metrics]
    with open("runs.jsonl", "a") as file:
        file.write(json.dumps([kind, name, parameters, names, tags]) + "\\n")
"""


def test_runs_of_unequal_references_share_no_name_and_begin_with_their_jobs(workspace, run_job):
    (workspace / "recording.py").write_text(RECORDING)
    words = ["-m", "++tracking._target_=recording.publish", "attack=fgsm,bim", "epsilon.grid=[4,8]"]
    runs = list[list[Any]]()
    for eps in (4, 8):
        begun = time.time()
        assert run_job(*words, f"epsilon.reference={eps}", f"hydra.sweep.dir=out{eps}") == 0
        lines = (workspace / "runs.jsonl").read_text().splitlines()
        runs.append([json.loads(line) for line in lines[sum(map(len, runs)) :]])
        start = {kind: float(tags["started"]) / 1000 for kind, *_, tags in runs[-1]}
        assert begun - 1 < start["sweep"] < start["job"] == start["pair"] < time.time()
    for kind in ("pair", "sweep"):
        low, high = ([run for run in side if run[0] == kind] for side in runs)
        assert [str(side[0][2]["reference_eps_255"]).strip(".0") for side in (low, high)] == [
            "4",
            "8",
        ]
        sides = [{name for run in side for name in run[3]} for side in (low, high)]
        both = sides[0] & sides[1]
        assert {name.rpartition("/")[2] for name in both if "/" in name} == {"curve"}
        names = [{run[1] for run in side} for side in (low, high)]
        assert not names[0] & names[1]
    charts = sorted(sides[0])
    assert charts[0].startswith("transfer_success/")
