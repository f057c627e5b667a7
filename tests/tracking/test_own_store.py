"""Stores of the user's own that fail."""

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
