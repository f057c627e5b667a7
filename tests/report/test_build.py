"""What the page says: the first sentence, alarms, and what it leaves out."""

import json

import pytest

from src.analysis import format_cell
from src.config.settings import ReportSettings
from src.report.build import build_report
from src.report.stored import find_jobs

SETTINGS = ReportSettings()


def test_the_first_sentence_names_the_strongest_and_the_most_robust(made_up):
    report = made_up("ordinary")
    (rates,) = [one.data for one in report.figures if one.name == "answer"]
    rows = rates.query("eps_255 == 8 and protocol == 'joint' and source != 'clean'")
    rows = rows[rows["source"] != rows["target"]].assign(fooled=lambda t: t["n"] - t["k"])
    sums = rows.groupby(["attack", "source"])[["fooled", "n"]].sum()
    attack, source = (sums["fooled"] / sums["n"]).idxmax()
    assert f"strongest source is {source} with {attack}: it fools 2 other models" in report.answer
    assert format_cell(*sums.loc[(attack, source)]) in report.answer
    sums = rows[rows["attack"] == attack].groupby("target")[["fooled", "n"]].sum()
    target = (sums["fooled"] / sums["n"]).idxmin()
    assert f"most robust target of {attack} is {target}" in report.answer
    assert format_cell(*sums.loc[target]) in report.answer


def test_ensembles_are_not_ranked_against_sources_with_more_targets(make_sweep):
    report = build_report(find_jobs([make_sweep(models=("a", "b", "a+b"), full=False)]), SETTINGS)
    assert "strongest source is a+b" not in report.answer


def test_nothing_is_said_of_others_where_there_are_none(make_sweep):
    report = build_report(find_jobs([make_sweep(models=("a",), full=False)]), SETTINGS)
    assert "fools itself" in report.answer and "most robust" not in report.answer


def test_one_image_is_told_without_a_ranking_of_nothing(made_up):
    assert "no image that was counted is fooled" in made_up("one class").answer


def test_alarms_stand_on_the_page_with_what_they_come_from(make_sweep):
    folder = make_sweep(full=False)
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):  # told by two jobs, shown once
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = build_report(find_jobs([folder]), SETTINGS)
    few, unknown = report.alarms
    assert few[0] == "few_images: a -> b: 3 images counted (joint)" and "rates of fewer" in few[1]
    assert unknown == ("of_a_later_version: something", "")


@pytest.mark.parametrize("text", ['[{"name": "few', "{}{", '[{"name": "few_images"}]', "[3]"])
def test_a_damaged_list_of_alarms_is_named(make_sweep, text):
    folder = make_sweep(full=False)
    (folder / "0-job" / "alarms.json").write_text(text)
    with pytest.raises(ValueError, match=r"alarms\.json is no list of alarms"):
        build_report(find_jobs([folder]), SETTINGS)


def test_tables_alone_raise_the_alarms_that_they_can(make_sweep):
    folder = make_sweep(images=5, full=False)
    alarms = build_report(find_jobs([folder]), SETTINGS).alarms
    assert any(finding.startswith("few_images: vgg -> ") for finding, _ in alarms)


def test_no_pair_in_detail_leaves_the_other_charts(make_sweep):
    report = build_report(find_jobs([make_sweep()]), ReportSettings(pairs=0))
    names = {one.name for one in report.figures}
    assert {"answer", "hypothesis", "compared-sources"} <= names and "images" not in names
    lacking = dict(dict(report.terms)["What was not computed"])
    assert "those of 0 of 18 pairs" in lacking["bins of initial confidence and galleries"]
