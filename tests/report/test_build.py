"""The report's first sentence, its alarms, and what it leaves out."""

import json
import re
import shutil
from dataclasses import replace
from itertools import permutations

import pandas as pd
import pytest

from src.analysis import format_cell
from src.config.settings import ReportSettings
from src.report.build import build_report
from src.report.measure import Measured, group
from src.report.sections.answer import answer_sentence
from src.report.stored import disambiguated, find_jobs


def test_the_first_sentence_names_the_strongest_and_the_most_robust(made_up):
    report = made_up("ordinary")
    (rates,) = [one.data for one in report.figures if one.name == "answer"]
    rows = rates.query("eps_255 == 8 and protocol == 'joint' and source != 'clean'")
    rows = rows[rows["source"] != rows["target"]].assign(fooled=lambda t: t["n"] - t["k"])
    attack, source, target = (
        re.search(f"{what} (\\S+)", report.answer)[1].rstrip(":")
        for what in ("with", "strongest source, as measured, is", "most robust target of \\w+ is")
    )
    sums = rows.groupby(["attack", "source"])[["fooled", "n"]].sum()
    assert format_cell(*sums.loc[(attack, source)]) in report.answer
    sums = rows[rows["attack"] == attack].groupby("target")[["fooled", "n"]].sum()
    assert format_cell(*sums.loc[target]) in report.answer
    assert "no source fools another model" in made_up("one image").answer


EFFECTS = {"a": 90, "b": 40, "c": 10}


@pytest.mark.parametrize(
    ("fooled", "said", "not_said"),
    [
        # What one source does, whatever the target: it is strong, and no target is robust.
        (
            lambda source, target: EFFECTS[source],
            "strongest source, as measured, is a",
            "most robust",
        ),
        # What any source does to a target.
        (lambda source, target: EFFECTS[target], "no source stands out", "strongest"),
        # Both, so that c, itself the most robust, meets the weakest targets alone.
        (
            lambda source, target: EFFECTS[target] // 2 + (source == "b"),
            "is b with fgsm: it fools 2 other models for 52 / 200",
            "most robust target of fgsm is b",
        ),
    ],
)
def test_sources_are_ranked_as_if_they_had_the_same_targets(make_sweep, fooled, said, not_said):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    pairs = pd.DataFrame(permutations("abc", 2), columns=["source", "target"])
    success = [fooled(*pair) for pair in pairs.itertuples(index=False)]
    told = {"attack": "fgsm", "n": 100, "targeted": False, "white_box": False, "primary": True}
    rates = pairs.assign(success=success, reference=True, group=group(record), **told)
    answer = answer_sentence(record, Measured({"rates": rates}))
    assert said in answer and not_said not in answer
    two = rates[rates["source"].isin(["a", "b"]) & rates["target"].isin(["a", "b"])]
    shortest = answer_sentence(record, Measured({"rates": two}))
    assert "most robust" not in shortest and "other models" not in shortest


def table(record, success, **more):
    """Return rates of 100 images: successes by attack, source and target."""
    pairs = pd.Series(success).rename_axis(["attack", "source", "target"])
    told = {"n": 100, "targeted": False, "white_box": False, "primary": True, "reference": True}
    return pairs.rename("success").reset_index().assign(group=group(record), **told | more)


def test_a_target_that_is_no_source_is_ranked_as_the_others(make_sweep):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    success = {("fgsm", *pair): 10 for pair in permutations("ab")}
    success |= {("fgsm", "a", "c"): 95, ("fgsm", "b", "c"): 90}
    answer = answer_sentence(record, Measured({"rates": table(record, success)}))
    assert "as measured, is a with fgsm" in answer
    assert "most robust target of fgsm is c" not in answer and "is b: " in answer


def test_two_models_are_ranked_by_what_their_attacks_do(make_sweep):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    success = {("mi", "a", "b"): 90, ("di", "a", "b"): 90}
    success |= {("mi", "b", "a"): 60, ("di", "b", "a"): 0, ("bim", "a", "b"): 91}
    answer = answer_sentence(record, Measured({"rates": table(record, success)}))
    assert "as measured, is a with bim: it fools b for 91 / 100" in answer


def test_an_attack_that_misses_its_classes_is_not_said_to_fool_nobody(make_sweep):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    rates = table(record, {("mi", "a", "b"): 0}, targeted=True)
    answer = answer_sentence(record, Measured({"rates": rates}))
    assert "reaches its target labels on another model" in answer and "fool" not in answer


def test_a_source_with_fewer_targets_is_ranked_too(make_sweep):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    success = {("fgsm", "a", "b"): 99, ("fgsm", "c", "a"): 5, ("fgsm", "c", "b"): 6}
    answer = answer_sentence(record, Measured({"rates": table(record, success)}))
    assert "as measured, is a with fgsm: it fools b for 99 / 100" in answer


def test_what_has_no_rival_is_no_strongest_and_clean_errors_are_told(make_sweep):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    every = record.model_copy(update={"protocol": "all"})
    for job, clean in ((record, False), (every, True)):
        rates = table(job, {("mi", "a", "b"): 40})
        answer = answer_sentence(job, Measured({"rates": rates}))
        assert "a with mi fools b for 40 / 100" in answer and "strongest" not in answer
        assert ("errors on clean images included" in answer) == clean
    members = table(record, {("mi", "a+b", "a"): 40, ("mi", "a+b", "b"): 50}, white_box=True)
    answer = answer_sentence(record, Measured({"rates": members}))
    assert "a+b with mi fools its members for 90 / 200" in answer and "image-target" in answer


def test_jobs_of_other_images_have_names_of_their_own(make_sweep):
    jobs = find_jobs([make_sweep(models=("a", "b"))])
    other = jobs[1].record.model_copy(update={"data": "other images"})
    named = disambiguated([jobs[0], replace(jobs[1], record=other)])
    assert len({job.attack for job in named}) == 2


def test_sources_are_ranked_against_those_with_as_many_targets(make_sweep):
    jobs = find_jobs([make_sweep(models=("a", "b", "a+b"))])
    report = build_report(jobs, ReportSettings(pairs=0))
    assert "is a+b" not in report.answer
    names = {one.name for one in report.figures}
    assert {"answer", "hypothesis", "compared-sources"} <= names and "images" not in names
    lacking = dict(dict(report.terms)["What was not computed"])
    assert "those of 0 of 9 pairs" in lacking["bins of initial confidence and galleries"]


def test_a_single_model_fools_itself_and_alarms_stand_once_with_their_causes(make_sweep):
    folder = make_sweep(models=("a",), attacks=("fgsm", "bim"))
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = build_report(find_jobs([folder]), ReportSettings(pairs=0))
    assert "fools itself" in report.answer and "most robust" not in report.answer
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


def test_words_that_decide_no_image_do_not_tell_attacks_apart(make_sweep):
    jobs = find_jobs([make_sweep(models=("a", "b"))])

    def names(*words):
        records = [job.record.model_copy(update={"overrides": ()}) for job in jobs]
        records[1] = records[1].model_copy(update={"overrides": words})
        pairs = zip(jobs, records, strict=True)
        return [
            job.attack
            for job in disambiguated([replace(job, record=record) for job, record in pairs])
        ]

    assert names("controls=true", "report=none", "tracking.uri=here") == ["fgsm", "fgsm"]
    assert names("controls=true", "seed=1") == ["fgsm", "fgsm seed=1"]
