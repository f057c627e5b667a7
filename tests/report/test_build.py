"""The report's first sentence, its alarms, and what is compared."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from src.analysis import format_cell
from src.analysis.summary import comparable, summarise
from src.config.settings import ReportSettings
from src.report.build import build_report
from src.report.measure import Measured, measure
from src.report.sections import compared
from src.report.sections.answer import answer_sentence
from src.store.jobs import disambiguated, find_jobs


@pytest.fixture
def record(make_sweep):
    """The record of a job."""
    return find_jobs([make_sweep()])[0].record


def report_of(folders):
    return build_report(summarise(find_jobs(folders)), ReportSettings(pairs=0))


def test_the_first_sentence_names_the_strongest_source(made_up):
    report = made_up("ordinary")
    (rates,) = [one.data for one in report.figures if one.name == "answer"]
    rows = rates.query("eps_255 == 8 and protocol == 'joint' and source != 'clean'")
    rows = rows[rows["source"] != rows["target"]].assign(fooled=lambda t: t["n"] - t["k"])
    rows["rate"] = rows["fooled"] / rows["n"]
    groups = rows.groupby(["attack", "source"])
    attack, source = groups["rate"].mean().idxmax()
    assert f"{source} with {attack}" in report.answer
    assert format_cell(*groups[["fooled", "n"]].sum().loc[(attack, source)]) in report.answer
    assert "10 images counted that a ranking needs" in made_up("one image").answer


def answered(record, success, **more):
    """Return the sentence on rates of 100 images: successes by attack, source and target."""
    pairs = pd.Series(success).rename_axis(["attack", "source", "target"])
    told = {"n": 100, "targeted": False, "relation": "transfer", "primary": True, "reference": True}
    rates = pairs.rename("success").reset_index().assign(group=comparable(record), **told | more)
    return answer_sentence(record, Measured({"rates": rates}))


BOTH = {("mi", "a", "b"): 90, ("mi", "b", "a"): 60, ("bim", "a", "b"): 91}
ENSEMBLE = {("mi", "a", "b"): 50, ("mi", "b", "a"): 40, ("mi", "a+b", "c"): 97}
MEMBERS = {("mi", "a+b", "a"): 40, ("mi", "a+b", "b"): 50}


@pytest.mark.parametrize(
    ("success", "more", "said"),
    [
        (BOTH, {}, "is a with bim: it fools b for 91 / 100"),
        (BOTH | {("bim", "a", "b"): 90}, {}, "no source stands out"),
        (ENSEMBLE, {}, "is a with mi: it fools b for 50 / 100"),
        (ENSEMBLE, {"n": [9, 100, 100]}, "b with mi fools a for 40 / 100"),
        ({("mi", "a", "b"): 40}, {}, "a with mi fools b for 40 / 100"),
        (
            MEMBERS,
            {"relation": "white box"},
            "a+b with mi fools 2 models that it was crafted on for 90 / 200",
        ),
        ({("mi", "a", "b"): 0}, {"targeted": True}, "reaches its target labels on another"),
    ],
)
def test_the_first_sentence_compares_what_can_be_compared(record, success, more, said):
    assert said in answered(record, success, **more)


def test_without_pairs_in_detail_there_are_no_pictures(make_sweep):
    report = report_of([make_sweep(models=("a", "b", "a+b"))])
    names = {one.name for one in report.figures}
    assert {"answer", "hypothesis", "compared-sources"} <= names and "images" not in names


def test_a_single_model_fools_itself_and_alarms_stand_once_with_their_causes(make_sweep):
    folder = make_sweep(models=("a",), attacks=("fgsm", "bim"))
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = report_of([folder])
    assert "it fools a for" in report.answer
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


def test_jobs_of_a_label_are_told_apart_by_swept_words_or_their_folder(make_sweep):
    jobs = find_jobs([make_sweep(models=("a", "b"))])
    words = ["attack=fgsm", "n_images=5"]
    swept = [[*words, "seed=0"], [*words, "seed=1"]]
    seeds = disambiguated([changed(one, overrides=w) for one, w in zip(jobs, swept, strict=True)])
    assert [job.attack for job in seeds] == ["fgsm seed=0", "fgsm seed=1"]
    other = [replace(job, folder=Path("other", job.folder.name)) for job in jobs]
    named = {(job.attack, job.record.source) for job in disambiguated([*jobs, *other])}
    assert len(named) == 4 and ("fgsm (other)", "a") in named


def test_jobs_of_other_seeds_are_never_compared(make_sweep):
    first, second = find_jobs([make_sweep(models=("a", "b"))])
    found = measure(summarise([first, changed(second, seed=1)]))
    assert compared.tests_by_group(found.table("outcomes")).empty
