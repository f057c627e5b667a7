"""Success of the low, mid and high frequencies of perturbations."""

from collections.abc import Callable

import pandas as pd

from src.analysis.frequency_bands import filtered_rates
from src.artifacts.jobs import StoredJob
from src.report.charts.dot_plot import dot_plot
from src.report.page.html import Figure
from src.report.sections.text import ENOUGH, span


def summarise(table: pd.DataFrame, job: StoredJob, rename: Callable[[str], str]) -> pd.DataFrame:
    """Return the success of each band, and that beyond the same band of noise."""
    record = job.record
    pair = record.source, record.targets
    return filtered_rates(table, job.predictions, *pair, record.protocol)


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the success of each band beyond that of noise, a row a target."""
    rows = rows[rows["denominator"] >= ENOUGH]
    rows = rows.assign(band=rows["band"].replace("all", "whole"))
    caption = (
        "Of the chosen attack and source: images fooled by a perturbation's low, mid and high "
        "frequencies, each scaled to the L2 norm of random-sign noise of the budget, and of the "
        "whole as it is, minus that of the same part of the noise, on "
        f"{span(rows['denominator'])} images; Tango's 95 % interval."
    )
    columns = ["attack", "source", "target", "band", "denominator", "success", "control_success"]
    axis = "fooled beyond filtered noise"
    chart = dot_plot(rows, "excess", axis, columns, by="band")
    title = "Parts of perturbations beyond filtered noise"
    return Figure("filtered", title, caption, chart, rows)
