"""Local consistency of the sources' gradients, and the success of their adversarial images."""

from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from src.analysis import TRANSFER, rates
from src.analysis.similarity import mean_interval
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
)
from src.report.page.html import Figure


def summarise(table: pd.DataFrame, job: FinishedJob, rename: Callable[[str], str]) -> pd.DataFrame:
    """Compute a source's mean consistency, and its reference-budget success on other models."""
    record = job.record
    values = table["consistency"].to_numpy(np.float64)[None]
    mean, low, high = (float(end[0]) for end in mean_interval(values))
    counts = rates(job.predictions, record.source, record.targets, record.protocol)
    counts = counts[counts["eps_255"] == record.reference]
    success = counts.loc[counts["relation"] == TRANSFER, "success_rate"].mean()
    columns = {"consistency": mean, "consistency_low": low, "consistency_high": high}
    return pd.DataFrame([{"images": len(table), **columns, "mean_success": success}])


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the chosen attack's mean success over the consistency of its sources' gradients."""
    caption = (
        "Mean share of images on which the chosen attack fools other models at the reference "
        "budget, over the local gradient consistency of the source. The consistency is the mean "
        "cosine between the loss gradient at an image and at five points within 1/255 of it, with "
        "a 95 % t interval over "
        f"{rows['images'].max()} images."
    )
    scale = extent(rows, "consistency_low", "consistency", "consistency_high")
    numbers = ["consistency", "consistency_low", "consistency_high"]
    lines = tooltip("attack", "source", "images", shares=["mean_success"], numbers=numbers)
    base = (
        alt.Chart(inline(rows))
        .transform_filter(chosen("attack"))
        .encode(
            y=alt.Y("mean_success:Q", title="mean fooled", axis=PERCENT),
            color=colour_by("source", rows["source"], orient="bottom"),
            tooltip=lines,
        )
    )
    axis: Any = {"title": "local gradient consistency", "scale": scale}
    layers = points(base, "x", "consistency", "consistency_low", "consistency_high", **axis)
    chart = alt.layer(*layers).properties(width=PANEL, height=240)
    title = "Transfer and gradient consistency"
    return Figure("gradient-consistency", title, caption, chart, rows)
