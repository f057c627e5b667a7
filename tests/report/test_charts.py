"""Every chart by its data and encoding, and without warnings for data of many kinds."""

import io
from xml.etree import ElementTree

import pandas as pd
import pytest
import vl_convert

from src.report.page import VEGA_LITE, Figure

DRAWN = ("missing values",)  # some of Vega's warnings come from drawing alone
COMPILED = ("ordinary", "unsure", "one image", "hostile names", "many models")


def drawn(figure: Figure) -> pd.DataFrame:
    """Return the largest table inside a specification."""
    texts = [text for text in figure.spec["datasets"].values() if isinstance(text, str)]
    return pd.read_csv(io.StringIO(max(texts, key=len)))


def parts(spec: dict, key: str) -> list:
    """Return every value of a key anywhere in a specification."""
    found = [spec[key]] if key in spec else []
    for value in spec.values():
        for each in value if isinstance(value, list) else [value]:
            found += parts(each, key) if isinstance(each, dict) else []
    return found


def figure(report, name: str) -> Figure:
    return next(one for one in report.figures if one.name == name)


@pytest.mark.parametrize("kind", [*DRAWN, *COMPILED])
def test_every_chart_renders_without_a_warning(made_up, kind, capfd):
    report = made_up(kind)
    names = [one.name for one in report.figures]
    assert len(set(names)) == len(names) and "answer" in names
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


def test_the_answer_links_matrix_and_curves(made_up):
    one = figure(made_up("ordinary"), "answer")
    rows = drawn(one)
    cell = rows[(rows["attack"] == "bim") & (rows["source"] == "vgg") & (rows["eps_255"] == 8)]
    expected = one.data.query("attack == 'bim' and source == 'vgg' and eps_255 == 8")
    assert cell[["protocol", "target", "k", "n"]].to_numpy().tolist() == (
        expected[["protocol", "target", "k", "n"]].to_numpy().tolist()
    )
    assert set(rows["protocol"]) == {"all", "source_correct", "target_correct", "joint"}
    assert len(rows) == 2 * (4 * 9 * 6 + 3)  # attacks, protocols, pairs, budgets; clean images
    names = {each["name"]: each for each in one.spec["params"]}
    assert names["matrix_attack"]["bind"]["options"] == ["fgsm", "bim"]
    assert names["budget"]["value"] == 8 and names["counted"]["value"] == "joint"
    assert names["cell"]["select"]["fields"] == ["source", "target"]
    assert all("legend" in names[name]["bind"] for name in ("drawn_attacks", "drawn_targets"))


CHARTS = {
    *("answer", "variants", "excess", "hypothesis", "images", "compared-attacks"),
    *("compared-sources", "spectra", "filtered", "low-passed"),
    *("similarity", "confidence-profiles", "classes"),
}


def test_full_jobs_have_every_chart(made_up):
    assert {one.name for one in made_up("ordinary").figures} == CHARTS


def test_names_stay_text(made_up):
    one = figure(made_up("hostile names"), "answer")
    rows = drawn(one)
    assert set(rows["attack"]) == {"f.g[0]<b>"} and 'a"b\nc.d[0]' in set(rows["target"])
    (data,) = {str(each["format"]) for each in parts(one.spec, "data") if "format" in each}
    assert "'target': 'string'" in data and "'k': 'number'" in data


def test_budgets_are_exact(made_up):
    one = figure(made_up("missing values"), "answer")
    (menu,) = [each for each in one.spec["params"] if each["name"] == "budget"]
    assert menu["bind"]["options"] == [0.0234375, 1 / 3, 12345.678]
    assert set(menu["bind"]["options"]) | {0.0} == set(drawn(one)["eps_255"])


def test_too_few_images_leave_a_sentence(made_up):
    (section,) = (one for one in made_up("one image").sections if one.id == "hypothesis")
    (sentence,) = section.text
    assert "1 at most" in sentence and not section.figures


def test_many_rows_are_chosen_from_a_menu(made_up):
    names = {one.name: one.spec for one in made_up("many models").figures}
    menus = [each["bind"]["options"] for each in names["hypothesis"]["params"] if "bind" in each]
    assert [len(options) for options in menus] == [9]
    (cell,) = [each for each in names["answer"]["params"] if each["name"] == "cell"]
    assert [[*each] for each in cell["value"]] == [["source"]]  # its row is the initial choice
