"""Charts of a sweep from Python."""

import altair as alt

from src import matrix


def test_other_charts_keep_their_theme(make_sweep):
    plain = alt.Chart().mark_point().to_dict()
    assert matrix(make_sweep()).to_dict()["config"] != plain["config"]
    assert alt.Chart().mark_point().to_dict() == plain
