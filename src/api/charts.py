"""The report's main charts for sweeps or data frames, interactive or at a printed size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from altair.typing import ChartType

from ..artifacts.frame_jobs import Sweeps, jobs_of
from ..report import printed
from ..report.charts.curves import curves_chart
from ..report.charts.theme import theme
from ..report.charts.transfer_matrix import matrix_chart
from ..report.page.view import View, make_view
from ..report.summary import summarise

Names = str | Sequence[str] | None


def matrix(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: str | None = None,
    source: Names = None,
    target: Names = None,
    eps_255: float | None = None,
    protocol: str | None = None,
    width: str | None = None,
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw a sweep's transfer matrix, sources x targets, with k / n of the counted images.

    With `width` the chart is a printed figure: success in percent, white boxes in grey.

    Args:
        folder: A frame from `load_sweep` or `transfer`, or folders as for `table`.
        *more: Further folders.
        attack: Label of the attack; None: the first in the ranking.
        source: With `width`: sources to draw; None: all.
        target: With `width`: targets to draw; None: all.
        eps_255: Budget in units of 1/255; None: the reference budget.
        protocol: Protocol; None: the job's protocol.
        width: Printed width, such as `3.3in`, `84mm` or `240pt`; the text is set in 7 pt.
        height: Printed height.
        names: Printed names of attacks and models, by their own names.

    Returns:
        An Altair chart: a notebook displays it, and `chart.save("matrix.pdf")` writes it.

    Raises:
        ValueError: As `load_sweep`; no job has this attack, budget, protocol or model; or the names
            do not fit.
    """
    folders = (folder, *more)
    chosen: dict[str, Any] = {"attack": attack, "eps": eps_255, "protocol": protocol}
    if width is None:
        return _themed(matrix_chart(_chosen(_view(folders), chosen).cells))
    chosen |= {"source": source, "target": target}
    return printed.cells(_figure(folders, chosen, width, height, names))


def curves(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: Names = None,
    source: Names = None,
    target: Names = None,
    value: str = "success",
    width: str | None = None,
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw success and confidence over the budget, one colour per target, with 95 % bands.

    Without `width` the attack and the source are single names: by default the first attack and the
    mean over the sources. With `width` the chart is a printed figure: `value` (`success`,
    `accuracy`, `confidence` or `true_confidence`) over the budget, one line per named attack,
    source and target. If no attack is named, every attack has a line. If no source is named, the
    lines show the mean over sources; if no target is named, the mean on other models. Up to three
    lines have 95 % bands. The other arguments, the result and the errors are as for `matrix`.
    """
    folders = (folder, *more)
    chosen = {"attack": attack, "source": source, "target": target}
    if width is None:
        return _themed(curves_chart(_chosen(_view(folders), chosen).curves))
    return printed.over_budgets(_figure(folders, chosen, width, height, names), value)


def ranking(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: Names = None,
    source: Names = None,
    eps_255: float | None = None,
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw the mean success on other models with its 95 % interval, one row per attack by rank.

    Attacks that are not significantly weaker than the first share its colour. If no source is
    named, success is the mean over the sources. Arguments, result and errors are as for `matrix`.
    """
    chosen = {"attack": attack, "source": source, "eps": eps_255}
    return printed.in_order(_figure((folder, *more), chosen, width, height, names))


def cost(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: Names = None,
    source: Names = None,
    eps_255: float | None = None,
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw the mean success of `ranking` over the gradients per image, summed over all budgets.

    Arguments, result and errors are as for `ranking`.
    """
    chosen = {"attack": attack, "source": source, "eps": eps_255}
    return printed.over_cost(_figure((folder, *more), chosen, width, height, names))


def _view(folders: Sequence[Sweeps | pd.DataFrame]) -> View:
    """Return the report's rows and menus for the jobs with adversarial images."""
    summary = summarise(jobs_of(*folders))
    if not summary.attacked:
        raise ValueError("These jobs have only clean images; a chart needs jobs with an attack.")
    return make_view(summary)


def _figure(
    folders: Sequence[Sweeps | pd.DataFrame],
    chosen: Mapping[str, Any],
    width: str,
    height: str,
    names: Mapping[str, str] | None,
) -> printed.Figure:
    """Return the rows, the chosen names and the size of a printed chart."""
    view = _view(folders)
    listed: dict[str, Any] = {
        key: [value] if isinstance(value, str | float | int) else list(value)
        for key, value in chosen.items()
        if value
    }
    _check(view, listed)
    first = {key: listed.pop(key)[0] for key in ("eps", "protocol") if key in listed}
    view = replace(view, choice=replace(view.choice, **first))
    size = (printed.to_points(width=width), printed.to_points(height=height))
    return printed.Figure(view, *size, names or {}, **listed)


def _check(view: View, chosen: Mapping[str, Sequence[Any]]) -> None:
    """Raise a `ValueError` if no job has a chosen value."""
    for key, values in chosen.items():
        if unknown := [value for value in values if value not in view.options[key]]:
            options = ", ".join(map(str, view.options[key]))
            key = {"eps": "eps_255"}.get(key, key)
            raise ValueError(f"{key}={unknown[0]}: choose from {options}.")


def _chosen(view: View, chosen: Mapping[str, Any]) -> View:
    """Return the view with chosen values, each a single known name."""
    values = {key: value for key, value in chosen.items() if value and key != "target"}
    if more := [key for key, value in values.items() if isinstance(value, list | tuple)]:
        raise ValueError(f"{more[0]}: without width, choose one.")
    _check(view, {key: [value] for key, value in values.items()})
    return replace(view, choice=replace(view.choice, **values))


def _themed(chart: Any) -> ChartType:
    """Return a chart with the report's theme."""
    return chart.configure(**theme()["config"])
