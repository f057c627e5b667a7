"""The report's first sentence, its alarms, and what is compared."""

import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from src import rankings, table
from src.artifacts.jobs import find_jobs
from src.artifacts.record import read_record, with_record
from src.report.page.content import build_report
from src.report.page.page_data import compute_page_data
from src.report.sections import comparisons as compared
from src.report.source_choice import choose_source
from src.report.summary import summarise
from tests.report.conftest import make_sweep


def report_of(folders):
    return build_report(summarise(find_jobs(folders)))


def test_the_first_sentence_says_who_wins_and_whether_that_is_decided(made_up):
    report = made_up("ordinary")
    (ranking,) = (one.data for one in report.figures if one.name == "ranking")
    ranking = ranking[ranking["eps_255"] == 8]
    first, second = ranking[ranking["source"] == "mean of sources"].to_dict("records")
    lead, sentence, details = report.answer
    assert lead.startswith(first["attack"]) and f"on {first['mean']:.0%} of images" in sentence
    assert second["attack"] in sentence
    assert ("transfers best" in lead) == ("p < 0.05" in sentence) == (second["undecided"] == "no")
    assert len(re.findall(r"(?<![\w/.])[\d.]+", sentence)) <= 4  # budget, share, difference, p
    assert f"{first['low']:.1%}" in details
    assert "needs 10 counted images" in made_up("one image").answer.sentence


def test_of_one_attack_the_sources_are_ranked(make_sweep):
    summary = summarise(find_jobs([make_sweep()]))
    at_8 = summary.rankings["eps_255"] == 8
    best = summary.rankings[at_8 & ~summary.rankings["source"].str.match("mean of")]
    best = best.loc[best["mean"].idxmax()]
    lead, sentence, _ = build_report(summary).answer
    assert lead.startswith(f"fgsm from {best['source']}") and f"{best['mean']:.0%}" in sentence


def test_sources_are_ranked_at_every_budget_as_their_table_has_it(make_sweep):
    folder = make_sweep(models=("a", "b", "c", "d"), attacks=("mi", "di"), budgets=(2.0, 8.0))
    summary = summarise(find_jobs([folder]))
    report = build_report(summary)
    (shown,) = (one.data for one in report.figures if one.name == "sources-ranked")
    assert set(shown["eps_255"]) == {2.0, 8.0} and list(report.answers) == [8.0, 2.0]
    keys = ["eps_255", "attack", "source", "at"]
    both = shown.merge(summary.sources, left_on=keys, right_on=[*keys[:3], "rank"])
    assert len(both) == len(shown) == 2 * 3 * 4  # budgets, attacks and their mean, sources
    for name in ("mean", "difference", "difference_low", "p"):
        pd.testing.assert_series_equal(both[f"{name}_x"], both[f"{name}_y"], check_names=False)


def test_attacks_on_other_images_are_ranked_apart(tmp_path):
    words = {"models": ("a", "b", "c", "d"), "budgets": (8.0,), "full": False}
    make_sweep(tmp_path / "one", attacks=("mi", "di"), **words)
    make_sweep(tmp_path / "other", attacks=("ti",), images=60, **words)
    report = report_of([tmp_path / "one", tmp_path / "other"])
    tables = {one.name: one.data for one in report.figures}
    shown = tables["ranking"].dropna(subset="position")
    counts = [int(re.search(r"(\d+) images", text)[1]) for text in shown["heading"] if text]
    assert shown["heading"].ne("").tolist() == [True, False, False, True, False]
    assert counts[0] > counts[1] == shown["images"].iloc[-1]
    assert shown["attack"].iloc[-1] == "ti" and shown["undecided"].iloc[-1] == ""
    assert report.answer.lead.startswith(shown["attack"].iloc[1])
    assert set(tables["sources-ranked"]["attack"]) >= {"mi", "di", "ti"}


def test_ensembles_are_ranked_apart(make_sweep):
    folder = make_sweep(attacks=("mi", "di"), sources=("vgg", "resnet", "vgg+resnet"))
    report = report_of([folder])
    (ranking,) = (one.data for one in report.figures if one.name == "ranking")
    shown = ranking[ranking["position"].notna() & (ranking["eps_255"] == 8)]
    assert list(shown["heading"]) == ["untargeted", "", "", "untargeted of ensembles", "", ""]
    assert list(shown["source"].iloc[[1, 4]]) == ["mean of sources", "vgg+resnet"]
    assert "mean of 2 sources" in report.answer.details


def test_an_ensemble_is_a_source_for_targets_that_are_no_member_of_it(make_sweep):
    names = ("a", "b", "c", "d", "e")
    folder = make_sweep(models=names, sources=("a", "b", "c", "a+b"), budgets=(8.0,))
    found = choose_source([folder])
    assert set(found.profiles["source"]) == {"a", "b", "c"}  # ensembles are ranked apart
    rows = found.choices.set_index("target")
    assert rows["candidates"].dropna().to_dict() == {"a": 2, "b": 2, "c": 3, "d": 4, "e": 4}
    place = found.transfer.targets.index("e")
    rates = dict(zip(found.transfer.sources, found.transfer.rates[:, place], strict=True))
    assert rows.loc["e", "most"] <= max(rates.values())  # chosen on one half, judged on the other
    assert rows.loc["e", "any"] == pytest.approx(np.mean(list(rates.values())), abs=0.02)
    assert (found.predictors["pairs"] == 3 * 5 - 3).all()  # measures are of two models


def test_related_pairs_have_a_tag_and_are_left_out_of_rankings_where_this_is_asked_for(make_sweep):
    folder = make_sweep(alike=("vgg", "resnet"))
    jobs = find_jobs([folder])
    kept, left = (summarise(jobs, related) for related in ("keep", "exclude"))
    rates = kept.jobs[0].rates
    assert set(rates["target"][rates["overlap"] == "same weights"]) == {"vgg", "resnet"}
    targets = [its.rankings.groupby("source")["targets"].max() for its in (kept, left)]
    assert targets[0][["vgg", "vit"]].tolist() == [2, 2]
    assert targets[1][["vgg", "vit"]].tolist() == [1, 2]
    assert left.jobs[0].rates.equals(rates)
    assert [set(its.rankings["models"]) for its in (kept, left)] == [{"other"}, {"unrelated"}]
    report = build_report(left)
    (rows,) = (one.data for one in report.figures if one.name == "matrix")
    related = rows.loc[rows["relation"] == "related", ["source", "target"]]
    assert set(related["target"]) == {"vgg", "resnet"}
    assert set(related["source"]) == {"vgg", "resnet", "mean of sources"}
    assert "unrelated model" in report.answer.sentence
    ranked = rankings(folder, related="exclude")
    pd.testing.assert_frame_equal(ranked, left.rankings)
    text = table(folder, rows="source", to="csv", related="exclude")
    cells = pd.read_csv(io.StringIO(text), index_col=0)
    assert (cells["average"] == cells["vit"]).loc[["vgg", "resnet"]].all()
    with pytest.raises(ValueError, match="keep or exclude"):
        rankings(folder, related="no")


def test_without_stored_pictures_and_diagnostics_the_page_says_how_to_get_them(make_sweep):
    report = report_of([make_sweep(models=("a", "b"))])
    names = {one.name for one in report.figures}
    assert {"curves", "matrix", "hypothesis"} <= names
    sections = {one.id: one for one in report.sections}
    assert sections["mechanisms"].command.endswith("diagnostics=full")
    assert all(place == -1 for place in places(report))


def places(report):
    """Return the places of all pictures of galleries."""
    kinds = [kind for sheet in report.pictures.sheets for kind in sheet["galleries"].values()]
    strips = [strip for kind in kinds for one in kind for strip in one["strips"]]
    return [step["picture"] for strip in strips for step in strip["steps"]]


@pytest.mark.slow
def test_pictures_stop_where_the_page_is_full_and_every_job_that_lacks_some_is_named(
    make_sweep, monkeypatch
):
    folder = make_sweep(full=True)
    whole = report_of([folder]).pictures
    sheets, total = {each["source"]: each for each in whole.sheets}, sum(map(len, whole.data))
    assert len(sheets) == 3 and not whole.left_out
    for share, lacking in ((0.0, 3), (0.9, 1)):
        monkeypatch.setattr("src.report.page.galleries.MOST_BYTES", share * total)
        cut = report_of([folder]).pictures
        kept = {sheet["source"]: sheet["galleries"] for sheet in cut.sheets}
        left = [each["source"] for each in cut.left_out]
        assert left == [one for one in sheets if kept.get(one) != sheets[one]["galleries"]]
        assert len(left) == lacking
    assert all(str(folder) in each["command"] for each in cut.left_out)


def test_every_group_of_comparable_jobs_has_its_strongest_attackers(make_sweep):
    jobs = find_jobs([make_sweep(attacks=("fgsm", "bim"))])
    jobs = [changed(job, norm="l2") if job.attack == "bim" else job for job in jobs]
    figures = {one.name: one for one in build_report(summarise(jobs)).figures}
    for ending, attack in (("", "fgsm"), ("-1", "bim")):
        figure = figures[f"strongest{ending}"]
        assert set(figure.data["attack"]) == {attack} and attack in figure.caption
        assert f"at-least{ending}" in figures


def test_a_single_model_fools_itself_and_alarms_stand_once_with_their_causes(make_sweep):
    folder = make_sweep(models=("a",), attacks=("fgsm", "bim"))
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = report_of([folder])
    assert "fools a (white box) on" in report.answer.sentence
    few, unknown = report.alarms
    assert few[0] == "few_images: a -> b: 3 images counted (joint)" and "rates of fewer" in few[1]
    assert unknown == ("of_a_later_version: something", "")


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


def test_jobs_of_other_seeds_are_never_compared(make_sweep):
    first, second = find_jobs([make_sweep(models=("a", "b"))])
    found = compute_page_data(summarise([first, changed(second, seed=1)]))
    assert compared.tests_by_group(found.outcomes).empty


def test_sources_for_unseen_targets_are_a_chapter_from_four_models_on(made_up):
    sections = {one.id: one for one in made_up("many models").sections}
    figures = {figure.name: figure for figure in sections["sources"].figures}
    models = {f"model_{i}" for i in range(9)}
    assert set(figures["unseen"].data["target"]) == {*models, "mean"}
    assert set(figures["profiles"].data["source"]) == models
    assert len(figures["similarity-of-models"].data) == 9 * 8
    assert "permutations" in figures["predictors"].caption
    assert "sources" not in {one.id for one in made_up("ordinary").sections}


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
    assert set(choice.profiles["source"]) == {"a", "b"}


def test_attacks_through_a_defence_are_ranked_on_targets_behind_it(make_sweep):
    words = {"attacks": ("mi", "di"), "sources": ("vgg@jpeg",), "defences": ("jpeg",)}
    summary = summarise(find_jobs([make_sweep(**words)]))
    report = build_report(summary)
    rows = summary.rankings.query("defence == 'jpeg' and eps_255 == 8")
    best = rows.loc[rows["mean"].idxmax()]
    assert report.answer.lead.startswith(best["attack"]) and report.choice.defence == "jpeg"
    assert f"behind jpeg on {best['mean']:.0%}" in report.answer.sentence
    (drawn,) = (one.data for one in report.figures if one.name == "ranking")
    drawn = drawn.query("eps_255 == 8").set_index("attack")["mean"]
    assert drawn.to_dict() == pytest.approx(rows.set_index("attack")["mean"].to_dict())


def test_plain_attacks_are_ranked_on_targets_without_a_defence(make_sweep):
    report = build_report(summarise(find_jobs([make_sweep(defences=("jpeg",))])))
    assert report.choice.defence == "none" and "behind" not in report.answer.sentence
    assert "targets without a defence" in report.answer.details
