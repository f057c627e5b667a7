"""Charts of a sweep from Python: the report's counts, drawn as a notebook draws them."""

import altair as alt
import pytest
import vl_convert

from src import curves, matrix
from src.report.page.html import VEGA_LITE


def test_charts_render_without_a_warning(make_sweep, capfd):
    folder = make_sweep(attacks=("fgsm", "bim", "mi"))
    for draw in (matrix, curves):
        svg = vl_convert.vegalite_to_svg(
            draw(folder).to_dict(), vl_version=VEGA_LITE, show_warnings=True
        )
        assert "role-mark" in svg
    assert "WARN" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_first_choices_are_those_asked_for(make_sweep):
    folder = make_sweep(attacks=("fgsm", "bim"))
    for words, choices in (
        ({"attack": "fgsm"}, ("fgsm", 8, "joint", "none")),
        ({"attack": "bim", "eps_255": 2}, ("bim", 2, "joint", "none")),
    ):
        spec = matrix(folder, **words).to_dict()
        first = {one["name"]: one["value"] for one in spec["params"]}
        names = ("chosen_attack", "chosen_eps", "chosen_protocol", "chosen_defence")
        assert tuple(first[name] for name in names) == choices
    with pytest.raises(ValueError, match="attack=mi: "):
        matrix(folder, attack="mi")
    spec = curves(folder, source="vit").to_dict()
    first = {one["name"]: one for one in spec["params"]}
    assert first["chosen_source"]["value"] == "vit"
    assert first["chosen_source"]["bind"]["options"] == ["", "vgg", "resnet", "vit"]


def test_other_charts_keep_their_theme(make_sweep):
    plain = alt.Chart().mark_point().to_dict()
    assert matrix(make_sweep()).to_dict()["config"] != plain["config"]
    assert alt.Chart().mark_point().to_dict() == plain
