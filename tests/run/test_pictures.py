"""Which pictures a job stores: named and spread ones, and those that its predictions choose."""

import numpy as np
import pytest

from src.analysis.trajectories import by_kind, typical_images
from src.artifacts.jobs import find_jobs
from src.report.results import described_images
from tests.test_resume import APART, COUNTING

N, BUDGETS = 23, (2.0, 8.0)  # images of a tiny job


@pytest.fixture
def run(run_job, workspace, monkeypatch):
    """A function that runs a job in a folder, and returns it; its page is not written."""
    monkeypatch.setattr("src.report.finished_jobs.write_report", lambda *_: None)
    text = "_target_: counting_code.counting\nname: counting\n"
    (workspace / "conf" / "attack" / "counting.yaml").write_text(text)
    (workspace / "counting_code.py").write_text(APART)
    (workspace / "attacked").mkdir()

    def run(name, *words):
        words = ["rerun=false", "epsilon.grid=[2,8]", "report=default", *words]
        assert run_job(*words, f"hydra.run.dir={name}") == 0
        (job,) = find_jobs([workspace / name])
        return job

    return run


def attacked(workspace):
    """Return the number of images attacked so far."""
    return sum(int(call.name.split("-")[-1]) for call in (workspace / "attacked").iterdir())


def test_a_number_that_no_image_has_is_refused_before_anything_runs(run_job, workspace, capsys):
    words = ["attack=bim", "report=default", "report.images=[99999]", "hydra.run.dir=out"]
    assert run_job(*words) == 2
    assert "report.images: image 99999 is not one of the job's" in capsys.readouterr().err
    assert not (workspace / "out").exists()


def wanted(job):
    """Return the typical image per target and budget, and the first of each kind per target."""
    record = job.record
    typical = typical_images(job.predictions, record.source, record.targets, record.protocol)
    kinds = by_kind(described_images(job)).values()
    return {*typical.values()} | {
        index for rows in kinds for index in rows.drop_duplicates("target")["index"]
    }


@pytest.mark.slow
def test_named_images_come_first_then_those_that_results_choose(run, workspace):
    numbers = run("clean", "attack=none", "source=null").predictions["index"].unique().tolist()
    named = [numbers[17], numbers[3]]
    words = ["attack=bim", "attack.steps=2", "report.examples=2", f"report.images={named}"]
    job = run("one", *words)
    index = list(job.pictures)
    assert index[:2] == named and {*index} >= wanted(job)
    spread = [one for one in index if one not in {*named, *wanted(job)}]
    assert spread == index[len(index) - len(spread) :] and len(spread) <= 2
    for versions in job.pictures.values():
        assert list(versions) == [0.0, *BUDGETS]
        for eps in BUDGETS:
            change = versions[eps].astype(int) - versions[0.0]
            assert 0 < np.abs(change).max() <= eps
    assert list(run("more", *words, "targets=[fine]").pictures)[:2] == named


@pytest.mark.parametrize("code", [APART, pytest.param(COUNTING, marks=pytest.mark.slow)])
def test_few_images_are_attacked_again(run, workspace, code):
    (workspace / "counting_code.py").write_text(code)
    words = ["attack=counting", "cache.images_mb=0", "report.examples=3", "cache.dir=none"]
    first = run("one", *words)
    again = attacked(workspace) - N
    assert again == (N // 20 if code == APART else 0)  # the others depend on their batch
    assert len(first.pictures) == 3 + again and len({*first.pictures} & wanted(first)) >= again
    second = run("two", *words)
    assert attacked(workspace) == N + again
    for index, versions in second.pictures.items():
        for eps, picture in versions.items():
            np.testing.assert_array_equal(first.pictures[index][eps], picture)
