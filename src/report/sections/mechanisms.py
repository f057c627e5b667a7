"""The section with the charts of the diagnostics."""

from dataclasses import replace

from src.report.diagnostics import CHARTS
from src.report.diagnostics.own_measurement import draw_own
from src.report.page.html import Section
from src.report.page.page_data import PageData
from src.report.page.view import View


def mechanisms(view: View, numbers: PageData, command: str) -> Section:
    """Build the section with the diagnostics' charts, or with the command that computes them."""
    drawn = [
        chart.draw(numbers.tables[name]) for name, chart in CHARTS.items() if name in numbers.tables
    ]
    drawn += [draw_own(name, rows) for name, rows in numbers.own.items()]
    figures = tuple(replace(figure, choice=view.choice) for figure in drawn if len(figure.data))
    if figures:
        return Section("mechanisms", "Why it transfers", figures=figures)
    text = (
        "This sweep has no diagnostics: similarity of gradients and errors, success by frequency "
        "band, and the comparison with noise. The command below adds them; stored predictions are "
        "reused:"
    )
    return Section("mechanisms", "Why it transfers", (text,), command=command)
