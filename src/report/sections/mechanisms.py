"""Why adversarial examples transfer: spectra, filtered perturbations, gradients and errors."""

from src.report.charts.dots import dot_plot
from src.report.charts.mechanisms import low_pass_chart, similarity_chart, spectra_chart
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.sections.text import enough, pair_names, span

_NYQUIST = 0.5


def mechanisms(found: Measured) -> Section | None:
    """Return the charts of the diagnostics."""
    parts = (_spectra, _filtered, _low_passed, _similarity)
    figures = [figure for part in parts if (figure := part(found)) is not None]
    if not figures:
        return None
    return Section("mechanisms", "Why it transfers", figures=tuple(figures))


def _spectra(found: Measured) -> Figure | None:
    rows = found.table("spectra")
    if rows.empty:
        return None
    rows = rows.assign(frequency=(rows["frequency_low"] + rows["frequency_high"]) / 2)
    caption = (
        f"Mean share of the power of {rows['n'].max()} images and of perturbations at the "
        "reference budget, by spatial frequency; the constant part is left out."
    )
    chart = spectra_chart(rows)
    return Figure("spectra", "Power spectra of images and perturbations", caption, chart, rows)


def _filtered(found: Measured) -> Figure | None:
    rows = found.table("filtered")
    if rows.empty or (rows := rows[enough(rows["denominator"])]).empty:
        return None
    rows = rows.assign(row=pair_names(rows) + ", " + rows["band"].replace("all", "whole"))
    caption = (
        "Success rate of a perturbation's low, mid and high frequencies, each scaled to the L2 "
        "norm of the whole, minus that of the same part of random-sign noise, on "
        f"{span(rows['denominator'])} images; Tango's 95 % interval."
    )
    columns = ["attack", "source", "target", "band", "denominator", "success", "control_success"]
    chart = dot_plot(rows, "excess", "success rate beyond filtered noise", columns)
    return Figure("filtered", "Parts of perturbations beyond filtered noise", caption, chart, rows)


def _low_passed(found: Measured) -> Figure | None:
    rows = found.table("low_passed")
    if rows.empty:
        return None
    rows = rows.drop_duplicates(["target", "cutoff"]).drop(columns=["attack", "source"])
    caption = (
        f"Clean images without the frequencies above a cutoff; {rows['n'].max()} images, 95 % "
        "Wilson intervals."
    )
    chart = low_pass_chart(rows, _NYQUIST)
    return Figure("low-passed", "Accuracy on low-passed clean images", caption, chart, rows)


def _similarity(found: Measured) -> Figure | None:
    rows = found.table("similarity")
    if rows.empty or (rows := rows[~rows["white_box"] & enough(rows["n"])]).empty:
        return None
    caption = (
        f"Success rate at the reference budget over the mean cosine of the two models' loss "
        f"gradients on {span(rows['n'])} clean images, and over the agreement "
        "of their errors; 95 % Wilson intervals. Pairs share models and images."
    )
    chart = similarity_chart(rows)
    return Figure("similarity", "Transfer, gradients and errors", caption, chart, rows)
