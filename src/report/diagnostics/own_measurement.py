"""Charts of users' measurements, from the columns that a job's record names.

A record is data: nothing that it names is imported, and the chart has fixed fields and expressions.
"""

from typing import Any

import altair as alt
import pandas as pd
from pandas.api.types import is_numeric_dtype
from scipy.stats import t as t_distribution

from src.artifacts.jobs import FinishedJob
from src.config.errors import explain
from src.config.sections import ChartSettings
from src.report.charts.theme import (
    PANEL,
    STROKES,
    chosen,
    colour_by,
    extent,
    inline,
    points,
    tooltip,
)
from src.report.page.html import Figure


def own_statistics(job: FinishedJob) -> dict[str, pd.DataFrame]:
    """Compute the means of a job's own tables that have a chart, by name.

    Returns:
        Rows with `x`, `colour`, `mean`, `low`, `high` (95 % t interval) and the number of `images`;
        names of the columns are in `y`, `x_title` and `colour_title`.

    Raises:
        ValueError: The chart in the record is none, or does not fit the table.
    """
    statistics = {}
    for name, section in job.record.config["measurements"].items():
        if section.get("chart") and name in job.files:
            try:
                chart = ChartSettings.model_validate(section["chart"])
                statistics[name] = _means(job.table(name), chart, job.record.source)
            except ValueError as error:
                raise ValueError(f"{job.files[name]}: its chart: {explain(error)}") from error
    return statistics


def _means(table: pd.DataFrame, chart: ChartSettings, source: str) -> pd.DataFrame:
    """Compute the means over images of a table, by the columns of its chart."""
    rows = table.assign(source=source)
    chart.check(rows.columns)
    if not is_numeric_dtype(rows[chart.y]):
        raise ValueError(f"chart.y={chart.y}: the column holds no numbers")
    rows = pd.DataFrame({"x": rows[chart.x], "colour": rows[chart.colour], "y": rows[chart.y]})
    groups = rows.groupby(["x", "colour"], sort=False, observed=True)["y"]
    means = groups.agg(["mean", "sem", "count"]).reset_index()
    half = means.pop("sem") * t_distribution.ppf(0.975, (means["count"] - 1).clip(lower=1))
    means = means.assign(low=means["mean"] - half, high=means["mean"] + half)
    titles = {"y": chart.y, "x_title": chart.x, "colour_title": chart.colour}
    return means.rename(columns={"count": "images"}).astype({"colour": str}).assign(**titles)


def draw_own(name: str, rows: pd.DataFrame) -> Figure:
    """Draw the means of one table for the chosen attack, and the chosen source if need be."""
    first = rows.iloc[0]
    titles = [first["x_title"], first["colour_title"]]
    caption = (
        f"Mean of {first['y']} in the table {name}, over up to {rows['images'].max()} images, for "
        "the chosen attack. 95 % t intervals."
    )
    columns, of_pair = ["attack"], "source" not in titles
    test = chosen(*columns) + " && datum.source == chosen_first_source" * of_pair
    numeric = is_numeric_dtype(rows["x"])
    scale: Any = {"scale": extent(rows, "x")} if numeric else {}
    base = (
        alt.Chart(inline(rows.drop(columns=["y", "x_title", "colour_title"])))
        .transform_filter(test)
        .encode(
            x=alt.X("x:Q" if numeric else "x:N", title=titles[0], **scale),
            color=colour_by("colour", rows["colour"], titles[1], orient="bottom", **STROKES),
            tooltip=tooltip("attack source x colour images", numbers=["mean", "low", "high"]),
        )
    )
    axis: Any = {"title": first["y"], "scale": extent(rows, "low", "mean", "high")}
    layers = points(base, "y", "mean", "low", "high", **axis)
    if numeric:
        layers.append(base.mark_line().encode(y=alt.Y("mean:Q", **axis)))
    chart = alt.layer(*layers).properties(width=PANEL, height=240)
    return Figure(f"own-{name.replace('_', '-')}", name.replace("_", " "), caption, chart, rows)
