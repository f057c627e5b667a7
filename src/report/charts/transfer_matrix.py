"""Chart of the transfer matrix, and the rows that all charts of rates share."""

from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from ...analysis import CLEAN, OWN, RELATED, WHITE_BOX, clean_rows
from ...analysis.quantities import QUANTITIES, SHARE
from .theme import WHITE_BOX_GREY, inline, tooltip, where

_DRAWN = [quantity for quantity in QUANTITIES.values() if quantity.drawn]
_COLUMNS = [
    *("attack", "protocol", "source", "target", "defence", "eps_255"),
    *(name for quantity in _DRAWN for name in quantity.drawn_columns),
    *("success_rate_sd", "relation", "overlap", "targeted"),
]
_LINES = sorted((entry for entry in _DRAWN if entry.tooltip), key=lambda entry: entry.tooltip)
COUNTS = tooltip(
    "attack source target relation overlap defence",
    *(quantity.drawn for quantity in _LINES if quantity.form != SHARE),
    "interval",
    shares=[quantity.drawn for quantity in _LINES if quantity.form == SHARE],
)
"""Tooltip of a cell: names, counts and denominator."""
_WHITE = f"datum.relation == '{WHITE_BOX}'"
INTERVAL = (
    "isValid(datum.success_rate_low) ? format(datum.success_rate_low, '.1%') + ' to ' + "
    "format(datum.success_rate_high, '.1%') : 'none'"
)
"""Expression for the interval in the tooltip."""
SPREAD = (
    f"(datum.source != '{CLEAN}' && isValid(datum.success_rate_sd) ? "
    "' \N{PLUS-MINUS SIGN} ' + format(100 * datum.success_rate_sd, '.1f') : '')"
)
"""Expression for the standard deviation over seeds, in points."""


def drawn_rows(rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that the charts draw, from `primary_rates`, with source `clean` first."""
    costs = [quantity.drawn for quantity in _DRAWN if not quantity.of_predictions]
    clean = clean_rows(rates).assign(**dict.fromkeys(costs, 0.0))
    return pd.concat([clean, rates], ignore_index=True)[_COLUMNS]


def of_success() -> Any:
    """Return the colour for a success rate, dark where the attack succeeds; white boxes grey."""
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    rate = alt.Color("success_rate:Q", scale=scale, legend=None)
    return alt.when(_WHITE).then(alt.value(WHITE_BOX_GREY)).otherwise(rate)


def ink() -> Any:
    """Return a colour for text that is legible on the colour of the cell."""
    return where(f"datum.success_rate > 0.55 && !({_WHITE})", "white", "#1d2127")


def matrix_chart(rows: pd.DataFrame, angle: float = -40) -> ChartType:
    """Draw the transfer matrix of one attack at one budget, with rates in the cells.

    The rows are those of the clean images and of one protocol and defence. `angle` is that of the
    targets' names.
    """
    attacked = rows[rows["source"] != CLEAN]
    sources, targets = (list(dict.fromkeys(attacked[name])) for name in ("source", "target"))
    axis: dict[str, Any] = {"ticks": False, "labelLimit": 220}
    top, left = (
        alt.Axis(orient="top", labelAngle=angle, **axis),
        alt.Axis(orient="left", labelAngle=0, **axis),
    )
    base = alt.Chart().encode(
        x=alt.X("target:N", sort=targets, title="target", axis=top),
        y=alt.Y("source:N", sort=[CLEAN, *sources], title="source", axis=left),
    )
    clean = base.transform_filter(f"datum.source == '{CLEAN}'").encode(color=alt.value("#888888"))
    cells = base.transform_filter(f"datum.source != '{CLEAN}'")
    rects = cells.mark_rect(strokeWidth=2, invalid=None).encode(
        color=of_success(), stroke=_frame(), tooltip=COUNTS
    )
    layers = [rects]
    for part, colour in ((cells, {"color": ink()}), (clean, {})):
        text = part.mark_text(style="small-cell")
        layers.append(text.encode(text="share:N", tooltip=COUNTS, **colour))
    return alt.layer(*layers, data=inline(rows)).transform_calculate(
        interval=INTERVAL,
        clean=f"datum.source == '{CLEAN}'",
        share="datum.n > 0 ? format(datum.clean ? datum.still_correct / datum.n "
        f": datum.success_rate, '.0%') + {SPREAD} : 'n/a'",
    )


def _frame() -> Any:
    """Return the colour of a cell's frame, by its relation to the source."""
    own = alt.when(f"datum.relation == '{OWN}'").then(alt.value("#f2b28e"))
    related = own.when(f"datum.relation == '{RELATED}'").then(alt.value("#a58fcf"))
    return related.otherwise(alt.value("transparent"))
