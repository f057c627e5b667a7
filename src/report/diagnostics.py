"""Statistics and charts of the diagnostics, and of users' measurements.

Each table of `CHARTS` has two functions: one computes the statistics of a job's table, the other
draws those of all jobs. A record is data: nothing that it names is imported.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
from altair.typing import ChartType
from pandas.api.types import is_numeric_dtype
from scipy.special import stdtrit

from ..analysis import TRANSFER
from ..analysis.diagnostics import filtered_rates, low_pass_accuracy, pair_similarity
from ..artifacts.jobs import FinishedJob
from ..config.errors import explain
from ..config.sections import ChartSettings
from ..utils.formats import span
from ..utils.model_names import NO_DEFENCE
from .charts.dot_plot import dot_plot
from .charts.theme import PANEL, PERCENT, ROWS, STROKES, colour_by, curve, extent, points, tooltip
from .page.html import ENOUGH, OF_ATTACK, OF_PAIR, Figure

Rename = Callable[[str], str]
"""Gives a model a unique name if another job has a different model with the same name."""
_CLEAN = "(clean images)"
_NYQUIST = 0.5


class Diagnostic(NamedTuple):
    """Functions of one table: statistics of a job's table, and the chart of all jobs' rows.

    The drawn rows have the columns `attack` and `source`.
    """

    summarise: Callable[[pd.DataFrame, FinishedJob, Rename], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]


def summarise_filtered(table: pd.DataFrame, job: FinishedJob, rename: Rename) -> pd.DataFrame:
    """Compute the success of each frequency band, and its excess over the same band of noise."""
    record = job.record
    pair = record.source, record.targets
    return filtered_rates(table, job.predictions, *pair, record.protocol)


def draw_filtered(rows: pd.DataFrame) -> Figure:
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
    chart = dot_plot(rows, "excess", "fooled beyond filtered noise", columns, by="band")
    title = "Frequency bands compared with noise"
    return Figure("filtered", title, caption, chart, rows, OF_PAIR)


def summarise_low_passed(table: pd.DataFrame, job: FinishedJob, rename: Rename) -> pd.DataFrame:
    """Compute each model's accuracy on clean images without high frequencies, by cutoff."""
    rows = job.predictions
    clean = rows[(rows["eps_255"] == 0) & (rows["defence"] == NO_DEFENCE)]
    accuracies = low_pass_accuracy(table, clean)
    return accuracies.assign(target=[rename(str(target)) for target in accuracies["target"]])


def draw_low_passed(rows: pd.DataFrame) -> Figure:
    """Draw the accuracy of each model over the cutoff."""
    rows = rows.drop_duplicates(["target", "cutoff"]).drop(columns=["attack", "source"])
    caption = (
        f"Accuracy on clean images without frequencies above the cutoff. {rows['n'].max()} images, "
        "95 % Wilson intervals."
    )
    rows = rows.assign(
        at=rows["cutoff"].clip(upper=_NYQUIST),  # unfiltered images are drawn here
        kept=[f"below {c:g}" if c < _NYQUIST else "everything" for c in rows["cutoff"]],
    )
    base = alt.Chart(ROWS).encode(
        x=alt.X("at:Q", title="frequencies kept (cycles per pixel; last: everything)"),
        color=colour_by("target", rows["target"], "model", orient="bottom", **STROKES),
    )
    lines = tooltip("target", "kept", "correct", "n", shares=["accuracy"])
    chart = curve(base, "accuracy", lines).properties(width=PANEL, height=240)
    return Figure("low-passed", "Accuracy on low-passed clean images", caption, chart, rows)


def summarise_similarity(table: pd.DataFrame, job: FinishedJob, rename: Rename) -> pd.DataFrame:
    """Compute the similarity of each pair, and its success at the reference budget."""
    record = job.record
    pair = record.source, record.targets
    return pair_similarity(job.predictions, table, *pair, record.reference, record.protocol)


def draw_similarity(rows: pd.DataFrame) -> Figure:
    """Draw success over the similarity of gradients and of errors."""
    rows = rows[(rows["relation"] == TRANSFER) & (rows["n"] >= ENOUGH)]
    caption = (
        "Share fooled at the reference budget, over the mean cosine between the loss gradients of "
        f"source and target on {span(rows['n'])} clean images, and over the consistency of their "
        "errors. 95 % Wilson intervals. Pairs share models and images."
    )
    panels = [
        _similarity_panel(rows, "cosine", "mean cosine of gradients"),
        _similarity_panel(rows, "kappa", "error consistency (Cohen's kappa)"),
    ]
    chart = alt.concat(*panels, columns=1, data=ROWS, spacing=24)
    title = "Transfer and similarity of models"
    return Figure("similarity", title, caption, chart, rows, OF_ATTACK)


def _similarity_panel(pairs: pd.DataFrame, column: str, title: str) -> ChartType:
    base = alt.Chart().encode(
        x=alt.X(f"{column}:Q", title=title, scale=extent(pairs, column)),
        color=colour_by("source", pairs["source"], orient="bottom"),
    )
    shares, numbers = ["success_rate"], ["cosine", "kappa"]
    ends = ("success_rate_low", "success_rate_high")
    axis: Any = {"title": "fooled", "axis": PERCENT, "scale": extent(pairs, *ends)}
    bars, dots = points(base, "y", "success_rate", *ends, **axis)
    lines = tooltip("attack", "source", "target", "n", shares=shares, numbers=numbers)
    return alt.layer(bars, dots.encode(tooltip=lines)).properties(width=PANEL, height=180)


def summarise_spectra(table: pd.DataFrame, job: FinishedJob, rename: Rename) -> pd.DataFrame:
    """Return the table as it is: it already holds means over images."""
    return table


def draw_spectra(rows: pd.DataFrame) -> Figure:
    """Draw the power spectra of images and perturbations: share of power by spatial frequency."""
    rows = rows.assign(frequency=(rows["frequency_low"] + rows["frequency_high"]) / 2)
    rows = rows[rows["share"] > 0]
    caption = (
        f"Mean share of power by spatial frequency, for {rows['n'].max()} images and for the "
        "perturbations at the reference budget. The constant part is left out."
    )
    lines = tooltip("attack", "source", "kind", shares=["share"], numbers=["frequency"])
    base = alt.Chart(ROWS).encode(
        x=alt.X(
            "frequency:Q",
            title="spatial frequency (cycles per pixel)",
            scale=extent(rows, "frequency"),
        ),
        y=alt.Y(
            "share:Q",
            title="share of power",
            scale=extent(rows, "share", type="log"),
            axis=alt.Axis(format="~%"),
        ),
    )
    images = base.transform_filter("datum.kind == 'image'").mark_line(strokeWidth=4, opacity=0.7)
    curves = base.transform_filter("datum.kind == 'perturbation'").mark_line(point=True)
    names = [*dict.fromkeys(rows["source"]), _CLEAN]
    colour = colour_by("source", names, "perturbations from", orient="bottom", **STROKES)
    chart = alt.layer(
        images.encode(color=alt.datum(_CLEAN), tooltip=lines[2:], detail=["source:N"]),
        curves.encode(color=colour, tooltip=lines),
    ).properties(width=PANEL, height=240)
    title = "Power spectra of images and perturbations"
    return Figure("spectra", title, caption, chart, rows, OF_ATTACK)


CHARTS = {
    "similarity": Diagnostic(summarise_similarity, draw_similarity),
    "filtered": Diagnostic(summarise_filtered, draw_filtered),
    "spectra": Diagnostic(summarise_spectra, draw_spectra),
    "low_passed": Diagnostic(summarise_low_passed, draw_low_passed),
}
"""Diagnostics by the name of their table, in the order of the page."""


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
    half = means.pop("sem") * stdtrit((means["count"] - 1).clip(lower=1), 0.975)
    means = means.assign(low=means["mean"] - half, high=means["mean"] + half)
    titles = {"y": chart.y, "x_title": chart.x, "colour_title": chart.colour}
    return means.rename(columns={"count": "images"}).astype({"colour": str}).assign(**titles)


def draw_own(name: str, rows: pd.DataFrame) -> Figure:
    """Draw the means of one table of a user's measurement."""
    first = rows.iloc[0]
    titles = [first["x_title"], first["colour_title"]]
    caption = (
        f"Mean of {first['y']} in the table {name}, over up to {rows['images'].max()} images. "
        "95 % t intervals."
    )
    numeric = is_numeric_dtype(rows["x"])
    scale: Any = {"scale": extent(rows, "x")} if numeric else {}
    base = alt.Chart(ROWS).encode(
        x=alt.X("x:Q" if numeric else "x:N", title=titles[0], **scale),
        color=colour_by("colour", rows["colour"], titles[1], orient="bottom", **STROKES),
        tooltip=tooltip("attack source x colour images", numbers=["mean", "low", "high"]),
    )
    axis: Any = {"title": first["y"], "scale": extent(rows, "low", "mean", "high")}
    layers = points(base, "y", "mean", "low", "high", **axis)
    if numeric:
        layers.append(base.mark_line().encode(y=alt.Y("mean:Q", **axis)))
    chart = alt.layer(*layers).properties(width=PANEL, height=240)
    keys = OF_ATTACK if "source" in titles else OF_PAIR
    title = name.replace("_", " ")
    return Figure(f"own-{name.replace('_', '-')}", title, caption, chart, rows, keys)
