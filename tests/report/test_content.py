"""The report's first sentence, its alarms, and what is compared."""

import io
import json
import re
import shutil
import zlib
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from src import rankings, table
from src.artifacts.jobs import find_jobs
from src.artifacts.record import read_record, with_record
from src.report.named_tables import matrices
from src.report.page.frame import build_report
from src.report.page.images import MOST_BYTES
from src.report.results import results_of
from src.report.shown import shown_of
from src.report.source_choice import choose_source
from tests.report.conftest import make_sweep
from tests.report.test_selections import value


def report_of(folders):
    return build_report(results_of(find_jobs(folders)))


@pytest.mark.slow
def test_attacks_on_other_images_are_ranked_apart(tmp_path):
    words = {"models": ("a", "b", "c", "d"), "budgets": (8.0,), "full": False}
    make_sweep(tmp_path / "one", attacks=("mi", "di"), **words)
    make_sweep(tmp_path / "other", attacks=("ti",), images=60, **words)
    results = results_of(find_jobs([tmp_path / "one", tmp_path / "other"]))
    report = build_report(results)
    shown = shown_of(results).ranking.query("of == 'mean of sources'")
    counts = [int(re.search(r"(\d+) images", text)[1]) for text in shown["heading"]]
    assert shown["part"].tolist() == [0, 0, 1]
    assert counts[0] == counts[1] > counts[2] == shown["images"].iloc[-1]
    assert shown["attack"].iloc[-1] == "ti" and shown["undecided"].iloc[-1] == ""
    assert shown["attack"].iloc[0] in "".join(report.answer[:2])
    attacks = [its.page["axes"]["attack"] for its in report.sweeps.values()]
    assert [*map(sorted, attacks)] == [["di", "mi"], ["ti"]]


def test_attacks_of_a_group_with_one_source_are_ranked_for_it(tmp_path):
    make_sweep(tmp_path / "one", budgets=(8.0,))
    make_sweep(tmp_path / "other", attacks=("ti",), sources=("vit",), images=60, budgets=(8.0,))
    ranking = shown_of(results_of(find_jobs([tmp_path / "one", tmp_path / "other"]))).ranking
    over = ranking[(ranking["of"] == "mean of sources") & (ranking["attack"] == "ti")]
    assert list(over["rank"]) == [1.0] and list(over["lacks"]) == [""]


@pytest.mark.slow
def test_ensembles_are_ranked_apart(make_sweep):
    sources = ("vgg", "resnet", "vgg+resnet")
    folder = make_sweep(attacks=("mi", "di"), sources=sources, budgets=(8.0,))
    results = results_of(find_jobs([folder]))
    report, ranking = build_report(results), shown_of(results).ranking
    shown = ranking[(ranking["of"] == "mean of sources") & (ranking["eps_255"] == 8)]
    assert list(shown["heading"]) == ["untargeted"] * 2 + ["untargeted of ensembles"] * 2
    assert list(shown["source"].iloc[[0, 2]]) == ["mean of sources", "vgg+resnet"]
    assert "leaves out white boxes" in report.answer[2]
    assert (
        report.page["means"] == ["mean of 2 sources"] * 2
        and "vgg+resnet" in report.page["axes"]["source"]
    )


def test_an_ensemble_is_a_source_for_targets_that_are_no_member_of_it(make_sweep):
    names = ("a", "b", "c", "d", "e")
    folder = make_sweep(models=names, sources=("a", "b", "c", "a+b"), budgets=(8.0,))
    found = choose_source([folder])
    assert set(found.ranking["source"]) == {"a", "b", "c"}  # ensembles are ranked apart
    rows = found.choices.set_index("target")
    assert rows["candidates"].dropna().to_dict() == {"a": 2, "b": 2, "c": 3, "d": 4, "e": 4}
    assert rows.loc["e", "any"] < rows.loc["e", "best_2"]


@pytest.mark.slow
def test_related_pairs_are_named_and_left_out_of_rankings_and_tables_on_demand(make_sweep):
    folder = make_sweep(alike=("vgg", "resnet"), budgets=(8.0,))
    rates = results_of(find_jobs([folder])).rows[0][0].rates
    assert set(rates["target"][rates["overlap"] == "same weights"]) == {"vgg", "resnet"}
    for related, counts in ((True, [2, 2]), (False, [1, 2])):
        targets = rankings(folder, related=related).groupby("source")["targets"].max()
        assert targets[["vgg", "vit"]].tolist() == counts
    words = {"rows": "source", "related": False}
    cells = pd.read_csv(io.StringIO(table(folder, to="csv", **words)), index_col=0)
    assert (cells["average"] == cells["vit"]).loc[["vgg", "resnet"]].all()
    assert "without related pairs" in table(folder, to="markdown", **words)
    with pytest.raises(ValueError, match="True, or False"):
        rankings(folder, related="exclude")


def test_a_single_model_fools_itself_and_alarms_stand_once_with_their_causes(make_sweep):
    folder = make_sweep(models=("a",), attacks=("fgsm", "bim"), budgets=(8.0,))
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = report_of([folder])
    assert report.page["first"]["view"] == "images" and report.page["first"]["target"] == "a"
    assert report.answer[0] in ("fgsm", "bim") and "fools a (white box) on" in report.answer[1]
    few, unknown = report.alarms
    assert few[0] == "few_images: a -> b: 3 images counted (joint)" and "rates of fewer" in few[1]
    assert unknown == ("of_a_later_version: something", "")


def test_the_page_of_one_source_with_other_targets_opens_with_its_transfer(
    made_up, results_of_kind
):
    report, rows = made_up("one source"), results_of_kind("one source").rankings
    best = rows[rows["eps_255"] == 8].sort_values("rank").iloc[0]
    assert report.page["first"]["view"] == "results" and best["attack"] in report.answer[0]


def test_a_source_without_adversarial_images_of_its_own_has_no_row(made_up):
    blocks = made_up("sources that are no targets").blocks
    jobs = [json.loads(zlib.decompress(its)) for name, its in blocks.items() if "job" in name]
    assert {job["source"] for job in jobs} == {"a", "b"}
    for job in jobs:
        assert {name for name, _ in job["models"]} == {"vgg", "resnet", "vit", "mixer"}
        assert None not in job["predicted"]


@pytest.mark.parametrize("main", ["uint8", "float32"])
def test_table_page_and_terminal_show_the_main_storage_and_name_it(make_sweep, main):
    folder = make_sweep(full=True, budgets=(8.0,), storage=main)
    results = results_of(find_jobs([folder]))
    rates = results.frame.query("reference and source != 'mean' and target != 'mean'")
    rates = rates.set_index(["variant", "source", "target"])["success_rate"].unstack("variant")
    other = "float32" if main == "uint8" else "uint8"
    assert not rates[main].equals(rates[other])
    cells = pd.read_csv(io.StringIO(table(folder, to="csv"))).set_index("source")
    page, caption = build_report(results).page, table(folder, to="markdown")
    places = {"attack": "fgsm", "defence": "none", "protocol": "joint"}
    for (source, target), rate in rates[main].items():
        assert cells.loc[source, target] == pytest.approx(rate)
        place = {**places, "source": source, "target": target, "eps_255": 8.0}
        assert value(page, "fooled", **place) == pytest.approx(rate, abs=6e-5)
    headings = " ".join(grid.caption for forms in matrices(results).values() for grid in forms)
    for text in (page["subtitle"], caption, headings):
        assert ("as uint8" in text) == (main == "uint8")


def test_a_job_that_two_sweeps_computed_has_the_tables_of_both(make_sweep, tmp_path):
    one, two = make_sweep(full=True), tmp_path / "two"
    shutil.copytree(one, two)
    for folder, name in ((one, "noise"), (two, "uint8")):
        for path in folder.glob(f"*/predictions-{name}.parquet"):
            path.unlink()
    alone, both = find_jobs([one]), find_jobs([one, two])
    assert [job.attack for job in both] == [job.attack for job in alone] == ["fgsm"] * 3
    assert {tuple(job.variants()) for job in alone} == {("float32", "uint8")}
    assert {tuple(job.variants()) for job in both} == {("float32", "uint8", "noise")}


def changed(job, **changes):
    """Return a job whose record has other values."""
    return replace(job, record=job.record.model_copy(update=changes))


def test_sources_of_saved_sets_are_ranked_though_their_weights_are_unknown(make_sweep):
    targets = ("vgg", "resnet", "vit", "mixer")
    folder = make_sweep(models=("a", "b", *targets), sources=("a", "b"), targets=targets)
    for file in folder.rglob("*.parquet"):
        name, record = read_record(file)
        rows = pq.read_table(file)
        weights = {target: record.weights[target] for target in targets}
        record = record.model_copy(update={"weights": weights, "protocol": "target_correct"})
        rows = rows.filter(pc.is_in(rows["target"], pa.array(targets)))
        pq.write_table(with_record(rows, name, record), file)
    choice = choose_source([folder])
    assert set(choice.ranking["source"]) == {"a", "b"}


@pytest.mark.slow
def test_pictures_and_predictions_stop_where_the_page_is_full_and_the_jobs_are_named(
    make_sweep, monkeypatch
):
    folder = make_sweep(full=True, budgets=(8.0,))
    whole = report_of([folder]).page
    assert len(whole["jobs"]) == 3 and not whole["left_out"]
    monkeypatch.setitem(MOST_BYTES, "pictures", -1)
    monkeypatch.setitem(MOST_BYTES, "job", 1)
    cut = report_of([folder])
    assert len(cut.page["jobs"]) == 1 and zlib.decompress(cut.blocks["pictures-0"]) == b""
    lacking = cut.page["left_out"]
    assert len(lacking) == 2 and all(str(folder) in command for *_, command in lacking)
