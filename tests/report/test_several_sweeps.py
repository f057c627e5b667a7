"""Several sweeps together: other images, seeds, names, and averages that differ."""

import csv
import io
import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

from src import load_sweep, rankings, rates, table, tries
from src.artifacts.jobs import find_jobs
from src.report.page.frame import build_report
from src.report.results import results_of
from tests.conftest import block_of, run_words
from tests.report.conftest import make_sweep

MODELS = ("vgg", "vit")


@pytest.fixture
def sweep(tmp_path):
    """A function that writes a small sweep of FGSM and BIM into a folder and returns its path."""

    def make(name, **words):
        small = {"models": MODELS, "images": 60, "full": False, "budgets": (8.0,)}
        return make_sweep(tmp_path / name, **{**small, **words})

    return make


def lines_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def cell(folder, attack="fgsm"):
    """Return successes and images of an attack from vgg to vit."""
    found = rates(load_sweep(folder)).set_index(["attack", "source", "target", "eps_255"])
    return found.loc[(attack, "vgg", "vit", 8.0), ["success", "denominator"]].to_numpy(int)


def test_jobs_on_other_images_are_in_no_mean_and_the_way_on_is_named(sweep, tmp_path, capsys):
    days = [sweep("a"), sweep("b", first=60)]
    assert set(rankings(*days)["attack"]) == {
        f"{its} (images data{first})" for its in ("fgsm", "bim") for first in ("0-", "60")
    }
    for folders, said in ((days, True), (days[:1], False)):
        assert run_words(tmp_path, *map(str, folders), module="src.table") == 0
        assert ("raise n_images: stored rows are reused" in capsys.readouterr().err) == said
    with pytest.raises(ValueError, match="images "):
        tries(*days)


@pytest.mark.slow
def test_sweeps_that_nothing_else_tells_apart_are_named(sweep, tmp_path, capsys):
    one, two = sweep("one"), sweep("two", attacks=("fgsm",), budgets=(4.0, 8.0))
    names = {"fgsm (one)", "bim (one)", "fgsm (two)"}  # of all its attacks, or of none
    assert set(load_sweep(one, two)["attack"]) == names
    named = load_sweep(day1=one, day2=two)
    assert set(named["attack"]) == {"fgsm (day1)", "bim (day1)", "fgsm (day2)"}
    assert set(load_sweep(one, sweep("three", first=30, attacks=("mi",)))["attack"]) == {
        *("fgsm", "bim", "mi")
    }
    words = ["--to", "csv", "--rows", "attack", "--columns", "source"]
    assert run_words(tmp_path, "day1=one", "day2=two", *words, module="src.table") == 0
    assert capsys.readouterr().out == table(named, to="csv", rows="attack", columns="source")
    report = ["folder={day1: one, day2: two}", "out=."]
    assert run_words(tmp_path, *report, module="src.report.__main__") == 0
    axes = json.loads(block_of(tmp_path / "report.html"))["axes"]
    assert set(axes["attack"]) == set(named["attack"])


def test_jobs_of_one_sweep_are_told_apart_by_their_swept_words(sweep):
    one = sweep("one", attacks=("fgsm",), overrides=("attack=fgsm", "seed=0"))
    two = sweep("two", attacks=("fgsm",), first=30, seed=1, overrides=("attack=fgsm", "seed=1"))
    for number in range(2):
        shutil.move(two / f"{number}-job", one / f"{number + 2}-job")
    assert set(load_sweep(one)["attack"]) == {"fgsm (images data0-)", "fgsm (images data30)"}
    with pytest.raises(ValueError, match=r"different jobs named fgsm .*vgg"):
        load_sweep(sweep("x/out"), sweep("y/out", budgets=(4.0, 8.0)))


@pytest.mark.slow
def test_seeds_are_one_row_of_means_whose_intervals_are_over_images(sweep):
    seeds = [sweep(f"{seed}", seed=seed, attacks=("fgsm",)) for seed in range(3)]
    shares = [np.divide(*cell(folder)) for folder in seeds]
    make = partial(table, *seeds, rows="attack", columns="target")
    (row,) = lines_of(make(to="csv", intervals=True))
    assert float(row["vit"]) == pytest.approx(np.mean(shares))
    assert float(row["vit sd"]) == pytest.approx(np.std(shares, ddof=1))
    assert [float(row[f"vit seed={seed}"]) for seed in range(3)] == pytest.approx(shares)
    averages = [float(row[f"average seed={seed}"]) for seed in range(3)]
    assert float(row["average sd"]) == pytest.approx(np.std(averages, ddof=1))
    alone = [lines_of(table(one, rows="attack", to="csv", intervals=True))[0] for one in seeds]
    widths = [float(its["vit high"]) - float(its["vit low"]) for its in (row, *alone)]
    assert np.mean(widths[1:]) / np.sqrt(3) < widths[0] < np.mean(widths[1:])
    text = make(to="markdown")
    assert f"{100 * np.mean(shares):.1f} ± {100 * np.std(shares, ddof=1):.1f}" in text
    assert "±: standard deviation over the seeds" in text and "Seed 0, 1, 2." in text
    frame = load_sweep(*seeds)
    assert set(frame["attack"]) == {f"fgsm seed={seed}" for seed in range(3)}
    assert table(frame, rows="attack", columns="target", to="markdown") == text
    ranked, single = rankings(*seeds), [rankings(folder) for folder in seeds]
    assert set(ranked["attack"]) == {"fgsm"} and set(ranked["images"]) == {*single[0]["images"]}
    assert ranked["mean"].to_numpy() == pytest.approx(np.mean([its["mean"] for its in single], 0))
    results = results_of(find_jobs(seeds))
    shown = results.select(source="vgg", target="vit", eps_255=8.0, protocol="joint")
    deviation = shown["success_rate_sd"].item()
    assert deviation == pytest.approx(np.std(shares, ddof=1))
    assert "means over the seeds" in str(build_report(results).terms)


@pytest.mark.slow
def test_averages_over_different_targets_are_marked(sweep):
    one, two = sweep("one"), sweep("two", models=(*MODELS, "resnet"), attacks=("mi",), first=60)
    words = {"rows": "attack", "columns": "target"}
    rows = lines_of(table(one, two, to="csv", **words))
    assert [row["average partial"] for row in rows] == ["True", "True", "False"]
    text = table(one, two, to="markdown", **words)
    marked = [line for line in text.splitlines() if line.endswith("‡ |")]
    assert len(marked) == 2 and "‡: mean over fewer sources or targets" in text
    over_targets = table(one, two, to="csv", rows="attack", columns="source")
    assert {row["vgg partial"] for row in lines_of(over_targets)} == {"True", "False"}
    assert "‡" not in table(one, to="markdown", **words)


def test_candidates_have_their_first_seed_and_are_untargeted_if_any_is(sweep):
    first, second = (sweep(f"{seed}", seed=seed, attacks=("fgsm",)) for seed in range(2))
    other, aimed = sweep("bim", attacks=("bim",)), sweep("aimed", attacks=("mi",), aimed=True)
    found = tries(first, second, other)
    pd.testing.assert_frame_equal(found, tries(first, other))
    assert (found["candidates"] == 4).all() and set(found["attack"]) <= {"fgsm", "bim"}
    pd.testing.assert_frame_equal(found, tries(load_sweep(first, second, other)))
    assert set(tries(aimed)["attack"]) == {"mi"}
    assert len(tries(first, second)) == len(tries(first))
