"""Charts of the diagnostics: spectra, filtered perturbations, gradients and errors."""

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis import TRANSFER
from src.report.charts.dot_plot import dot_plot
from src.report.charts.theme import (
    PANEL,
    PERCENT,
    STROKES,
    chosen,
    colour_by,
    curve,
    extent,
    inline,
    tooltip,
    where,
)
from src.report.page.html import Figure, Section
from src.report.page.statistics import Measured
from src.report.page.view import View
from src.report.sections.text import ENOUGH, span

_CLEAN = "(clean images)"
_NYQUIST = 0.5


def mechanisms(view: View, numbers: Measured, command: str) -> Section:
    """Return the charts of the diagnostics, or the command that computes what they draw."""
    charts = {
        "similarity": _similarity,
        "filtered": _filtered,
        "spectra": _spectra,
        "low_passed": _low_passed,
    }
    drawn = [
        draw(numbers.tables[name], view) for name, draw in charts.items() if name in numbers.tables
    ]
    figures = tuple(figure for figure in drawn if len(figure.data))
    if figures:
        return Section("mechanisms", "Why it transfers", figures=figures)
    text = (
        "Not computed: whose gradients and errors are alike, which frequencies carry the attack, "
        "and how much of it is more than noise. This adds it; predictions that are stored are not "
        "computed again:"
    )
    return Section("mechanisms", "Why it transfers", (text,), command=command)


def _spectra(rows: pd.DataFrame, view: View) -> Figure:
    rows = rows.assign(frequency=(rows["frequency_low"] + rows["frequency_high"]) / 2)
    caption = (
        f"Mean share of the power of {rows['n'].max()} images and of the chosen attack's "
        "perturbations at the reference budget, by spatial frequency; the constant part is left "
        "out."
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
    return Figure("spectra", title, caption, chart, rows, choice=view.choice)


def _filtered(rows: pd.DataFrame, view: View) -> Figure:
    rows = rows[rows["denominator"] >= ENOUGH]
    rows = rows.assign(band=rows["band"].replace("all", "whole"))
    caption = (
        "Of the chosen attack and source: success of a perturbation's low, mid and high "
        "frequencies, each scaled to the L2 norm of random-sign noise of the budget, and of the "
        "whole as it is, minus that of the same part of the noise, on "
        f"{span(rows['denominator'])} images; Tango's 95 % interval."
    )
    columns = ["attack", "source", "target", "band", "denominator", "success", "control_success"]
    axis = "success rate beyond filtered noise"
    chart = dot_plot(rows, "excess", axis, columns, by="band")
    title = "Parts of perturbations beyond filtered noise"
    return Figure("filtered", title, caption, chart, rows, choice=view.choice)


def _low_passed(rows: pd.DataFrame, view: View) -> Figure:
    rows = rows.drop_duplicates(["target", "cutoff"]).drop(columns=["attack", "source"])
    caption = (
        f"Clean images without the frequencies above a cutoff; {rows['n'].max()} images, 95 % "
        "Wilson intervals."
    )
    frame = rows.assign(
        at=rows["cutoff"].clip(upper=_NYQUIST),  # where images as they are stand
        kept=[f"below {c:g}" if c < _NYQUIST else "everything" for c in rows["cutoff"]],
    ).drop(columns="cutoff")
    base = alt.Chart(inline(frame)).encode(
        x=alt.X("at:Q", title="frequencies kept (cycles per pixel; last: everything)"),
        color=colour_by("target", frame["target"], "model", orient="bottom", **STROKES),
    )
    lines = tooltip("target", "kept", "correct", "n", shares=["accuracy"])
    chart = curve(base, "accuracy", lines).properties(width=PANEL, height=240)
    title = "Accuracy on low-passed clean images"
    return Figure("low-passed", title, caption, chart, rows, choice=view.choice)


def _similarity(rows: pd.DataFrame, view: View) -> Figure:
    rows = rows[(rows["relation"] == TRANSFER) & (rows["n"] >= ENOUGH)]
    caption = (
        "Success rate of the chosen attack at the reference budget over the mean cosine of the "
        f"two models' loss gradients on {span(rows['n'])} clean images, and over the agreement of "
        "their errors; 95 % Wilson intervals. Pairs share models and images."
    )
    panels = [
        _similarity_panel(rows, "cosine", "mean cosine of gradients"),
        _similarity_panel(rows, "kappa", "error consistency (Cohen's kappa)"),
    ]
    chart = alt.concat(*panels, columns=2, data=inline(rows), spacing=24)
    chart = chart.transform_filter(chosen("attack"))
    title = "Transfer, gradients and errors"
    return Figure("similarity", title, caption, chart, rows, choice=view.choice)


def _similarity_panel(pairs: pd.DataFrame, column: str, title: str) -> ChartType:
    base = alt.Chart().encode(
        x=alt.X(f"{column}:Q", title=title, scale=extent(pairs, column)),
        color=colour_by("source", pairs["source"], orient="bottom"),
    )
    shares, numbers = ["success_rate"], ["cosine", "kappa"]
    mine = "datum.source == chosen_first_source && datum.target == chosen_first_target"
    high = extent(pairs, "success_rate_low", "success_rate_high")
    y = alt.Y("success_rate:Q", title="success rate", axis=PERCENT, scale=high)
    points = base.mark_point(filled=True, opacity=1, cursor="pointer").encode(
        y=y,
        size=where(mine, 200, 70),
        tooltip=tooltip("attack", "source", "target", "n", shares=shares, numbers=numbers),
    )
    bars = base.mark_rule(strokeWidth=1.2).encode(
        y=alt.Y("success_rate_low:Q", scale=high), y2="success_rate_high:Q"
    )
    return alt.layer(bars, points).properties(width=PANEL, height=240)
