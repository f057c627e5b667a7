"""What is compared, and what has rows of its own: other settings, images, seeds and sources."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from src import load_sweep, rankings, table, tries
from src.artifacts.jobs import find_jobs
from src.report import figure as charts
from src.report.page.frame import build_report, selections
from src.report.page.html import as_json
from src.report.results import Results, results_of
from src.report.view import view_of
from src.run.track import sweep_points
from tests.records import JOBS, results_of_frame
from tests.report.conftest import make_sweep
from tests.report.frames import IMAGES, frame_of, rows_of, value

FOOLED = {
    ("fgsm", "vgg", "net"): 12,
    ("fgsm", "vgg", "other"): 4,
    ("fgsm", "vit", "net"): 6,
    ("fgsm", "vit", "other"): 14,
}
OTHERWISE = {
    "budgets": ({"reference": 4.0, "budgets": (0.0, 4.0)}, "reference 8", "reference 4"),
    "norm": ({"norm": "l2"}, "linf", "l2"),
    "images": ({"data": "f" * 16, "images": IMAGES // 2}, "40 images", "20 images"),
    "storage": ({"storage": "uint8"}, "float32", "uint8"),
    "code": ({"code": {"program": "fedcba98"}}, "", "program fedcba98"),
}
"""Facts of the jobs of one source, and the words that tell both jobs apart."""
PLACE = {"source": "", "target": "", "defence": "none", "eps_255": 8, "protocol": "joint"}


def other(frame: pd.DataFrame, source: str, **facts) -> pd.DataFrame:
    """Return a frame in which the jobs of one source are of another sweep, with other facts."""
    jobs = [job | facts if job["source"] == source else job for job in frame.attrs[JOBS]]
    its = frame["source"] == source
    for column, fact in (("norm", "norm"), ("protocol", "protocol"), ("variant", "storage")):
        frame[column] = frame[column].mask(its, facts.get(fact, frame[column]))
    gone = ~frame["eps_255"].isin(facts.get("budgets", frame["eps_255"].unique()))
    frame = frame[~its | ~(gone | (frame["index"] >= facts.get("images", IMAGES)))]
    frame.attrs[JOBS] = jobs
    return frame


def outputs(results: Results, name: str) -> dict[str, list[float]]:
    """Return the numbers of an attack from `vit` at 4/255 in everything that shows them."""
    rows = results.select(attack=name, eps_255=4.0).sort_values(["source", "target", "protocol"])
    words = {"rows": "attack", "columns": "target", "eps_255": 4, "to": "csv"}
    cells = {row["attack"]: row for row in rows_of(table(results, **words))}[name]
    place = PLACE | {"attack": name, "eps_255": 4, "source": "vit"}
    page = selections(results, view_of(results))
    metric = re.sub(r"[^\w.-]+", " ", name).strip()
    return {
        "frame": rows["success_rate"].tolist(),
        "table": [float(cells[its]) for its in ("net", "other", "average")],
        "page": [value(page, "fooled", **place | {"target": at}) for at in ("net", "other", "")],
        "rankings": rankings(results).query("attack == @name and eps_255 == 4")["mean"].tolist(),
        "metrics": [its for key, its, _ in sweep_points(results) if metric in key.split("/")],
    }


@pytest.mark.parametrize("differing", OTHERWISE)
def test_incomparable_jobs_have_the_numbers_and_names_of_their_own(differing):
    facts, *words = OTHERWISE[differing]
    frame = other(frame_of(FOOLED), "vit", **facts)
    both = results_of_frame(frame)
    names = [f"fgsm ({word})" if word else "fgsm" for word in words]
    assert {*both.frame["attack"]} == {*names}
    alone = frame[frame["source"] == "vit"]
    alone.attrs[JOBS] = frame.attrs[JOBS]
    expected = outputs(results_of_frame(alone), "fgsm")
    for name, numbers in outputs(both, names[1]).items():
        assert numbers and numbers == pytest.approx(expected[name]), name


UNEVEN = {
    **{("fgsm", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6},
    **{("mi", "vgg", target): 10 for target in ("net", "other", "third")},
}
"""A ranking's pairs are those of `mi` alone, which has one source."""


def test_no_figure_draws_a_mean_that_no_ranking_compares_and_all_say_so(caplog):
    apart = results_of_frame(other(frame_of(FOOLED), "vit", storage="uint8"))
    uneven = results_of_frame(frame_of(UNEVEN))
    for results, left, named in (
        (apart, "fgsm (", {"source": ["vgg", "vit"], "attack": [*{*apart.frame["attack"]}]}),
        (uneven, "fgsm (another ranking, or none)", {"attack": ["mi"]}),
    ):
        for draw in (charts.curves, charts.ranking, charts.cost):
            caplog.clear()
            spec = draw(results, height="3in").to_json()
            assert f"Not drawn: {left}" in caplog.text
            assert results is uneven or "mean of sources" not in spec
        caplog.clear()
        charts.curves(results, height="3in", **named)
        assert not caplog.text


@pytest.fixture
def sweep(tmp_path):
    """A function that writes a small sweep of FGSM and BIM into a folder and returns its path."""
    small = {"models": ("vgg", "vit"), "images": 60, "full": False, "budgets": (8.0,)}
    return lambda name, **words: make_sweep(tmp_path / name, **{**small, **words})


def test_sweeps_and_swept_words_tell_jobs_apart(sweep):
    one, two = sweep("one"), sweep("two", attacks=("fgsm",), budgets=(4.0, 8.0))
    names = {"fgsm (one)", "bim (one)", "fgsm (two)"}  # of all its attacks, or of none
    assert set(load_sweep(one, two)["attack"]) == names
    assert set(load_sweep(a=one, b=two)["attack"]) == {"fgsm (a)", "bim (a)", "fgsm (b)"}
    three = sweep("three", attacks=("fgsm",), overrides=("attack=fgsm", "seed=0"))
    words = {"first": 30, "seed": 1, "overrides": ("attack=fgsm", "seed=1")}
    for number, job in enumerate(sweep("four", attacks=("fgsm",), **words).iterdir()):
        shutil.move(job, three / f"{number + 2}-job")
    assert set(load_sweep(three)["attack"]) == {"fgsm (images data0-)", "fgsm (images data30)"}
    with pytest.raises(ValueError, match=r"different jobs named fgsm .*vgg"):
        load_sweep(sweep("x/out"), sweep("y/out", budgets=(4.0, 8.0)))


def test_seeds_are_one_row_of_means_whose_intervals_are_over_images(sweep):
    seeds = [sweep(f"{seed}", seed=seed, attacks=("fgsm",)) for seed in range(3)]
    words = {"rows": "attack", "to": "csv", "intervals": True}
    alone = [rows_of(table(one, **words))[0] for one in seeds]
    (row,) = rows_of(table(*seeds, **words))
    for name in ("vit", "average"):
        each = [float(its[name]) for its in alone]
        assert [float(row[f"{name} seed={seed}"]) for seed in range(3)] == pytest.approx(each)
        expected = np.mean(each), np.std(each, ddof=1)
        assert (float(row[name]), float(row[f"{name} sd"])) == pytest.approx(expected)
    widths = [float(its["vit high"]) - float(its["vit low"]) for its in (row, *alone)]
    assert np.mean(widths[1:]) / np.sqrt(3) < widths[0] < np.mean(widths[1:])
    ranked, single = rankings(*seeds), [rankings(folder) for folder in seeds]
    assert set(ranked["attack"]) == {"fgsm"} and set(ranked["images"]) == {*single[0]["images"]}
    assert ranked["mean"].to_numpy() == pytest.approx(np.mean([its["mean"] for its in single], 0))


def test_candidates_have_their_first_seed_and_are_untargeted_if_any_is(sweep):
    first, second = (sweep(f"{seed}", seed=seed, attacks=("fgsm",)) for seed in range(2))
    bim, aimed = sweep("bim", attacks=("bim",)), sweep("aimed", attacks=("mi",), aimed=True)
    found = tries(first, second, bim)
    pd.testing.assert_frame_equal(found, tries(first, bim, aimed))
    assert (found["candidates"] == 4).all() and set(found["attack"]) <= {"fgsm", "bim"}
    assert set(tries(aimed)["attack"]) == {"mi"}


KIND = "incomparable sweeps"
SHARED = {"colours", "charts", "letter", "name", "about"}


def test_each_sweep_on_a_page_has_the_numbers_of_its_own_page(made_up, results_of_kind):
    report = made_up(KIND)
    assert [its.page["name"] for its in report.sweeps.values()] == ["one", "two"]
    for its in report.sweeps.values():
        jobs = [job for job in results_of_kind(KIND).jobs if its.page["name"] in job.sweeps]
        alone = build_report(results_of(find_jobs([jobs[0].sweep_folder])))
        assert not alone.sweeps and alone.answer == its.answer and alone.blocks == its.blocks
        for name in alone.page.keys() - SHARED:
            assert as_json(alone.page[name]) == as_json(its.page[name]), name
    one, two = (its.page["colours"] for its in report.sweeps.values())
    assert one == two and {*one} == {"fgsm", "bim", "mi"}
    text = "".join(report.answer[:2])
    assert " in A" in text and " in B" in text and "A and B cannot be compared" in text
    facts = {label: texts for label, *texts in report.differs.cells}
    assert facts["images"] == ["60", "45, of which 45 are in A"]
    assert facts["budgets, /255"] == ["2, 8", "8, 16"] and "norm" not in facts
    assert report.page["answers"]["B"] == report.sweeps["B"].answer
