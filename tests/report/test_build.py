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
from src.store.jobs import disambiguated, find_jobs


@pytest.fixture
def record(make_sweep):
    """The record of a job."""
    return find_jobs([make_sweep()])[0].record


def named(answer):
    """Return the source and attack that a sentence calls strongest, and the most robust target."""
    found = (re.search(f"{what} is ([^:.]+):", answer) for what in ("measured,", r"target of \w+"))
    return tuple(each and each[1] for each in found)


def test_the_first_sentence_names_the_strongest_and_the_most_robust(made_up):
    report = made_up("ordinary")
    (rates,) = [one.data for one in report.figures if one.name == "answer"]
    rows = rates.query("eps_255 == 8 and protocol == 'joint' and source != 'clean'")
    rows = rows[rows["source"] != rows["target"]].assign(fooled=lambda t: t["n"] - t["k"])
    strongest, target = named(report.answer)
    source, attack = strongest.split(" with ")
    sums = rows.groupby(["attack", "source"])[["fooled", "n"]].sum()
    assert format_cell(*sums.loc[(attack, source)]) in report.answer
    sums = rows[rows["attack"] == attack].groupby("target")[["fooled", "n"]].sum()
    assert format_cell(*sums.loc[target]) in report.answer
    assert "10 images counted that a ranking needs" in made_up("one image").answer


def table(record, success, **more):
    """Return rates of 100 images: successes by attack, source and target."""
    pairs = pd.Series(success).rename_axis(["attack", "source", "target"])
    told = {"n": 100, "targeted": False, "white_box": False, "primary": True, "reference": True}
    return pairs.rename("success").reset_index().assign(group=group(record), **told | more)


def of(attack, **success):
    return {(attack, *pair.split("_")): count for pair, count in success.items()}


EFFECTS = {"a": 90, "b": 40, "c": 10}
ALL = [("fgsm", *pair) for pair in permutations("abc", 2)]
BY_SOURCE, BY_TARGET = ({pair: EFFECTS[pair[end]] for pair in ALL} for end in (1, 2))
BY_BOTH = {pair: EFFECTS[pair[2]] // 2 + (pair[1] == "b") for pair in ALL}
TWO = of("mi", a_b=90, b_a=60) | of("di", a_b=90, b_a=0) | of("bim", a_b=91)
ENSEMBLE = of("fgsm", a_b=50, a_c=40, b_a=30, b_c=20) | {("fgsm", "a+b", "c"): 97}
APART = of("fgsm", a_b=10, b_a=10, a_c=95, b_c=90)
RANKED = {  # successes; the strongest, the most robust, and what else is said
    "what a source does, whatever the target": (BY_SOURCE, "a with fgsm", None, "180 / 200"),
    "what any source does to a target": (BY_TARGET, None, None, "no source stands out"),
    # So that c, itself the most robust, meets the weakest targets alone.
    "both": (BY_BOTH, "b with fgsm", "c", "52 / 200"),
    "a target that is no source": (APART, "a with fgsm", "b", "10 / 100"),
    "one target": (of("fgsm", a_b=99, c_a=5, c_b=6), "a with fgsm", None, "b for 99 / 100"),
    "two models": (TWO, "a with bim", None, "b for 91 / 100"),
    "ensembles decide nothing": (ENSEMBLE, "a with fgsm", "c", "60 / 200"),
    "nor do few images": (ENSEMBLE, "a with fgsm", None, "c for 40 / 100"),
}


@pytest.mark.parametrize("case", RANKED)
def test_sources_are_ranked_as_if_they_had_the_same_targets(record, case):
    success, strongest, robust, said = RANKED[case]
    rates = table(record, success, n=[9 if "few" in case else 100, *[100] * (len(success) - 1)])
    answer = answer_sentence(record, Measured({"rates": rates}))
    assert named(answer) == (strongest, robust) and said in answer


def test_what_has_no_rival_is_no_strongest_and_clean_errors_are_told(record):
    every = record.model_copy(update={"protocol": "all"})
    for job, clean in ((record, False), (every, True)):
        rates = table(job, {("mi", "a", "b"): 40})
        answer = answer_sentence(job, Measured({"rates": rates}))
        assert "a with mi fools b for 40 / 100" in answer and "strongest" not in answer
        assert ("errors on clean images included" in answer) == clean
    members = table(record, {("mi", "a+b", "a"): 40, ("mi", "a+b", "b"): 50}, white_box=True)
    answer = answer_sentence(record, Measured({"rates": members}))
    assert "a+b with mi fools its members for 90 / 200" in answer and "image-target" in answer
    missed = table(record, {("mi", "a", "b"): 0}, targeted=True)  # fools nobody, perhaps
    answer = answer_sentence(record, Measured({"rates": missed}))
    assert "reaches its target labels on another model" in answer and "fool" not in answer


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
    "dataset": {"data": "others", "dataset": "cifar10_mini"},
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
    of_one_attack = key == "steps"  # then they are two attacks
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
    others = [changed(job, data="others", dataset="cifar10_mini", key="x") for job in jobs]
    report = build_report(disambiguated([*jobs, *others]), ReportSettings(pairs=0))
    assert report.answer.count("strongest source") == 2
    assert report.answer.startswith("made-up: At") and " cifar10_mini: At" in report.answer


@pytest.mark.parametrize(("more", "said"), [(20, "is beyond its interval"), (2, "not decided")])
def test_the_first_sentence_says_whether_the_lead_is_decided(record, more, said):
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
