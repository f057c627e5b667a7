"""Charts of a sweep from Python."""

import altair as alt
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


def test_other_charts_keep_their_theme(make_sweep):
    plain = alt.Chart().mark_point().to_dict()
    assert matrix(make_sweep()).to_dict()["config"] != plain["config"]
    assert alt.Chart().mark_point().to_dict() == plain
