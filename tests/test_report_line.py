"""From a sweep's tables to its report, and from copies of the tables alone."""

import json
import shutil
from functools import partial
from html import unescape
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from src import load_sweep, rankings, rates
from src.artifacts.sweep_state import SweepManifest, write_manifest
from tests.conftest import REPOSITORY, block_of

MODELS = ("coarse", "fine")


@pytest.fixture
def report(workspace, run_in):
    """A function that runs `python -m src.report` here and returns its exit code."""
    return partial(run_in, workspace, module="src.report.__main__")


def page(folder: Path) -> str:
    """Return a page's text."""
    return unescape((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def sweep(new_workspace, run_tiny, printed_by, empty_store):
    """The workspace of a tracked sweep that ended with its report, and what it has printed."""
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")
    words = ["attack=fgsm", "source=coarse,fine", "n_images=40", "trainer.batch_size=40"]
    words += ["protocol=all", "diagnostics=full", "diagnostics.bisection=2", "tracking=mlflow"]
    words += ["diagnostics.n_images=39", "report=default", "hydra.sweep.dir=outputs/out"]
    code, printed = printed_by(run_tiny, folder, "-m", *words)
    assert code == 0
    return folder, printed


@pytest.mark.slow
def test_a_sweep_ends_with_its_report(sweep):
    workspace, printed = sweep
    folder = workspace / "outputs" / "out"
    assert "report: " in printed
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        *("report.html", "summary.txt", "attacks.csv", "sources.csv", "sweep.json"),
        "multirun.yaml",
    }
    data = json.loads(block_of(folder / "report.html"))
    assert {tuple(job) for job in data["jobs"]} == {
        ("fgsm", source) for source in ("coarse", "fine")
    }
    figures = {one["name"]: pd.DataFrame(**one["columns"]) for one in data["figures"]}
    assert {"spectra", "filtered", "low-passed", "similarity", "classes"} <= figures.keys()
    for name, column in (("spectra", "n"), ("filtered", "denominator"), ("similarity", "n")):
        assert set(figures[name][column]) == {39}, name


@pytest.mark.slow
def test_a_report_and_its_tables_are_tracked(sweep):
    workspace, _ = sweep
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    experiment = store.get_experiment_by_name("cifar10_mini-sweeps").experiment_id
    runs = {run.data.tags["kind"]: run.info.run_id for run in store.search_runs([experiment])}
    assert "report.html" in {file.path for file in store.list_artifacts(runs["sweep"])}
    files = {file.path for file in store.list_artifacts(runs["job"])}
    assert {"rates.csv", "alarms.json", "config.yaml"} <= files  # tables: in the job's folder
    assert not [file for file in files if file.endswith(".parquet")]


@pytest.mark.slow
def test_copies_of_the_tables_make_the_same_report(sweep, report, workspace):
    folder = sweep[0] / "outputs" / "out"
    for path in folder.rglob("*.parquet"):  # no model, no images
        (workspace / "bare" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, workspace / "bare" / path.parent.name)
    assert report("bare", "out=again") == 0
    again, first = (
        json.loads(block_of(its / "report.html")) for its in (workspace / "again", folder)
    )
    for name in ("axes", "rows", "rankings", "sources", "figures"):
        assert again[name] == first[name], name


@pytest.mark.slow
def test_other_data_weights_and_norms_are_never_compared(
    run_job, report, workspace, tiny_weights, monkeypatch
):
    other = workspace / "other.safetensors"
    content = bytearray((tiny_weights / "fine.safetensors").read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    runs = {
        "outputs/one": [],
        "outputs/steps": ["attack=bim"],
        "outputs/less": ["n_images=39"],
        "outputs/l2": ["attack=fgsm_l2"],
        "outputs/retrained": [f"model.fine.weights={other}"],
    }
    for folder, words in runs.items():
        counted = ["n_images=40", "protocol=all"]  # enough to be compared
        assert run_job(*counted, *words, f"hydra.run.dir={folder}") == 0
    with monkeypatch.context() as patch:
        written = []
        patch.setattr(
            "src.report.finished_jobs.write_report", lambda jobs, out, *_: written.append(out)
        )
        assert report() == 0
        assert written == [Path("outputs/retrained")]  # the newest
    assert report(f"folder=[{','.join(runs)}]", "out=all") == 0
    assert len(json.loads(block_of(workspace / "all" / "report.html"))["sweeps"]) == 4
    found = rates(load_sweep(*runs))
    assert found["attack"].nunique() == 5
    assert not found.duplicated(["attack", "source", "target", "eps_255"]).any()
    groups = rankings(*runs).groupby("group")["attack"].agg(set)
    assert sum({"bim"} < names for names in groups) == 1  # others are ranked apart
    assert sorted(map(len, groups)) == [1, 1, 1, 2]


@pytest.mark.slow
def test_clean_images_are_reported_without_an_attack(run_job, workspace):
    words = ["-m", "attack=none", "source=null", "report=default"]
    assert run_job(*words, "hydra.sweep.dir=out") == 0
    frame = pd.read_parquet(workspace / "out" / "0-none" / "predictions.parquet")
    correct = frame[frame["target"] == "fine"].eval("label == predicted")
    cell = f"{correct.sum()} / {len(correct)} = {correct.mean():.2%}"
    assert cell in page(workspace / "out")


def test_a_report_that_fails_costs_no_results(run_job, workspace, capsys, monkeypatch):
    def broken(*arguments):
        raise ValueError("the ink is out.")

    monkeypatch.setattr("src.report.finished_jobs.build_report", broken)
    assert run_job("attack=fgsm", "report=default") == 1
    printed = capsys.readouterr().out
    assert "No report: the ink is out." in printed and "Traceback" not in printed
    (folder,) = (workspace / "outputs").iterdir()
    assert (folder / "predictions.parquet").exists() and f"folder=outputs/{folder.name}" in printed


def test_a_report_says_how_many_jobs_are_not_done(report, workspace, capsys, monkeypatch):
    job = REPOSITORY / "docs" / "results" / "demo" / "0-fgsm-vgg_small"
    shutil.copytree(job, workspace / "part" / "0-a")
    (workspace / "part" / "0-a" / ".hydra").mkdir()
    (workspace / "part" / "0-a" / ".hydra" / "config.yaml").write_text("sweep: a\n")
    jobs = ["attack=fgsm", "attack=mi"]
    write_manifest(workspace / "part", SweepManifest(jobs=jobs, single=False, id="a"))
    monkeypatch.setattr("src.report.finished_jobs.write_report", lambda *_: None)
    assert report("part") == 0
    assert "part: 1 of 2 jobs are not done." in capsys.readouterr().out
    (workspace / "all").mkdir()
    (workspace / "part").rename(workspace / "all" / "a=[b")
    for words in (["all/a=[b", "all/../all/a=[b", "all"], ["all/a=[b"], ["all"]):
        assert report(*words, "out=page") == 0
        assert capsys.readouterr().out.count("all/a=[b: 1 of 2 jobs are not done.") == 1
    (workspace / "all" / "a=[b" / "sweep.json").write_text("{")
    monkeypatch.undo()
    monkeypatch.chdir(workspace)
    assert report("all", "out=page") == 2
    assert "sweep.json is damaged" in capsys.readouterr().err
    assert not (workspace / "page").exists()


REFUSED = [
    ([], "no sweep in outputs/"),
    (["gone"], "gone does not exist"),
    (["gone(1", "strange"], "gone(1 does not exist"),
    (["folder=strange"], "cannot be read as a parquet file"),
    (["folder="], "is empty"),
    (["report.example=3"], "report.examples"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(w) for w, _ in REFUSED])
def test_bad_input_is_refused_in_a_sentence(report, workspace, capfd, words, message):
    (workspace / "strange").mkdir()
    (workspace / "strange" / "x.parquet").write_text("no table")
    assert report(*words) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert message in line and not out
    assert not (workspace / "mlruns").exists()
