"""No mean has jobs that no ranking compares; they are rows named by what differs."""

import io
import logging
from typing import Any

import pandas as pd
import pytest

from src import rankings
from src.analysis.intervals import wilson_interval
from src.report import figure as charts
from src.report.page.answers import answer_of
from src.report.page.selections import RANKING_KEYS, key_of, selections
from src.report.shown import shown_of
from tests.records import JOBS, results_of_frame
from tests.report.test_paper import IMAGES, frame_of, table
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
    results = results_of_frame(frame)
    return selections(results, shown_of(results))


def test_incomparable_jobs_are_rows_of_their_own_with_their_own_means(unlike):
    name, frame = unlike
    text = table(frame, rows="attack", columns="source", to="csv")
    cells = pd.read_csv(io.StringIO(text)).set_index("attack")
    half, double = 0.5 if "reference" in name else 1, 2 if "20 of" in name else 1
    expected = {"vgg": 0.4, "vit": 0.4 * half * double}
    for attack, (source, mean) in zip(cells.index, expected.items(), strict=True):
        assert attack.startswith("fgsm")
        assert cells.loc[attack, [source, "average"]].tolist() == pytest.approx([mean] * 2)
        assert cells.loc[attack, [*expected.keys() - {source}]].isna().all()
    assert table(frame, rows="attack", columns="source", differences=True, to="csv")


@pytest.mark.parametrize(("fact", "value_"), [("storage", "uint8"), ("precision", "bf16-mixed")])
def test_the_caption_names_the_number_formats_where_they_differ(fact, value_):
    assert "Arithmetic" not in table(frame_of(FOOLED), to="markdown")
    text = table(other(frame_of(FOOLED), "vit", **{fact: value_}), to="markdown")
    assert "Arithmetic: float32, saved as float32; " in text


def test_a_ranking_says_over_how_many_sources_its_attacks_are_means():
    pairs = {("di", "vgg"): 12, ("di", "vit"): 3, ("fgsm", "vit"): 6, ("fgsm", "mlp"): 8}
    one = {("di", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6}
    ranked = rankings(results_of_frame(frame_of(one)))
    assert {*ranked["source"]} == {"mean of 1 source", "vgg", "vit"} and {*ranked["sources"]} == {1}
    assert page_of(frame_of(one))["axes"]["source"] == ["vgg", "vit"]
    ranked = rankings(results_of_frame(frame_of({(*job, "net"): n for job, n in pairs.items()})))
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
    results = results_of_frame(frame)
    page = page_of(frame)
    place = {"source": "", "defence": "none", "eps_255": 8, "protocol": "joint"}
    rows = page["ranking"][key_of(page["axes"], place, RANKING_KEYS)]
    shown = {row["name"]: (row["m"], row["lacks"]) for row in rows if "name" in row}
    assert shown == {"mi": (0.5, ""), "fgsm": (None, "vgg -> other and 1 more")}
    lead, rest, _ = answer_of(results, shown_of(results))
    assert f"{lead}{rest}" == "mi at 8/255 fools 50.0 % of images"
    low, mean = (value(page, name, **place, attack="mi", target="") for name in ("sl", "s"))
    assert mean == 0.5 and 0.3 < low < 0.4


def test_figures_draw_a_mean_over_the_one_source_that_is_left(caplog):
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(results_of_frame(frame_of(UNEVEN)), width="3.3in")
        assert "Not drawn: fgsm (another ranking, or none)" in caplog.text


def test_attacks_of_another_ranking_are_named(caplog):
    fooled = {(attack, *pair): n for (_, *pair), n in FOOLED.items() for attack in ("fgsm", "mi")}
    frame = frame_of(fooled)
    frame.attrs[JOBS] = [
        job | ({"seed": 9} if job["attack"] == "mi" else {}) for job in frame.attrs[JOBS]
    ]
    for draw in (charts.ranking, charts.cost, charts.curves):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            draw(results_of_frame(frame), width="3.3in")
        assert "Not drawn: mi" in caplog.text and "fgsm" not in caplog.text
        caplog.clear()
        draw(results_of_frame(frame), width="3.3in", attack=["fgsm", "mi"])
        assert not caplog.text


def test_an_average_has_no_sources_behind_different_defences():
    frame = frame_of({("fgsm", "vgg", "net"): 12, ("fgsm", "vit@jpeg", "net"): 2})
    cells = pd.read_csv(io.StringIO(table(frame, rows="attack", columns="source", to="csv")))
    assert cells[["vgg", "vit@jpeg"]].to_numpy()[0] == pytest.approx([0.6, 0.1])
    assert not [column for column in cells if "average" in column]


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
