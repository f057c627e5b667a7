"""No mean has jobs that no ranking compares, and each refusal names what differs."""

import io
import logging
from typing import Any

import pandas as pd
import pytest
from src.report.summary import summarise

from src import rankings, table
from src.analysis.intervals import wilson_interval
from src.artifacts.sweep_folders import JOBS, jobs_of
from src.report import figure as charts
from src.report.page.answers import answer_of
from src.report.page.selections import RANKING_KEYS, key_of, selections
from src.report.page.view import make_view
from src.run.track import sweep_points
from tests.report.test_paper import IMAGES, frame_of
from tests.report.test_selections import value

FOOLED = {
    ("fgsm", "vgg", "net"): 12,
    ("fgsm", "vgg", "other"): 4,
    ("fgsm", "vit", "net"): 6,
    ("fgsm", "vit", "other"): 10,
}
OTHERWISE = {
    "epsilon.reference": {"reference": 4.0},
    "epsilon.reference (8, 4)": {"reference": 4.0, "budgets": (0.0, 4.0)},
    "norm": {"norm": "l2"},
    "protocol": {"protocol": "all"},
    "images": {"data": "f" * 16},
    "images (40 of digest 0123456789abcdef, 20 of": {"data": "f" * 16, "images": IMAGES // 2},
    "storage": {"storage": "uint8"},
    "seed": {"seed": 6},
    "trainer.precision": {"precision": "bf16-mixed"},
    "program's code": {"code": {"program": "fedcba98"}},
}


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


@pytest.fixture(params=OTHERWISE)
def unlike(request):
    """What differs in the second of two sources, and the frame."""
    return request.param, other(frame_of(FOOLED), "vit", **OTHERWISE[request.param])


def page_of(frame: pd.DataFrame) -> dict[str, Any]:
    summary = summarise(jobs_of(frame))
    return selections(summary, make_view(summary))


def refused(call, *words: str) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value


def test_no_cell_and_no_average_of_a_table_is_a_mean_over_incomparable_jobs(unlike):
    name, frame = unlike
    refused(lambda: table(frame, rows="attack"), "add source to rows", name)
    words = {"rows": "attack", "columns": ["source"], "to": "csv"}
    one_target = frame[frame["target"] != "other"]
    refused(lambda: table(one_target, **words), "--no-average", name)
    cells = pd.read_csv(io.StringIO(table(one_target, **words, average=False)))
    expected = 0.3 * (0.5 if "reference" in name else 2 if "20 of" in name else 1)
    assert cells[["vgg", "vit"]].to_numpy()[0] == pytest.approx([0.6, expected])


def test_each_job_has_a_row_and_its_own_mean(unlike):
    _, frame = unlike
    cells = pd.read_csv(io.StringIO(table(frame, to="csv"))).set_index("source")
    assert cells.loc["vgg", ["net", "other", "average"]].tolist() == pytest.approx([0.6, 0.2, 0.4])
    each = cells.loc["vit", ["net", "other"]].mean()
    assert cells.loc["vit", "average"] == pytest.approx(each)


@pytest.mark.parametrize(("fact", "value_"), [("storage", "uint8"), ("precision", "bf16-mixed")])
def test_the_caption_names_the_number_formats_where_they_differ(fact, value_):
    assert "Arithmetic" not in table(frame_of(FOOLED), to="markdown")
    text = table(other(frame_of(FOOLED), "vit", **{fact: value_}), to="markdown")
    assert "Arithmetic: float32, saved as float32; " in text


def test_the_page_leaves_the_mean_out_and_says_why(unlike):
    name, frame = unlike
    rows = make_view(summarise(jobs_of(frame))).rows
    assert {*rows["source"]} == {"vgg", "vit"}
    page = page_of(frame)
    assert name in page["unlike"]["fgsm"]
    assert page["axes"]["source"] == ["vgg", "vit"] and page["first"]["source"] in ("vgg", "vit")


def test_curves_draw_no_mean_over_incomparable_jobs(unlike):
    name, frame = unlike
    words = {"width": "3.3in", "target": "net"}
    refused(lambda: charts.curves(frame, **words), "Choose with source", name)
    charts.curves(frame, source=["vgg", "vit"], **words)


def test_no_figure_draws_a_mean_over_incomparable_jobs():
    frame = other(frame_of(FOOLED), "vit", storage="uint8")
    words = {"width": "3.3in", "height": "3in"}
    for draw in (charts.curves, charts.ranking, charts.cost):
        refused(lambda draw=draw: draw(frame, **words), "Choose with source", "storage")
        draw(frame, source="vgg", **words)
    refused(lambda: charts.curves(frame), "Choose with source", "storage")


def test_other_attacks_keep_their_mean_on_the_page():
    fooled = {(attack, *pair): n for (_, *pair), n in FOOLED.items() for attack in ("fgsm", "mi")}
    third = {("fgsm", "mlp", target): count for target, count in (("net", 3), ("other", 20))}
    page = page_of(other(frame_of(third | fooled), "mlp", storage="uint8"))
    place = {"source": "", "defence": "none", "eps_255": 8, "protocol": "joint"}
    for attack, expected in (("mi", [0.45, 0.35, 0.4]), ("fgsm", [None] * 3)):
        its = [value(page, "s", **place, attack=attack, target=at) for at in ("net", "other", "")]
        assert its == pytest.approx(expected)
    assert dict(zip(page["axes"]["attack"], page["single"], strict=True)) == {"mi": 2, "fgsm": 0}
    assert [*page["unlike"]] == ["fgsm"] and page["first"]["source"] == ""
    rows = page["ranking"][key_of(page["axes"], place, RANKING_KEYS)]
    assert [row["name"] for row in rows if "name" in row] == ["mi", "fgsm"]


def test_attacks_of_another_ranking_are_named(caplog):
    fooled = {(attack, *pair): n for (_, *pair), n in FOOLED.items() for attack in ("fgsm", "mi")}
    frame = frame_of(fooled)
    frame.attrs[JOBS] = [
        job | ({"seed": 9} if job["attack"] == "mi" else {}) for job in frame.attrs[JOBS]
    ]
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(frame, width="3.3in")
        assert "Not drawn: mi" in caplog.text and "fgsm" not in caplog.text
        caplog.clear()
        draw(frame, width="3.3in", attack=["fgsm", "mi"])
        assert not caplog.text


def test_a_ranking_says_over_how_many_sources_its_attacks_are_means():
    pairs = {("di", "vgg"): 12, ("di", "vit"): 3, ("fgsm", "vit"): 6, ("fgsm", "mlp"): 8}
    one = {("di", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6}
    ranked = rankings(frame_of(one))
    assert {*ranked["source"]} == {"mean of 1 source", "vgg", "vit"} and {*ranked["sources"]} == {1}
    assert page_of(frame_of(one))["axes"]["source"] == ["vgg", "vit"]
    ranked = rankings(frame_of({(*job, "net"): count for job, count in pairs.items()}))
    means = ranked[(ranked["eps_255"] == 8) & ~ranked["source"].isin(["vgg", "vit", "mlp"])]
    first = means.set_index("attack").loc["di"]
    assert (first["source"], first["sources"]) == ("mean of 2 sources", 2)
    assert first["mean"] == pytest.approx(0.375)


UNEVEN = {
    **{("fgsm", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6},
    **{("mi", "vgg", target): 10 for target in ("net", "other", "third")},
}
"""A ranking's pairs are those of `mi` alone, which has one source."""


def test_a_mean_over_the_one_source_that_is_left_is_a_mean_everywhere():
    frame = frame_of(UNEVEN)
    summary = summarise(jobs_of(frame))
    page = page_of(frame)
    place = {"source": "", "defence": "none", "eps_255": 8, "protocol": "joint"}
    rows = page["ranking"][key_of(page["axes"], place, RANKING_KEYS)]
    shown = {row["name"]: (row["m"], row["lacks"]) for row in rows if "name" in row}
    assert shown == {"mi": (0.5, ""), "fgsm": (None, "vgg -> other and 1 more")}
    lead, rest, _ = answer_of(summary, make_view(summary))
    assert f"{lead}{rest}" == "mi at 8/255 fools 50.0 % of images"
    low, mean = (value(page, name, **place, attack="mi", target="") for name in ("sl", "s"))
    assert mean == 0.5 and 0.3 < low < 0.4
    points = {name: share for name, share, _ in sweep_points(summary)}
    at = "reference"
    assert points[f"transfer_success/mi/{at}"] == 0.5
    assert {name for name in points if name.startswith("diff") and name.endswith(at)} == {
        f"difference_from_first/mi/{at}"
    }
    assert f"transfer_success/fgsm/{at}" not in points


def test_figures_draw_a_mean_over_the_one_source_that_is_left(caplog):
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(frame_of(UNEVEN), width="3.3in")
        assert "Not drawn: fgsm (another ranking, or none)" in caplog.text


@pytest.mark.parametrize("sources", [["vgg"], ["vgg", "vit"]], ids=["one source", "two sources"])
def test_figures_leave_out_attacks_without_a_mean_and_say_why(sources, caplog):
    """FGSM fools most from a network that has no other attack, and the others are drawn."""
    fooled = {(attack, source, "net"): 9 for attack in ("fgsm", "mi") for source in sources}
    frame = other(frame_of({("fgsm", "mlp", "net"): 20} | fooled), "mlp", storage="uint8")
    words = {"width": "3.3in", "height": "3in"}
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            drawn = draw(frame, **words).to_json()
        assert "Not drawn: fgsm (its sources differ in storage (uint8, float32))" in caplog.text
        assert '"mi: ' in drawn  # the heading: no other attack is drawn
        refused(lambda draw=draw: draw(frame, attack=["mi", "fgsm"], **words), "fgsm", "storage")
        draw(frame, attack="fgsm", source="mlp", **words)
    charts.curves(frame)


def test_white_boxes_of_incomparable_jobs_have_no_mean_and_keep_none_from_others():
    fooled = {("fgsm", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6}
    frame = frame_of(fooled | {("mi", "vgg", "vgg"): 20, ("mi", "vit", "vit"): 10})
    frame.attrs[JOBS] = [
        job | ({"seed": 9} if job["attack"] == "mi" and job["source"] == "vit" else {})
        for job in frame.attrs[JOBS]
    ]
    page = page_of(frame)
    assert page["unlike"] == {} and page["first"]["attack"] == "fgsm"
    assert dict(zip(page["axes"]["attack"], page["single"], strict=True)) == {"fgsm": 2, "mi": 0}
    for draw in (charts.ranking, charts.cost, charts.curves):
        draw(frame, width="3.3in")
    points = {name.rpartition("/")[0] for name, *_ in sweep_points(summarise(jobs_of(frame)))}
    assert points == {"transfer_success/fgsm", "difference_from_first/fgsm"}


def test_the_way_out_of_a_refused_average_works(unlike):
    name, frame = unlike
    words = {"rows": "attack", "columns": "source", "differences": True, "to": "csv"}
    refused(lambda: table(frame, **words), "differences", "--no-average", name)
    table(frame, **words | {"differences": False, "average": False})


def test_an_average_has_no_sources_behind_different_defences():
    frame = frame_of({("fgsm", "vgg", "net"): 12, ("fgsm", "vit@jpeg", "net"): 2})
    cells = pd.read_csv(io.StringIO(table(frame, rows="attack", columns="source", to="csv")))
    assert cells[["vgg", "vit@jpeg"]].to_numpy()[0] == pytest.approx([0.6, 0.1])
    assert not [column for column in cells if "average" in column]


@pytest.mark.parametrize("differing", ["storage", "norm", "trainer.precision"])
def test_a_sweep_has_no_metric_of_an_attack_whose_jobs_no_ranking_compares(differing):
    third = {("mi", *pair): count for (_, *pair), count in FOOLED.items() if pair[0] == "vgg"}
    frame = other(frame_of(FOOLED | third), "vit", **OTHERWISE[differing])
    points = {name: share for name, share, _ in sweep_points(summarise(jobs_of(frame)))}
    assert {name.split("/")[1] for name in points} == {"mi"}
    assert points["transfer_success/mi/reference"] == pytest.approx(0.4)


@pytest.mark.parametrize("count", [0, 7, 20])
def test_a_mean_of_one_pair_has_its_interval(count):
    fooled = {("fgsm", "vgg", "vgg"): 20, ("fgsm", "vgg", "vit"): count}
    frame = frame_of(fooled | {("fgsm", "vit", "vit"): 20})
    page = page_of(frame)
    ends = [float(end) for end in wilson_interval(count * IMAGES // 20, IMAGES)]
    for protocol in ("joint", "all", "target_correct"):
        for source, target in (("", "vit"), ("vgg", ""), ("", "")):
            place = {"attack": "fgsm", "source": source, "target": target, "protocol": protocol}
            place |= {"defence": "none", "eps_255": 8}
            found = [value(page, name, **place) for name in ("s", "sl", "sh", "cl", "ch")]
            expected = [count / 20, *ends, 1 - ends[1], 1 - ends[0]]
            assert found == pytest.approx(expected, abs=1e-6), (source, target, protocol)
    row = pd.read_csv(io.StringIO(table(frame, to="csv", intervals=True))).iloc[0]
    assert row[["average low", "average high"]].tolist() == pytest.approx(ends)
