"""No mean has jobs that no ranking compares: they are rows of their own."""

import io
import logging
import re
from typing import Any

import pandas as pd
import pytest

import src
from src import rankings
from src.analysis.intervals import wilson_interval
from src.report import figure as charts
from src.report.page.frame import RANKING_KEYS, key_of, selections
from src.report.results import Results
from src.report.shown import answer_of, shown_of
from src.run.track import sweep_points
from tests.records import JOBS, results_of_frame
from tests.report.test_paper import IMAGES, frame_of, table
from tests.report.test_selections import value

FOOLED = {
    ("fgsm", "vgg", "net"): 12,
    ("fgsm", "vgg", "other"): 4,
    ("fgsm", "vit", "net"): 6,
    ("fgsm", "vit", "other"): 14,
}
OTHERWISE = {
    "reference": ({"reference": 4.0}, "reference 8", "reference 4"),
    "budgets": ({"reference": 4.0, "budgets": (0.0, 4.0)}, "reference 8", "reference 4"),
    "norm": ({"norm": "l2"}, "linf", "l2"),
    "protocol": ({"protocol": "all"}, "joint", "all"),
    "images": ({"data": "f" * 16}, "images 012345", "images ffffff"),
    "fewer images": ({"data": "f" * 16, "images": IMAGES // 2}, "40 images", "20 images"),
    "image size": ({"data": "f" * 16, "values": 768}, "8 px", "16 px"),
    "storage": ({"storage": "uint8"}, "float32", "uint8"),
    "seed": ({"seed": 6}, "seed 5", "seed 6"),
    "precision": ({"precision": "bf16-mixed"}, "float32", "bf16-mixed"),
    "code": ({"code": {"program": "fedcba98"}}, "", "program fedcba98"),
}
"""Facts of the jobs of one source, and the words that tell both jobs apart."""


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


def page_of(results: Results) -> dict[str, Any]:
    return selections(results, shown_of(results))


def of_table(results: Results, name: str) -> list[float]:
    text = src.table(results, rows="attack", columns="target", eps_255=4, to="csv")
    rows = pd.read_csv(io.StringIO(text), index_col=0)
    return rows.loc[name, ["net", "other", "average"]].tolist()


def of_frame(results: Results, name: str) -> list[float]:
    rows = results.select(attack=name, eps_255=4.0).sort_values(["source", "target", "protocol"])
    return rows["success_rate"].tolist()


def of_page(results: Results, name: str) -> list[float]:
    page = page_of(results)
    place = {"attack": name, "defence": "none", "eps_255": 4, "source": "vit", "protocol": "joint"}
    return [value(page, "fooled", **place, target=target) for target in ("net", "other", "")]


def of_rankings(results: Results, name: str) -> list[float]:
    return rankings(results).query("attack == @name and eps_255 == 4")["mean"].tolist()


def of_metrics(results: Results, name: str) -> list[float]:
    name = re.sub(r"[^\w.-]+", " ", name).strip()
    return [share for metric, share, _ in sweep_points(results) if name in metric.split("/")]


def of_curves(results: Results, name: str) -> list[float]:
    spec = charts.curves(results, attack=name, source="vit", height="3in").to_dict()
    rows = [row for rows in spec["datasets"].values() for row in rows]
    return [row["value"] for row in rows if "value" in row]


@pytest.mark.parametrize("differing", OTHERWISE)
@pytest.mark.parametrize(
    "output", [of_frame, of_table, of_page, of_rankings, of_metrics, of_curves]
)
def test_incomparable_jobs_have_the_numbers_and_names_of_their_own(differing, output):
    facts, *words = OTHERWISE[differing]
    frame = other(frame_of(FOOLED), "vit", **facts)
    both = results_of_frame(frame)
    names = [f"fgsm ({word})" if word else "fgsm" for word in words]
    assert {*both.frame["attack"]} == {*names}
    alone = frame[frame["source"] == "vit"]
    alone.attrs[JOBS] = frame.attrs[JOBS]
    numbers = output(both, names[1])
    assert numbers and numbers == pytest.approx(output(results_of_frame(alone), "fgsm"))


def test_no_figure_draws_a_mean_over_incomparable_jobs(caplog):
    results = results_of_frame(other(frame_of(FOOLED), "vit", storage="uint8"))
    for draw in (charts.curves, charts.ranking, charts.cost):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            spec = draw(results, height="3in").to_json()
        assert "mean of sources" not in spec
        assert "Not drawn: fgsm (" in caplog.text
        draw(results, height="3in", source=["vgg", "vit"], attack=[*{*results.frame["attack"]}])


def test_other_attacks_keep_their_mean_on_the_page():
    fooled = {(attack, *pair): n for (_, *pair), n in FOOLED.items() for attack in ("fgsm", "mi")}
    third = {("fgsm", "mlp", target): count for target, count in (("net", 3), ("other", 20))}
    page = page_of(results_of_frame(other(frame_of(third | fooled), "mlp", storage="uint8")))
    place = {"source": "", "defence": "none", "eps_255": 8, "protocol": "joint"}
    single = dict(zip(page["axes"]["attack"], page["means"], strict=True))
    assert sorted(single.values()) == ["its only source", *["mean of 2 sources"] * 2]
    for attack, count in single.items():
        expected = [0.45, 0.45, 0.45] if "2" in count else [0.15, 1, 0.575]
        its = [
            value(page, "fooled", **place, attack=attack, target=at) for at in ("net", "other", "")
        ]
        assert its == pytest.approx(expected), attack
    rows = page["rankings"][key_of(page["axes"], place, RANKING_KEYS)]["rows"]
    assert {row["name"] for row in rows if "name" in row} == {*single}
    assert len([row for row in rows if "heading" in row]) == 2


@pytest.mark.parametrize(("fact", "value_"), [("storage", "uint8"), ("precision", "bf16-mixed")])
def test_the_caption_names_the_number_formats_where_they_differ(fact, value_):
    assert "Arithmetic" not in table(frame_of(FOOLED), to="markdown")
    text = table(other(frame_of(FOOLED), "vit", **{fact: value_}), to="markdown")
    assert "Arithmetic: float32, saved as float32; " in text


def test_attacks_of_another_ranking_are_named(caplog):
    fooled = {(attack, *pair): n for (_, *pair), n in FOOLED.items() for attack in ("fgsm", "mi")}
    frame = frame_of(fooled)
    frame.attrs[JOBS] = [
        job | ({"seed": 9} if job["attack"] == "mi" else {}) for job in frame.attrs[JOBS]
    ]
    results = results_of_frame(frame)
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(results)
        assert "Not drawn: mi" in caplog.text and "fgsm" not in caplog.text
        caplog.clear()
        draw(results, attack=["fgsm", "mi"])
        assert not caplog.text


def test_a_ranking_says_over_how_many_sources_its_attacks_are_means():
    pairs = {("di", "vgg"): 12, ("di", "vit"): 3, ("fgsm", "vit"): 6, ("fgsm", "mlp"): 8}
    one = {("di", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6}
    ranked = rankings(results_of_frame(frame_of(one)))
    assert {*ranked["source"]} == {"mean of 1 source", "vgg", "vit"} and {*ranked["sources"]} == {1}
    assert page_of(results_of_frame(frame_of(one)))["axes"]["source"] == ["vgg", "vit"]
    frame = frame_of({(*job, "net"): count for job, count in pairs.items()})
    ranked = rankings(results_of_frame(frame))
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
    results = results_of_frame(frame_of(UNEVEN))
    page = page_of(results)
    place = {"source": "", "defence": "none", "eps_255": 8, "protocol": "joint"}
    rows = page["rankings"][key_of(page["axes"], place, RANKING_KEYS)]["rows"]
    shown = {row["name"]: (row.get("value"), row["lacks"]) for row in rows if "name" in row}
    assert shown == {"mi": (0.5, ""), "fgsm": (None, "vgg -> other and 1 more")}
    lead, rest, _ = answer_of(results, shown_of(results))
    assert f"{lead}{rest}" == "mi at 8/255 fools 50.0 % of images"
    low, mean = (
        value(page, name, **place, attack="mi", target="") for name in ("fooled.low", "fooled")
    )
    assert mean == 0.5 and 0.3 < low < 0.4
    points = {name: share for name, share, _ in sweep_points(results)}
    at = "reference"
    assert points[f"transfer_success/mi/{at}"] == 0.5
    assert {name for name in points if name.startswith("diff") and name.endswith(at)} == {
        f"difference_from_first/mi/{at}"
    }


def test_figures_draw_a_mean_over_the_one_source_that_is_left(caplog):
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(results_of_frame(frame_of(UNEVEN)))
        assert "Not drawn: fgsm (another ranking, or none)" in caplog.text


def test_an_average_has_no_sources_behind_different_defences():
    frame = frame_of({("fgsm", "vgg", "net"): 12, ("fgsm", "vit@jpeg", "net"): 2})
    cells = pd.read_csv(io.StringIO(table(frame, rows="attack", columns="source", to="csv")))
    assert cells[["vgg", "vit@jpeg"]].to_numpy()[0] == pytest.approx([0.6, 0.1])
    assert not [column for column in cells if "average" in column]


NAMES = ("fooled", "fooled.low", "fooled.high", "correct.low", "correct.high")


@pytest.mark.parametrize("count", [0, 7, 20])
def test_a_mean_of_one_pair_has_its_interval(count):
    fooled = {("fgsm", "vgg", "vgg"): 20, ("fgsm", "vgg", "vit"): count}
    frame = frame_of(fooled | {("fgsm", "vit", "vit"): 20})
    page = page_of(results_of_frame(frame))
    ends = [float(end) for end in wilson_interval(count * IMAGES // 20, IMAGES)]
    for protocol in ("joint", "all", "target_correct"):
        for source, target in (("", "vit"), ("vgg", ""), ("", "")):
            place = {"attack": "fgsm", "source": source, "target": target, "protocol": protocol}
            place |= {"defence": "none", "eps_255": 8}
            found = [value(page, name, **place) for name in NAMES]
            expected = [count / 20, *ends, 1 - ends[1], 1 - ends[0]]
            assert found == pytest.approx(expected, abs=6e-5), (source, target, protocol)
    row = pd.read_csv(io.StringIO(table(frame, to="csv", intervals=True))).iloc[0]
    assert row[["average low", "average high"]].tolist() == pytest.approx(ends)
