"""Every chart by its data and encoding, and without warnings for data of many kinds."""

import json
from xml.etree import ElementTree

import pandas as pd
import pytest
import vl_convert

from src.report.charts.theme import inline
from src.report.page.html import VEGA_LITE
from src.report.shown import shown_of

DRAWN = ("missing values",)  # some of Vega's warnings come from drawing alone
COMPILED = ("ordinary", "unsure", "one image", "hostile names", "many models")
COMPILED += ("sources that are no targets",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [*DRAWN, *COMPILED],
)
def test_every_chart_renders_without_a_warning(made_up, kind, capfd):
    report = made_up(kind)
    names = [one.name for one in report.figures]
    assert len(set(names)) == len(names) and "confidences" in names
    for one in report.figures:
        one.chart.to_dict()  # valid by Vega-Lite's schema
        spec = {**one.drawn(), "datasets": {"rows": json.loads(one.data.to_json(orient="records"))}}
        if kind in DRAWN:
            svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, show_warnings=True)
            marks = [each.get("class", "") for each in ElementTree.fromstring(svg).iter()]
            assert any("role-mark" in each for each in marks), one.name
        else:
            vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE, show_warnings=True)
        assert spec["description"] == f"{one.title}. {one.caption}"
    assert "WARN" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_ranking_is_in_the_order_of_the_summary(results_of_kind):
    ranking = shown_of(results_of_kind("ordinary")).ranking
    assert ranking["eps_255"].iloc[0] == 8 and ranking["eps_255"].nunique() > 1
    for _, rows in ranking.groupby("eps_255"):  # ranked anew at every budget
        means = rows[rows["source"] == "mean of sources"]
        assert means["mean"].is_monotonic_decreasing and list(means["rank"]) == [1, 2]
        own = rows[rows["source"] == "vgg"]
        assert own["mean"].is_monotonic_decreasing and list(own["rank"]) == [1, 2]


@pytest.mark.slow
def test_each_attack_of_a_single_source_has_one_row_in_the_ranking(results_of_kind):
    ranked = shown_of(results_of_kind("one source")).first_ranking
    assert sorted(ranked["attack"]) == ["bim", "fgsm"]


def test_numbers_keep_all_digits_before_the_point():
    frame = pd.DataFrame({"images": [12345.0, None], "gradients": [21555.4, 0.123456]})
    assert inline(frame).values.splitlines()[1:] == ["12345,21555", ",0.1235"]


@pytest.mark.slow
def test_full_jobs_have_every_chart(made_up):
    assert {one.name for one in made_up("ordinary").figures} == {
        *("hypothesis", "similarity", "filtered", "spectra", "low-passed"),
        *("visibility", "iterations", "variants", "excess"),
        *("confidences", "confidence-profiles", "classes"),
    }
