"""Charts of a sweep from Python: the report's counts, drawn as a notebook draws them."""

import io

import altair as alt
import pandas as pd
import pytest
import vl_convert

from src import curves, matrix
from src.report.page.html import VEGA_LITE


@pytest.mark.slow
def test_charts_render_without_a_warning(make_sweep, capfd):
    folder = make_sweep(attacks=("fgsm", "bim", "mi"))
    for draw in (matrix, curves):
        svg = vl_convert.vegalite_to_svg(
            draw(folder).to_dict(), vl_version=VEGA_LITE, show_warnings=True
        )
        assert "role-mark" in svg
    assert "WARN" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_chart_shows_what_was_asked_for(make_sweep):
    folder = make_sweep(attacks=("fgsm", "bim"))
    spec = matrix(folder, attack="bim", eps_255=2.0).to_dict()
    (rows,) = spec["datasets"].values()
    assert spec["title"]["text"][0].startswith("bim: ") and "2/255" in spec["title"]["text"][0]
    assert len(pd.read_csv(io.StringIO(rows))) == 9
    with pytest.raises(ValueError, match="attack=mi: "):
        curves(folder, attack="mi")


def test_other_charts_keep_their_theme(make_sweep):
    plain = alt.Chart().mark_point().to_dict()
    assert matrix(make_sweep()).to_dict()["config"] != plain["config"]
    assert alt.Chart().mark_point().to_dict() == plain
