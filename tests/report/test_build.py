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
from src.report.measure import Measured, group, measure
from src.report.sections import compared
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
    assert "10 images counted that a ranking needs" in made_up("one image").answer


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


def changed(job, **changes):
    """Return a job whose record has other values; those of its config are named with dots."""
    record = job.record.model_copy(deep=True)
    for key, value in changes.items():
        if "__" in key:
            section, *path, last = key.split("__")
            place = record.config.setdefault(section, {})
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value
        else:
            record = record.model_copy(update={key: value})
    return replace(job, record=record)


UNLIKE = {
    "steps": {"attack__settings__steps": 20},
    "seed": {"seed": 1},
    "precision": {"precision": "bf16-mixed"},
    "attack_precision": {"trainer__attack_precision": "bf16"},
    "storage": {"storage": "uint8"},
    "dataset": {"data": "others", "dataset": "photos"},
    "data": {"data": "others"},
    "code.program": {"code": {"program": "other"}},
    "training.seed": {"weights": {"a": "2", "b": "2"}, "training__seed": 1},
    "weights.a": {"weights": {"a": "2", "b": "2"}},
    "model.a.input_size": {"model__a__input_size": 80},
}


@pytest.mark.parametrize("key", UNLIKE)
def test_jobs_that_differ_are_named_by_it_and_never_compared(make_sweep, key):
    same = {"code": {"program": "one"}, "attack__settings__steps": 10, "training__seed": 0}
    same |= {"trainer__attack_precision": "32-true", "model__a__input_size": None}
    jobs = [changed(job, **same) for job in find_jobs([make_sweep(models=("a", "b"))])]
    named = disambiguated([jobs[0], changed(jobs[1], overrides=("trainer=cpu", "report=none"))])
    assert [job.attack for job in named] == ["fgsm", "fgsm"]
    first, second = disambiguated([jobs[0], changed(jobs[1], **UNLIKE[key])])
    assert first.attack != second.attack and f"fgsm {key}=" in second.attack
    found = measure([first, second], 0, None, lambda step: None)
    tests = compared.tests_by_group(found.table("outcomes"))
    of_one_attack = key in ("steps", "model.a.input_size")  # then they are two attacks
    assert tests.empty or of_one_attack
    assert of_one_attack == (found.table("rates")["group"].nunique() == 1)


def test_ensembles_of_other_averages_are_told_apart(make_sweep):
    jobs = find_jobs([make_sweep(models=("a+b", "a"))])
    others = [changed(job, ensemble="loss", key=f"other {n}") for n, job in enumerate(jobs)]
    others = [changed(job, config=job.record.config | {"ensemble": "loss"}) for job in others]
    names = [job.attack for job in disambiguated([jobs[0], others[0]])]
    assert names == ["fgsm ensemble=logits", "fgsm ensemble=loss"]
    assert len({job.attack for job in disambiguated([jobs[1], others[1]])}) == 2  # by numbers


def test_every_data_set_has_a_headline(make_sweep):
    jobs = find_jobs([make_sweep(models=("a", "b"))])
    others = [changed(job, data="others", dataset="photos", key="x") for job in jobs]
    report = build_report(disambiguated([*jobs, *others]), ReportSettings(pairs=0))
    assert report.answer.count("strongest source") == 2
    assert report.answer.startswith("made-up: At") and " photos: At" in report.answer


def test_ensembles_decide_no_target_and_few_images_nothing(make_sweep):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    success = {("fgsm", "a", "b"): 50, ("fgsm", "a", "c"): 40, ("fgsm", "b", "a"): 30}
    success |= {("fgsm", "b", "c"): 20, ("fgsm", "a+b", "c"): 97}
    rates = table(record, success)
    answer = answer_sentence(record, Measured({"rates": rates}))
    assert "most robust target of fgsm is c: other sources succeed on 60 / 200" in answer
    few = rates.assign(n=rates["n"].where(rates["target"] != "b", 9))
    assert "source, as measured, is a with fgsm: it fools c" in answer_sentence(
        record, Measured({"rates": few})
    )


@pytest.mark.parametrize(("more", "said"), [(20, "is beyond its interval"), (2, "not decided")])
def test_the_first_sentence_says_whether_the_lead_is_decided(make_sweep, more, said):
    (record, *_) = (job.record for job in find_jobs([make_sweep()]))
    success = {("mi", "a", "b"): 50 + more, ("bim", "a", "b"): 50}
    index = list(range(100))
    outcomes = pd.concat(
        pd.DataFrame(
            {"index": index, "success": [(n * 37 + 5 * len(attack)) % 100 < k for n in index]}
        ).assign(attack=attack, source=source, target=target, counted=True, group=group(record))
        for (attack, source, target), k in success.items()
    )
    found = Measured({"rates": table(record, success), "outcomes": outcomes})
    answer = answer_sentence(record, found)
    assert f"lead over a with bim, {more}.0 points [" in answer and said in answer
