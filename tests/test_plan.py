"""What a command takes, printed before its first job, against what it took."""

import re

import pytest

from src.artifacts.record import job_record
from src.run.plan import JobPlan, Plan
from src.utils import stopping


@pytest.fixture
def plan(run_job, printed_by, monkeypatch):
    """A function that plans a command without any model, and returns the lines it prints."""

    def run(*words, exits=0):
        with monkeypatch.context() as patch:
            patch.delattr("src.run.models.build")
            code, printed = printed_by(run_job, *words, "plan=only")
        assert code == exits, printed
        return printed

    return run


def count(name, printed):
    (number,) = re.findall(rf"Plan: .*?([\d,]+) {name}", printed)
    return int(number.replace(",", ""))


@pytest.mark.slow
def test_a_plan_computes_nothing_and_states_what_the_command_takes(plan, run_job, workspace):
    words = ["-m", "attack=bim,mi", "attack.steps=3", "rerun=false", "hydra.sweep.dir=out"]
    printed = plan(*words)
    assert {path.name for path in workspace.iterdir()} == {"conf", "cache"}
    assert not [*(workspace / "cache").iterdir()] and "unknown until the first batch" in printed
    assert count("gradients", printed) == 2 * 23 * (1 + 2 * 2)
    # Clean images once for both jobs; one or two storage formats have the same logits.
    assert count("predictions", printed) == 2 * 23 + 2 * 2 * 2 * 23
    assert run_job(*words) == 0
    records = [job_record(folder) for folder in sorted((workspace / "out").glob("[0-9]-*"))]
    assert sum(record.gradients for record in records) == 2 * 23 * (1 + 2 * 2)
    again = plan(*words)
    assert count("gradients", again) == count("predictions", again) == 0
    assert "all rows of 2 jobs" in again
    grown = plan(*words, "epsilon.grid=[0,0.5,2,8]")
    assert count("gradients", grown) == 2 * 23 * (1 + 3 * 2) and "Already" not in grown
    assert "about 0 s at the pace of earlier jobs" in grown


def test_time_left_is_told_once_and_sources_have_their_pace(caplog):
    jobs = [JobPlan(name, 100, 1000, 0, seconds) for name, seconds in (("a", 10), ("b", 40))]
    plan = Plan(True, None, jobs)
    with caplog.at_level("INFO"):
        plan.tell_time_left(0, 0.02, 500)  # twice as slow as planned: 10 s here, then 80 s
        plan.tell_time_left(1, 9, 900)
    assert [record.getMessage() for record in caplog.records] == [
        "Time left for all jobs: about 2 min"
    ]
    plan = Plan(True, 0.01, jobs)
    with pytest.raises(stopping.OutOfTime, match=r"left is 2 min. Type .*=0.1 or n_images=40$"):
        plan.tell_time_left(0, 0.02, 500)
