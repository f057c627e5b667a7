"""From a sweep's tables to its report and its audit, and from copies of the tables alone."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from src import tries
from src.analysis import Outcomes
from src.analysis.tries import class_success
from src.artifacts.jobs import find_jobs
from src.artifacts.sweep_state import SweepManifest, write_manifest
from src.report.audit import audited as add_audits
from src.report.results import results_of
from tests.analysis.conftest import outcomes_of_arrays
from tests.conftest import REPOSITORY, TINY_RUN, block_of
from tests.report.conftest import make_sweep

OWN = ("source=", "dataset=", "report=", "epsilon.", "targets=", "n_images=")
WORDS = [word for word in TINY_RUN if not word.startswith(OWN)]
WORDS += ["-m", "experiment=audit", "source=coarse", "attack=fgsm,bim", "n_images=60"]
SENTENCE = re.compile(
    r"With (\d+) candidates? from 1 source an attacker fools ([\d.]+)%.* of the (\d+) images of 60 "
    r"that (\S+) classifies correctly, at 4/255(?:; with (\d+), ([\d.]+)%)?"
)


@pytest.fixture
def report(workspace, run_in):
    """A function that runs `python -m src.report` here and returns its exit code."""
    return partial(run_in, workspace, module="src.report.__main__")


def test_a_report_that_fails_costs_no_results(run_job, workspace, capsys, monkeypatch):
    def broken(*arguments):
        raise ValueError("the ink is out.")

    monkeypatch.setattr("src.report.finished_jobs.build_report", broken)
    assert run_job("attack=fgsm", "report=default") == 1
    printed = capsys.readouterr().out
    assert "No report: the ink is out." in printed and "Traceback" not in printed
    (folder,) = (workspace / "outputs").iterdir()
    assert (folder / "predictions.parquet").exists() and f"folder=outputs/{folder.name}" in printed


def test_a_report_says_how_many_jobs_are_not_done(report, workspace, capsys):
    folder = workspace / "all" / "a=[b"
    shutil.copytree(REPOSITORY / "docs" / "results" / "demo" / "0-fgsm-vgg_small", folder / "0-a")
    (folder / "0-a" / ".hydra").mkdir()
    (folder / "0-a" / ".hydra" / "config.yaml").write_text("sweep: a\n")
    manifest = SweepManifest(jobs=["attack=fgsm", "attack=mi"], single=False, id="a")
    write_manifest(folder, manifest)
    assert report("all/a=[b", "all/../all/a=[b", "all", "out=page") == 0
    assert capsys.readouterr().out.count("all/a=[b: 1 of 2 jobs are not done.") == 1
    (folder / "sweep.json").write_text("{")
    assert report("all", "out=page") == 2
    assert "sweep.json cannot be read as a list of jobs" in capsys.readouterr().err


def test_bad_input_is_refused_in_a_sentence(report, workspace, capfd):
    (workspace / "strange").mkdir()
    (workspace / "strange" / "x.parquet").write_text("no table")
    for words, message in (
        ([], "no sweep in outputs/"),
        (["gone"], "gone does not exist"),
        (["folder=strange"], "cannot be read as a parquet file"),
        (["folder="], "is empty"),
        (["report.example=3"], "report.examples"),
    ):
        assert report(*words) == 2
        out, err = capfd.readouterr()
        (line,) = err.splitlines()
        assert message in line and not out


@pytest.fixture(scope="module")
def audited(new_workspace, run_in, printed_by):
    """The workspace of an audit of `fine`, also behind JPEG, and what the command has printed."""
    folder = new_workspace()
    words = ["targets=[fine,coarse]", "defences=[none,jpeg]", "hydra.sweep.dir=out"]
    code, printed = printed_by(run_in, folder, *WORDS, *words)
    assert code == 0
    return folder / "out", printed


def test_the_audit_is_that_of_the_stored_predictions_on_page_summary_and_terminal(audited):
    folder, printed = audited
    rows = pd.concat(pd.read_parquet(path) for path in folder.glob("*/predictions.parquet"))
    rows = rows.assign(right=rows["predicted"] == rows["label"])
    page, summary = block_of(folder / "report.html"), (folder / "summary.txt").read_text()
    (screen,) = json.loads(page)["screens"]
    assert screen["axes"]["defence"] == ["fine"] and screen["axes"]["attack"] == ["none", "jpeg"]
    drawn = {row["name"]: row for row in screen["rankings"]["0.0.2"]["rows"] if "name" in row}
    said = {found[4]: found for found in map(SENTENCE.search, printed.splitlines()) if found}
    assert said.keys() == {"fine", "fine@jpeg"}  # the only source of the others is coarse
    for target, found in said.items():
        name, _, defence = target.partition("@")
        its = rows[(rows["target"] == name) & (rows["defence"] == (defence or "none"))]
        units = {*its.loc[(its["eps_255"] == 0) & its["right"], "index"]}
        attacked = its[(its["eps_255"] == 4) & its["index"].isin(units)]
        left = attacked.groupby("index")["right"].all()
        reached, few, less = float(found[2]), int(found[5] or 1), float(found[6] or found[2])
        assert found[1] == "2" and reached == pytest.approx(100 * (1 - left.mean()), abs=0.051)
        assert few == 1 and 0.95 * reached <= less + 0.051
        assert int(found[3]) == len(units) and f"of the {len(units)} images, of 60" in page
        fooled, row = len(units) - left.sum(), drawn[defence or "none"]
        assert [count for count, _ in row["parts"]] == [left.sum(), fooled, 60 - len(units)]
        assert row["behind"] == f"{fooled} / {len(units)}"
        assert found[0] in summary
    for target in ("coarse", "coarse@jpeg"):
        assert all(f"{target}: No image is left" in text for text in (printed, summary, page))
    assert {job.record.protocol for job in find_jobs([folder])} == {"target_correct"}


def audits_of(jobs):
    return add_audits(results_of(jobs)).audits


def test_an_audit_counts_as_tries_does_on_what_rankings_compare(tmp_path):
    """Related sources are skipped, and units are the target's, whatever the sweep's protocol."""
    axes = {"attacks": ("fgsm", "bim"), "budgets": (2.0, 8.0), "full": False, "images": 60}
    sweep = make_sweep(tmp_path / "a", targets=("vit",), alike=("vit", "vgg"), **axes)
    jobs = [job for job in find_jobs([sweep]) if job.record.source != "vit"]
    expected = tries(results_of(jobs))
    assert expected["candidates"].iloc[0] == 2 and len(expected) == 2
    for protocol in ("joint", "all"):
        update = {"protocol": protocol}
        changed = [replace(job, record=job.record.model_copy(update=update)) for job in jobs]
        (audit,) = audits_of(changed)
        pd.testing.assert_frame_equal(audit.tries, expected)
        assert f"of the {expected['images'].iloc[0]} images of 60 that vit" in audit.sentence
    attacked = [job for job in jobs if job.attacked]
    for differing, said in (({"data": "other"}, "images (60"), ({"norm": "l2"}, "norm (linf, l2)")):
        last = replace(attacked[-1], record=attacked[-1].record.model_copy(update=differing))
        (audit,) = audits_of([*attacked[:-1], last])
        assert audit.sentence.startswith("No audit: tries needs") and said in audit.sentence


def candidates(fooled, counted) -> Outcomes:
    """Return the outcomes of one attack per row of `fooled`, from one source, on one target."""
    jobs = [(f"attack {number}", "s") for number in range(len(fooled))]
    return outcomes_of_arrays(jobs, "t", fooled[:, None], counted)


def test_classes_are_counted_and_compared():
    """With many images the permutation test agrees with Pearson's, which it is a form of."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 4000)
    for shift in (0, 0.04, 0.1):
        fooled = random.random((2, 4000)) < 0.3 + shift * (labels == 2)
        rows, p = class_success(candidates(fooled, np.arange(4000) >= 300), labels)
        counts = pd.Series(fooled.any(axis=0)[300:]).groupby(labels[300:]).agg(["sum", "size"])
        found = rows.set_index("label").sort_index()
        assert found["fooled"].tolist() == counts["sum"].tolist()
        assert found["n"].tolist() == counts["size"].tolist()
        assert (rows["fooled"] / rows["n"]).is_monotonic_decreasing
        pearson = chi2_contingency([counts["sum"], counts["size"] - counts["sum"]]).pvalue
        assert p == pytest.approx(pearson, abs=0.02)
    alone = candidates(random.random((1, 40)) < 0.5, np.ones(40, bool))
    assert class_success(alone, np.arange(40))[1] == 1  # a class per image tells nothing
