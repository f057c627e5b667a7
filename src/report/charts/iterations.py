"""Success over the iterations of one run."""

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.report.charts.theme import GREY, PANEL, STROKES, colour_by, curve, inline, tooltip


def over_iterations(rows: pd.DataFrame) -> ChartType:
    """Return curves of success over iterations with their bands, a panel for each job.

    The rows are those of `success_over_iterations` with `attack` and `source`, and `relation` of
    source and target.
    """
    data = inline(rows)
    tried = sorted(set(rows["iteration"]))
    lines = tooltip(
        *("attack", "source", "target", "relation", "iteration", "step_255", "denominator"),
        shares=["success_rate", "success_rate_low", "success_rate_high"],
    )
    axis = alt.Axis(values=tried, labelOverlap=True)
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    base = alt.Chart().encode(
        x=alt.X("iteration:Q", title="iteration", scale=scale, axis=axis),
        color=colour_by("target", rows["target"], columns=3, orient="bottom", **STROKES),
    )
    legend = alt.Legend(orient="bottom", symbolStrokeColor=GREY, symbolSize=700, **STROKES)
    dashes = alt.StrokeDash("relation:N", legend=legend)
    panels = []
    for (attack, source), one in rows.groupby(["attack", "source"], sort=False):
        is_its = (alt.datum.attack == attack) & (alt.datum.source == source)
        steps = f"steps of {one['step_255'].iloc[0]:.3g}/255"
        panel = curve(base, "success_rate", lines, strokeDash=dashes).transform_filter(is_its)
        title = alt.Title(f"{attack} on {source}", subtitle=steps)
        panels.append(panel.properties(width=PANEL, height=180, title=title))
    return alt.concat(*panels, columns=2, data=data)
