"""Chart of the transfer matrix."""

from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from ...analysis import OWN, WHITE_BOX
from .theme import WHITE_BOX_GREY, inline, where

_WHITE = f"datum.relation == '{WHITE_BOX}'"
_SPREAD = (
    "(isValid(datum.success_rate_sd) ? "
    "' \N{PLUS-MINUS SIGN} ' + format(100 * datum.success_rate_sd, '.1f') : '')"
)
"""Expression for the standard deviation over seeds, in points."""


def matrix_chart(rows: pd.DataFrame, column: str, angle: float) -> ChartType:
    """Draw the transfer matrix of one attack at one budget, with the shares of a column in cells.

    Cells are dark where the share is large, and grey if they are white boxes. The rows are those of
    one protocol and defence. `angle` is that of the targets' names.
    """
    sources, targets = (list(dict.fromkeys(rows[name])) for name in ("source", "target"))
    axis: dict[str, Any] = {"ticks": False, "labelLimit": 220}
    top = alt.Axis(orient="top", labelAngle=angle, **axis)
    left = alt.Axis(orient="left", labelAngle=0, **axis)
    base = alt.Chart().encode(
        x=alt.X("target:N", sort=targets, title="target", axis=top),
        y=alt.Y("source:N", sort=sources, title="source", axis=left),
    )
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    rate = alt.Color(f"{column}:Q", scale=scale, legend=None)
    rects = base.mark_rect(strokeWidth=2, invalid=None).encode(
        color=alt.when(_WHITE).then(alt.value(WHITE_BOX_GREY)).otherwise(rate),
        stroke=where(f"datum.relation == '{OWN}'", "#f2b28e", "transparent"),
    )
    ink = where(f"datum.{column} > 0.55 && !({_WHITE})", "white", "#1d2127")
    texts = base.mark_text(style="small-cell").encode(text="share:N", color=ink)
    spread = _SPREAD if column == "success_rate" else "''"
    drawn = rows[["source", "target", "relation", "n", column, "success_rate_sd"]]
    return alt.layer(rects, texts, data=inline(drawn)).transform_calculate(
        share=f"datum.n > 0 ? format(datum.{column}, '.0%') + {spread} : 'n/a'",
    )
