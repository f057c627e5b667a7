"""Transfer over the similarity of two models' gradients and errors."""

from collections.abc import Callable
from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis import TRANSFER
from src.analysis.similarity import pair_similarity
from src.artifacts.jobs import FinishedJob
from src.report.charts.theme import (
    PANEL,
    PERCENT,
    chosen,
    colour_by,
    extent,
    inline,
    points,
    tooltip,
    where,
)
from src.report.page.html import Figure
from src.report.sections.text import ENOUGH, span


def summarise(table: pd.DataFrame, job: FinishedJob, rename: Callable[[str], str]) -> pd.DataFrame:
    """Compute the similarity of each pair, and its success at the reference budget."""
    record = job.record
    pair = record.source, record.targets
    return pair_similarity(job.predictions, table, *pair, record.reference, record.protocol)


def draw(rows: pd.DataFrame) -> Figure:
    """Draw success over the similarity of gradients and of errors."""
    rows = rows[(rows["relation"] == TRANSFER) & (rows["n"] >= ENOUGH)]
    caption = (
        "Share fooled by the chosen attack at the reference budget, over the mean cosine between "
        f"the loss gradients of source and target on {span(rows['n'])} clean images, and over the "
        "consistency of their errors. 95 % Wilson intervals. Pairs share models and images."
    )
    panels = [
        _similarity_panel(rows, "cosine", "mean cosine of gradients"),
        _similarity_panel(rows, "kappa", "error consistency (Cohen's kappa)"),
    ]
    chart = alt.concat(*panels, columns=2, data=inline(rows), spacing=24)
    chart = chart.transform_filter(chosen("attack"))
    title = "Transfer and similarity of models"
    return Figure("similarity", title, caption, chart, rows)


def _similarity_panel(pairs: pd.DataFrame, column: str, title: str) -> ChartType:
    base = alt.Chart().encode(
        x=alt.X(f"{column}:Q", title=title, scale=extent(pairs, column)),
        color=colour_by("source", pairs["source"], orient="bottom"),
    )
    shares, numbers = ["success_rate"], ["cosine", "kappa"]
    mine = "datum.source == chosen_first_source && datum.target == chosen_first_target"
    high = extent(pairs, "success_rate_low", "success_rate_high")
    ends = ("success_rate_low", "success_rate_high")
    axis: Any = {"title": "fooled", "axis": PERCENT, "scale": high}
    bars, dots = points(base, "y", "success_rate", *ends, **axis)
    dots = dots.encode(
        size=where(mine, 200, 70),
        tooltip=tooltip("attack", "source", "target", "n", shares=shares, numbers=numbers),
    )
    return alt.layer(bars, dots).properties(width=PANEL, height=240)
