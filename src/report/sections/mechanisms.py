"""The charts of the diagnostics."""

from dataclasses import replace

from src.report.diagnostics import CHARTS
from src.report.page.html import Section
from src.report.page.statistics import Measured
from src.report.page.view import View


def mechanisms(view: View, numbers: Measured, command: str) -> Section:
    """Return the charts of the diagnostics, or the command that computes what they draw."""
    drawn = [
        chart.draw(numbers.tables[name]) for name, chart in CHARTS.items() if name in numbers.tables
    ]
    figures = tuple(replace(figure, choice=view.choice) for figure in drawn if len(figure.data))
    if figures:
        return Section("mechanisms", "Why it transfers", figures=figures)
    text = (
        "Not computed: whose gradients and errors are alike, which frequencies carry the attack, "
        "and how much of it is more than noise. This adds it; predictions that are stored are not "
        "computed again:"
    )
    return Section("mechanisms", "Why it transfers", (text,), command=command)
