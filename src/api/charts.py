"""The report's main charts, of sweeps or of frames."""

from dataclasses import replace
from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.artifacts.frame_jobs import Sweeps, jobs_of
from src.report.charts.theme import theme
from src.report.charts.transfer_matrix import curves_chart, matrix_chart
from src.report.page.statistics import Measured, primary_rates
from src.report.page.view import View, make_view
from src.report.summary import summarise


def matrix(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: str | None = None,
    eps_255: float | None = None,
    protocol: str | None = None,
) -> ChartType:
    """Draw a sweep's transfer matrix: sources, targets and k / n of the images counted.

    Attack, budget and protocol are chosen from menus.

    Args:
        folder: A frame of `load_sweep` or `transfer`, or folders as for `table`.
        *more: Further folders.
        attack: Label of the attack that is shown first; None: the one that ranks first.
        eps_255: Budget that is shown first, in units of 1/255; None: the reference budget.
        protocol: Protocol that is shown first; None: that of the job.

    Returns:
        An Altair chart: a notebook shows it, and `chart.save("matrix.svg")` writes it.

    Raises:
        ValueError: As `load_sweep`, or no job has this attack, budget or protocol.
    """
    view = _view((folder, *more))
    menus = ("attack", "eps", "protocol", "defence", "shown")
    return _with_menus(matrix_chart(view.rows), view, menus, attack, eps=eps_255, protocol=protocol)


def curves(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: str | None = None,
    source: str | None = None,
) -> ChartType:
    """Draw success and confidence over the budget, a colour per target, with 95 % bands.

    Attack, source and protocol are chosen from menus. Arguments, result and errors are those of
    `matrix`; `source` is the one that is shown first, None: the mean over all.
    """
    view = _view((folder, *more))
    menus = ("attack", "source", "protocol", "defence", "shown")
    return _with_menus(curves_chart(view.rows), view, menus, attack, source=source)


def _view(folders: tuple[Sweeps | pd.DataFrame, ...]) -> View:
    """Return the rows of the jobs with adversarial images, as the report has them."""
    summary = summarise(jobs_of(*folders))
    if not (jobs := summary.attacked):
        raise ValueError("The jobs hold clean images alone; this chart is of attacks.")
    numbers = Measured(summary.rankings, tables={"rates": primary_rates(jobs)})
    return make_view(jobs[0].job.record, numbers)


def _with_menus(
    chart: ChartType, view: View, menus: tuple[str, ...], attack: str | None, **first: Any
) -> ChartType:
    """Return the chart with the report's menus as its own, and with what they choose first."""
    first = {name: value for name, value in (first | {"attack": attack}).items() if value}
    options: dict[str, list[Any]] = {
        name: [float(value) if name == "eps" else value for value, _ in view.menus[name]]
        for name in {*menus, *first}
    }
    for name, value in first.items():
        if value not in options[name]:
            key, known = {"eps": "eps_255"}.get(name, name), map(str, options[name])
            raise ValueError(f"{key}={value}: there are {', '.join(known)}.")
    for name, value in replace(view.choice, **first).params.items():
        key = name.removeprefix("chosen_")
        bind: Any = alt.Undefined
        if key in menus and len(options[key]) > 1:
            labels = [label for _, label in view.menus[key]]
            title = f"{'budget' if key == 'eps' else key} "
            bind = alt.binding_select(options=options[key], labels=labels, name=title)
        chart = chart.add_params(alt.param(name=name, value=value, bind=bind))
    return chart.configure(**theme()["config"])
