"""`experiment=audit`: from the command to its sentence, compared with the stored predictions."""

import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.stats import chi2_contingency

from src import tries
from src.analysis.tries import class_success, success_within
from src.artifacts.jobs import FinishedJob, find_jobs
from src.attacks.__main__ import listed
from src.report.audit import audited as add_audits
from src.report.beside import read_preset
from src.report.page.frame import build_report
from src.report.results import results_of
from tests.analysis.test_tries import outcomes_of
from tests.conftest import REPOSITORY, TINY_RUN, block_of
from tests.records import frame_of_sweep, jobs_of_frame
from tests.report.conftest import make_sweep

AUDIT = REPOSITORY / "conf" / "experiment" / "audit.yaml"
OWN = ("source=", "dataset=", "report=", "epsilon.", "targets=", "n_images=")
WORDS = [word for word in TINY_RUN if not word.startswith(OWN)]
WORDS += ["-m", "experiment=audit", "source=coarse", "attack=fgsm,bim", "n_images=60"]
SENTENCE = re.compile(
    r"With (\d+) candidates? from 1 source an attacker fools ([\d.]+)%.* of the (\d+) images of 60 "
    r"that (\S+) classifies correctly, at 4/255(?:; with (\d+), ([\d.]+)%)?"
)


def audited_of(jobs):
    """Return the audits of jobs."""
    return add_audits(results_of(jobs)).audits


@pytest.fixture(scope="module")
def computed():
    """The targets whose audits the command of `audited` has computed, once per computation."""
    return []


@pytest.fixture(scope="module")
def audited(new_workspace, run_in, printed_by, computed):
    """The workspace of an audit of `fine`, also behind JPEG, and what the command has printed."""

    def counting(outcomes, costs):
        computed.append(str(outcomes.targets[0]))
        return success_within(outcomes, costs)

    folder = new_workspace()
    words = ["targets=[fine,coarse]", "defences=[none,jpeg]", "hydra.sweep.dir=out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.audit.success_within", counting)
        code, printed = printed_by(run_in, folder, *WORDS, *words)
    assert code == 0
    return folder, printed


def test_the_sentence_is_that_of_the_stored_predictions_on_page_and_terminal(audited):
    folder, printed = audited
    rows = pd.concat(pd.read_parquet(path) for path in folder.glob("out/*/predictions.parquet"))
    rows = rows.assign(right=rows["predicted"] == rows["label"])
    said = {target: numbers for *numbers, target in map(_numbers, SENTENCE.findall(printed))}
    assert said.keys() == {"fine", "fine@jpeg"}  # the only source of the others is coarse
    assert "coarse: No image is left" in printed and "coarse@jpeg: No image is left" in printed
    (screen,) = json.loads(block_of(folder / "out" / "report.html"))["screens"]
    assert screen["axes"]["defence"] == ["fine"] and screen["axes"]["attack"] == ["none", "jpeg"]
    drawn = {row["name"]: row for row in screen["rankings"]["0.0.2"]["rows"] if "name" in row}
    for target, (q, reached, images, few, less) in said.items():
        name, _, defence = target.partition("@")
        its = rows[(rows["target"] == name) & (rows["defence"] == (defence or "none"))]
        units = {*its.loc[(its["eps_255"] == 0) & its["right"], "index"]}
        attacked = its[(its["eps_255"] == 4) & its["index"].isin(units)]
        left = attacked.groupby("index")["right"].all()
        assert q == 2 and reached == pytest.approx(100 * (1 - left.mean()), abs=0.051)
        assert few < q and 0.95 * reached <= less + 0.051
        assert images == len(units)
        fooled, row = len(units) - left.sum(), drawn[defence or "none"]
        assert [count for count, _ in row["parts"]] == [left.sum(), fooled, 60 - len(units)]
        assert row["behind"] == f"{fooled} / {len(units)}"


def _numbers(found: tuple[str, ...]) -> tuple[int, float, int, int, float, str]:
    q, share, images, target, few, less = found
    return int(q), float(share), int(images), int(few or 1), float(less or share), target


def test_page_and_summary_show_the_audit(audited):
    folder, printed = audited
    page = block_of(folder / "out" / "report.html")
    summary = (folder / "out" / "summary.txt").read_text()
    for line in printed.splitlines():
        if (found := SENTENCE.search(line)) or line.startswith("Classes"):
            assert line in summary
            assert (f"of the {found[3]} images, of 60" if found else line) in page
    assert "coarse: No image is left" in page
    assert {job.record.protocol for job in find_jobs([folder / "out"])} == {"target_correct"}


@pytest.mark.usefixtures("audited")
def test_a_sweep_computes_each_audit_once(computed):
    """The terminal, the summary file, the page and the figure show one computation."""
    assert sorted(computed) == ["coarse", "coarse@jpeg", "fine", "fine@jpeg"]


def test_an_audit_counts_as_tries_does_whatever_the_sweep_kept(tmp_path):
    """Related sources are skipped, and units are the target's, whatever the sweep's protocol."""
    axes = {"attacks": ("fgsm", "bim"), "budgets": (2.0, 8.0), "full": False, "images": 60}
    sweep = make_sweep(tmp_path / "a", targets=("vit",), alike=("vit", "vgg"), **axes)
    jobs = find_jobs([sweep])
    jobs = [job for job in jobs if job.record.source != "vit"]
    expected = tries(results_of(jobs))
    assert expected["candidates"].iloc[0] == 2 and len(expected) == 2
    for protocol in ("joint", "all"):
        update = {"protocol": protocol}
        changed = [replace(job, record=job.record.model_copy(update=update)) for job in jobs]
        (audit,) = audited_of(changed)
        pd.testing.assert_frame_equal(audit.tries, expected)
        assert f"of the {expected['images'].iloc[0]} images of 60 that vit" in audit.sentence


@pytest.mark.parametrize(
    ("differing", "said"), [({"data": "other"}, "images (60"), ({"norm": "l2"}, "norm (l2, linf)")]
)
def test_jobs_that_no_ranking_compares_have_no_audit(tmp_path, differing, said):
    axes = {"targets": ("vit",), "attacks": ("fgsm",), "full": False, "images": 60}
    jobs = [job for job in find_jobs([make_sweep(tmp_path / "a", **axes)]) if job.attacked]
    record = jobs[0].record.model_copy(update=differing)
    (audit,) = audited_of([replace(jobs[0], record=record), *jobs[1:]])
    assert audit.sentence.startswith("No audit: tries needs") and said in audit.sentence


@pytest.mark.parametrize(
    ("fooled", "needed"),
    [
        ((49, 2), r"With 2 candidates from 1 source an attacker fools 51.0%.*; with 1, 49.0%\."),
        ((40, 9), r"fools 49.0%.*at 8/255\."),
        ((0, 0), r"fools 0.0%.*; with 1, 0.0%\."),
    ],
)
def test_the_fewest_that_fool_95_percent_as_many_are_named(tmp_path, fooled, needed):
    axes = {"models": ("s", "t"), "sources": ("s",), "targets": ("t",), "images": 100}
    sweep = make_sweep(tmp_path / "a", attacks=("a", "b"), budgets=(8.0,), full=False, **axes)
    for number, (first, end) in enumerate([(0, fooled[0]), (fooled[0], sum(fooled))]):
        path = sweep / f"{number}-job" / "predictions.parquet"
        table = pq.read_table(path)
        rows = table.to_pandas()
        wrong = (rows["eps_255"] > 0) & rows["index"].between(first, end - 1)
        place = table.schema.get_field_index("predicted")
        predicted = pa.array((rows["label"] + wrong) % 6, table.schema.field(place).type)
        pq.write_table(table.set_column(place, table.schema.field(place), predicted), path)
    (audit,) = audited_of(find_jobs([sweep]))
    assert re.search(needed, audit.sentence)


def test_a_defence_that_a_try_lacks_is_compared_on_the_others(tmp_path):
    """And images without a prediction are neither fooled nor called robust."""
    axes = {"models": ("s", "t"), "budgets": (8.0,), "full": False, "images": 60}
    place = tmp_path / "some"
    some = make_sweep(place, attacks=("a",), defences=("r", "r2"), sources=("s@r2",), **axes)
    more = make_sweep(tmp_path / "more", attacks=("b",), sources=("s",), **axes)
    frame = frame_of_sweep(some, more)
    silent = (frame["defence"] == "r") & (frame["eps_255"] > 0) & (frame["index"] % 4 == 0)
    frame.loc[silent, "predicted"] = -1
    results = add_audits(results_of(jobs_of_frame(frame)))
    of_t = [its.fooled for its in results.audits if its.fooled is not None]
    plain, behind, _ = (fooled["a", "s@r2"] for fooled in of_t)
    report = build_report(results)
    (screen,) = report.page["screens"]
    rows = screen["rankings"]["0.0.2"]["rows"]
    row = next(its for its in rows if its.get("name") == "r")
    assert row["behind"] == f"{behind.sum()} / {len(behind)}" and row["q"] == 1
    texts = " ".join(its.get("heading", "") for its in rows)
    stopped = (plain & ~behind.reindex(plain.index, fill_value=True)).sum()
    assert f"With 1 try, r stops {stopped} of the {plain[behind.index].sum()}" in texts
    assert "does not know of r;" in texts and "does not know of r2;" not in texts
    assert [title.startswith("robust") for title, *_ in screen["tiles"]["0.2"]] == [0, 1, 0]
    job = json.loads(zlib.decompress(report.blocks["job-tries-0"]))
    there = np.array(job["predicted"], float).reshape(3, 3, 60)[:, :, 0] >= -1
    tried = screen["order"][0].index(("a", "s@r2")) + 1
    assert np.argwhere(~there).tolist() == [[1, 3 - tried], [2, 3 - tried]]


def test_a_page_of_which_no_image_counts_says_so(tmp_path):
    frame = frame_of_sweep(make_sweep(tmp_path / "a", full=False, budgets=(8.0,), images=20))
    clean = frame["eps_255"] == 0
    frame.loc[clean, "predicted"] = (frame["label"] + 1) % 6
    assert (
        build_report(add_audits(results_of(jobs_of_frame(frame)))).answer[0].startswith("Too few")
    )


def test_classes_are_counted_and_compared():
    """With many images the permutation test agrees with Pearson's, which it is a form of."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 4000)
    counted = np.ones((2, 1, 4000), bool)
    counted[:, 0, :300] = False
    for shift in (0, 0.04, 0.1):
        fooled = random.random((2, 1, 4000)) < 0.3 + shift * (labels == 2)
        rows, p = class_success(outcomes_of([("a", "s"), ("b", "s")], "t", fooled, counted), labels)
        counts = pd.Series(fooled.any(axis=0)[0, 300:]).groupby(labels[300:]).agg(["sum", "size"])
        found = rows.set_index("label").sort_index()
        assert found["fooled"].tolist() == counts["sum"].tolist()
        assert found["n"].tolist() == counts["size"].tolist()
        assert (rows["fooled"] / rows["n"]).is_monotonic_decreasing
        pearson = chi2_contingency([counts["sum"], counts["size"] - counts["sum"]]).pvalue
        assert p == pytest.approx(pearson, abs=0.02)
    alone = outcomes_of([("a", "s")], "t", random.random((1, 1, 40)) < 0.5)
    assert class_success(alone, np.arange(40))[1] == 1  # a class per image tells nothing


@pytest.mark.parametrize("aimed", [False, True])
def test_the_classes_most_often_fooled_have_the_share_fooled(tmp_path, aimed):
    small = {"attacks": ("fgsm",), "budgets": (8.0,), "full": False, "targets": ("vit",)}
    frame = frame_of_sweep(make_sweep(tmp_path / "a", **small, aimed=aimed))
    attacked, cat = frame["eps_255"] > 0, frame["label"] == 0
    goal = (frame["label"] + 1) % 6  # the class that these targeted attacks aim for
    frame.loc[attacked, "predicted"] = goal.where(cat | (frame["index"] % 4 == 0), frame["label"])
    clean = frame[(frame["target"] == "vit") & ~attacked].drop_duplicates("index")
    right = clean[clean["predicted"] == clean["label"]]
    (audit,) = audited_of(jobs_of_frame(frame))
    assert ("reaches the target class on" in audit.sentence) == aimed
    cats, dogs = (int((right["label"] == label).sum()) for label in (0, 1))
    assert audit.classes.startswith(f"Classes most often fooled: cat {cats} / {cats}, ")
    k = int((right["index"] % 4 == 0)[right["label"] == 1].sum())
    assert "dog" not in audit.classes or f"dog {k} / {dogs}" in audit.classes


@pytest.mark.slow
def test_the_attacks_are_the_first_of_the_stored_ones():
    """Of those that work with any network at up to 20 gradients, in the order that tries learns."""
    params = yaml.safe_load(AUDIT.read_text())["hydra"]["sweeper"]["params"]
    sources = {*params["source"].split(",")}
    able = {name for name, _, about in listed() if not (about.needs or about.fit_gradients)}
    jobs = dict[str, list[FinishedJob]]()
    for job in read_preset("small")[1]:
        if job.row_title == job.record.attack and job.record.attack in able:
            jobs.setdefault(job.record.attack, []).append(job)
    chosen = []
    for its in jobs.values():
        cost = max(job.record.gradients / job.record.images for job in its)
        if {job.record.source for job in its} == sources and cost <= 20:
            chosen += its
    code = chosen[0].record.code  # later versions gave the same rows
    alike = [replace(job, record=job.record.model_copy(update={"code": code})) for job in chosen]
    order = list(dict.fromkeys(tries(results_of(alike))["attack"]))
    assert order[:4] == params["attack"].split(",")[:4]
