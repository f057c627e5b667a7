"""Success over the iterations of one run."""

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.report.charts.dots import OF_SOURCE
from src.report.charts.theme import PANEL, STROKES, colour_by, curve, inline, tooltip


def over_iterations(rows: pd.DataFrame) -> ChartType:
    """Return curves of success over iterations of the attack and source chosen, with their bands.

    The rows are those of `success_over_iterations` with `attack` and `source`, and `relation` of
    source and target; white boxes are dashed.
    """
    tried = sorted(set(rows["iteration"]))
    lines = tooltip(
        *("attack", "source", "target", "relation", "iteration", "step_255", "denominator"),
        shares=["success_rate", "success_rate_low", "success_rate_high"],
    )
    axis = alt.Axis(values=tried, labelOverlap=True)
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    base = (
        alt.Chart(inline(rows))
        .transform_filter(OF_SOURCE)
        .encode(
            x=alt.X("iteration:Q", title="iteration", scale=scale, axis=axis),
            color=colour_by("target", rows["target"], columns=3, orient="bottom", **STROKES),
        )
    )
    dashes = alt.StrokeDash("relation:N", legend=None)
    heading = alt.Title(alt.ExprRef("chosen_attack + ', source ' + chosen_first_source"))
    drawn = curve(base, "success_rate", lines, strokeDash=dashes)
    return drawn.properties(width=PANEL, height=220, title=heading)
