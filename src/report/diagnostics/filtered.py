"""Success of the low, mid and high frequencies of a perturbation."""

from collections.abc import Callable

import pandas as pd

from src.analysis.frequency_bands import filtered_rates
from src.artifacts.jobs import FinishedJob
from src.report.charts.dot_plot import dot_plot
from src.report.page.html import Figure
from src.report.sections.text import ENOUGH, span


def summarise(table: pd.DataFrame, job: FinishedJob, rename: Callable[[str], str]) -> pd.DataFrame:
    """Compute the success of each band, and its excess over the same band of noise."""
    record = job.record
    pair = record.source, record.targets
    return filtered_rates(table, job.predictions, *pair, record.protocol)


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the success of each band minus that of noise, one row per target."""
    rows = rows[rows["denominator"] >= ENOUGH]
    rows = rows.assign(band=rows["band"].replace("all", "whole"))
    caption = (
        "Share of images fooled by the low, mid and high frequencies of a perturbation, minus the "
        "share fooled by the same band of random-sign noise. Each band is scaled to the L2 norm of "
        "the noise; the whole perturbation is not scaled. "
        f"{span(rows['denominator'])} images; 95 % intervals (Tango)."
    )
    columns = ["attack", "source", "target", "band", "denominator", "success", "control_success"]
    axis = "fooled beyond filtered noise"
    chart = dot_plot(rows, "excess", axis, columns, by="band")
    title = "Frequency bands compared with noise"
    return Figure("filtered", title, caption, chart, rows)
