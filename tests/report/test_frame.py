"""Charts of a sweep's data frame: the report's counts, for data of many kinds."""

import io
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pytest
import vl_convert

from src import curves, load_sweep, matrix
from src.report.page import VEGA_LITE


def values(chart) -> pd.DataFrame:
    """Return the table inside a chart."""
    (text,) = (one for one in chart.to_dict()["datasets"].values() if isinstance(one, str))
    return pd.read_csv(io.StringIO(text))


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"attacks": ("fgsm", "bim", "mi")},
        {"images": 1, "classes": ("cat",)},
        {"models": ("a\x1b[0]", "it's <b>"), "classes": ("x", "y\r")},
        {"models": [f"model_{i}" for i in range(9)], "images": 20, "budgets": (1 / 3,)},
    ],
)
def test_charts_render_without_a_warning(make_sweep, kind, capfd):
    frame = load_sweep(make_sweep(**kind))
    for draw in (matrix, curves):
        spec = draw(frame).to_dict()
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, show_warnings=True)
        marks = [each.get("class", "") for each in ElementTree.fromstring(svg).iter()]
        assert any("role-mark" in each for each in marks)
    assert "WARN" not in capfd.readouterr().err


@pytest.mark.parametrize("budgets", [(12.0,), (16.0, 32.0), (0.25, 1.0, 3.7)])
def test_curves_are_labelled_with_their_budgets(make_sweep, budgets):
    chart = curves(load_sweep(make_sweep(models=("vgg",), images=20, budgets=budgets)))
    svg = ElementTree.fromstring(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE))
    axes = [each for each in svg.iter() if "role-axis-label" in each.get("class", "")]
    assert ["0", *(f"{each:g}" for each in budgets)] in [[*each.itertext()] for each in axes]


def test_charts_hold_the_counts_of_the_report(make_sweep, made_up):
    frame = load_sweep(make_sweep(attacks=("fgsm", "bim"), full=True))
    (answer,) = (one for one in made_up("ordinary").figures if one.name == "answer")
    wanted = answer.data.reset_index(drop=True)
    for draw in (matrix, curves):
        pd.testing.assert_frame_equal(
            values(draw(frame)), wanted, check_dtype=False, rtol=1e-3, check_column_type=False
        )


def test_fewer_rows_make_other_choices(make_sweep):
    frame = load_sweep(make_sweep(attacks=("fgsm", "bim")))
    few = frame[(frame["attack"] == "bim") & frame["eps_255"].isin([0, 2])].assign(protocol="all")
    chosen = {one["name"]: one["value"] for one in matrix(few).to_dict()["params"]}
    assert chosen == {"matrix_attack": "bim", "budget": 2, "counted": "all"}


def test_what_cannot_be_drawn_is_refused_in_a_sentence(make_sweep):
    frame = load_sweep(make_sweep())
    lacking = frame[(frame["target"] == "vgg") & (frame["source"] == "vit")]
    for draw in (matrix, curves):
        with pytest.raises(ValueError, match="variant"):
            draw(frame.drop(columns="variant"))
        with pytest.raises(ValueError, match="clean images alone"):
            draw(frame[frame["eps_255"] == 0])
        with pytest.raises(ValueError, match="vit"):
            draw(lacking)


def test_other_charts_keep_their_theme(make_sweep):
    plain = alt.Chart().mark_point().to_dict()
    frame = load_sweep(make_sweep())
    assert matrix(frame).to_dict()["config"] != plain["config"]
    assert alt.Chart().mark_point().to_dict() == plain
