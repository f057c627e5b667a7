"""Power spectra of images and perturbations."""

from collections.abc import Callable

import altair as alt
import pandas as pd

from src.artifacts.jobs import FinishedJob
from src.report.charts.theme import PANEL, STROKES, chosen, colour_by, extent, inline, tooltip
from src.report.page.html import Figure

_CLEAN = "(clean images)"


def summarise(table: pd.DataFrame, job: FinishedJob, rename: Callable[[str], str]) -> pd.DataFrame:
    """Return the table as it is: it already holds means over images."""
    return table


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the share of power by spatial frequency."""
    rows = rows.assign(frequency=(rows["frequency_low"] + rows["frequency_high"]) / 2)
    caption = (
        f"Mean share of power by spatial frequency, for {rows['n'].max()} images and for the "
        "chosen attack's perturbations at the reference budget. The constant part is left out."
    )
    sources = list(dict.fromkeys(rows["source"]))
    lines = tooltip("attack", "source", "kind", shares=["share"], numbers=["frequency"])
    drawn = rows[rows["share"] > 0]
    scale, axis = extent(drawn, "share", type="log"), alt.Axis(format="~%")
    wide = extent(drawn, "frequency")
    base = alt.Chart(inline(rows)).transform_filter(f"datum.share > 0 && {chosen('attack')}")
    base = base.encode(
        x=alt.X("frequency:Q", title="spatial frequency (cycles per pixel)", scale=wide),
        y=alt.Y("share:Q", title="share of power", scale=scale, axis=axis),
    )
    images = base.transform_filter("datum.kind == 'image'").mark_line(strokeWidth=4, opacity=0.7)
    curves = base.transform_filter("datum.kind == 'perturbation'").mark_line(point=True)
    names = [*sources, _CLEAN]
    colour = colour_by("source", names, "perturbations from", orient="bottom", **STROKES)
    chart = alt.layer(
        images.encode(color=alt.datum(_CLEAN), tooltip=lines[2:], detail=["source:N"]),
        curves.encode(color=colour, tooltip=lines),
    ).properties(width=PANEL, height=240)
    title = "Power spectra of images and perturbations"
    return Figure("spectra", title, caption, chart, rows)
