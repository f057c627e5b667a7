"""Every chart by its data and encoding, and without warnings for data of many kinds."""

import io
from xml.etree import ElementTree

import pandas as pd
import pytest
import vl_convert

from src.report.charts.theme import inline
from src.report.page.html import VEGA_LITE, Figure

DRAWN = ("missing values",)  # some of Vega's warnings come from drawing alone
COMPILED = ("ordinary", "unsure", "one image", "hostile names", "many models")
COMPILED += ("sources that are no targets",)


def drawn(figure: Figure) -> pd.DataFrame:
    """Return the largest table inside a specification."""
    texts = [text for text in figure.spec["datasets"].values() if isinstance(text, str)]
    return pd.read_csv(io.StringIO(max(texts, key=len)))


def figure(report, name: str) -> Figure:
    return next(one for one in report.figures if one.name == name)


@pytest.mark.parametrize(
    "kind",
    [*DRAWN, "one image", "hostile names"]
    + [
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in COMPILED
        if kind not in ("one image", "hostile names")
    ],
)
def test_every_chart_renders_without_a_warning(made_up, kind, capfd):
    report = made_up(kind)
    names = [one.name for one in report.figures]
    assert len(set(names)) == len(names) and "curves" in names
    for one in report.figures:
        one.chart.to_dict()  # valid by Vega-Lite's schema
        if kind in DRAWN:
            svg = vl_convert.vegalite_to_svg(one.spec, vl_version=VEGA_LITE, show_warnings=True)
            marks = [each.get("class", "") for each in ElementTree.fromstring(svg).iter()]
            assert any("role-mark" in each for each in marks), one.name
        else:
            vl_convert.vegalite_to_vega(one.spec, vl_version=VEGA_LITE, show_warnings=True)
        assert one.spec["description"] == f"{one.title}. {one.caption}"
    assert "WARN" not in capfd.readouterr().err


def test_the_charts_of_an_attack_share_one_table(made_up):
    names = {one.name: one for one in made_up("ordinary").figures}
    rows = drawn(names["matrix"])
    for name in ("ranking", "curves"):
        pd.testing.assert_frame_equal(drawn(names[name]), rows)
    cell = "attack == 'bim' and source == 'vgg' and eps_255 == 8"
    counted = ["protocol", "target", "success", "still_correct", "n"]
    expected = names["matrix"].data.query(cell)[counted]
    assert rows.query(cell)[counted].to_numpy().tolist() == expected.to_numpy().tolist()
    assert (expected["success"] + expected["still_correct"] == expected["n"]).all()
    assert set(rows["protocol"]) == {"all", "source_correct", "target_correct", "joint"}
    means = rows.query("source == 'mean of sources' and eps_255 == 8 and protocol == 'joint'")
    sources = rows.query("source in ['vgg', 'resnet', 'vit'] and eps_255 == 8")
    sources = sources.query("protocol == 'joint'").groupby(["attack", "target", "relation"])
    mean = sources["success_rate"].mean()
    for row in means.to_dict("records"):
        place = (row["attack"], row["target"], row["relation"])
        assert row["success_rate"] == pytest.approx(mean.loc[place], rel=1e-3)
    assert len(means) == 2 * 3 * 2  # attacks, targets, white boxes apart


def test_the_ranking_is_in_the_order_of_the_summary(made_up):
    (ranking,) = (one.data for one in made_up("ordinary").figures if one.name == "ranking")
    assert ranking["eps_255"].iloc[0] == 8 and ranking["eps_255"].nunique() > 1
    for _, rows in ranking.groupby("eps_255"):  # ranked anew at every budget
        means = rows[rows["source"] == "mean of sources"]
        assert means["mean"].is_monotonic_decreasing and list(means["position"]) == [1, 2]
        own = rows[rows["source"] == "vgg"]
        assert own["mean"].is_monotonic_decreasing and list(own["own_position"]) == [1, 2]


def test_each_attack_of_a_single_source_has_one_row_in_the_ranking(made_up):
    spec = figure(made_up("one source"), "ranking").spec
    svg = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
    assert sorted(text for text in svg.itertext() if text in ("fgsm", "bim")) == ["bim", "fgsm"]


def test_full_jobs_have_every_chart(made_up):
    assert {one.name for one in made_up("ordinary").figures} == {
        *("ranking", "curves", "matrix", "variants", "excess", "hypothesis", "groups"),
        "attacks-over-budget",
        *("compared-attacks", "compared-sources", "spectra", "filtered", "low-passed"),
        *("similarity", "confidence-profiles", "classes", "strongest", "at-least"),
        *("visibility", "iterations"),
    }


def test_budgets_are_exact(made_up):
    report = made_up("missing values")
    wanted = {0.0234375, 1 / 3, 234.56789}
    assert {float(value) for value, _ in report.menus["eps"]} == wanted
    assert wanted | {0.0} == set(drawn(figure(report, "curves"))["eps_255"])


def test_numbers_keep_all_digits_before_the_point():
    frame = pd.DataFrame({"images": [12345.0, None], "gradients": [21555.4, 0.123456]})
    assert inline(frame).values.splitlines()[1:] == ["12345,21555", ",0.1235"]


def test_too_few_images_leave_a_sentence(made_up):
    (section,) = (one for one in made_up("one image").sections if one.id == "hypothesis")
    (sentence,) = section.text
    assert "1 at most" in sentence and not section.figures


def test_the_attacker_who_may_choose_fools_as_many_as_the_best_or_more(made_up):
    report = made_up("ordinary")
    rows = figure(report, "strongest").data
    best, any_of_them = (rows.drop_duplicates("target", keep=end) for end in ("first", "last"))
    best, any_of_them = (each.set_index("target")["rate"] for each in (best, any_of_them))
    assert (any_of_them >= best).all() and len(best) == 3
    counts = figure(report, "at-least").data.set_index(["target", "k"])["share"]
    for target in best.index:
        assert counts[target].is_monotonic_decreasing
        assert counts[target, 1] == any_of_them[target]
