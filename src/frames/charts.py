"""The report's main charts, of sweeps or of frames."""

from pathlib import Path

import pandas as pd
from altair.typing import ChartType

from src.analysis.summary import JobSummary, summarise
from src.frames.frame import jobs_of
from src.report.charts.theme import theme
from src.report.charts.transfer import curves_alone, drawn_rows, matrix_alone
from src.report.measure import primary_rates


def matrix(
    folder: str | Path | pd.DataFrame,
    *more: str | Path,
    attack: str | None = None,
    eps_255: float | None = None,
    protocol: str | None = None,
) -> ChartType:
    """Draw a sweep's transfer matrix: sources, targets and k / n of the images counted.

    Attack, budget and protocol are chosen from menus.

    Args:
        folder: A frame of `load_sweep` or `transfer`; a sweep's folder, or any other that holds
            such folders.
        *more: Further folders.
        attack: Label of the attack that is shown first; None: that of the first job.
        eps_255: Budget that is shown first, in units of 1/255; None: the reference budget.
        protocol: Protocol that is shown first; None: that of the job.

    Returns:
        An Altair chart: a notebook shows it, and `chart.save("matrix.svg")` writes it.

    Raises:
        ValueError: As `load_sweep`, or no job has this attack, budget or protocol.
    """
    jobs = _attacked((folder, *more), attack)
    first = next(one.job for one in jobs if attack in (None, one.job.attack))
    own = first.record
    rows = drawn_rows(primary_rates(jobs))
    eps_255, protocol = eps_255 or own.reference, protocol or own.protocol
    for key, value in (("eps_255", eps_255), ("protocol", protocol)):
        if value not in (there := rows[key].unique()):
            raise ValueError(f"{key}={value}: there are {', '.join(map(str, there))}.")
    return _themed(matrix_alone(rows, eps_255, protocol, first.attack))


def curves(folder: str | Path | pd.DataFrame, *more: str | Path) -> ChartType:
    """Draw success and confidence over the budget: a column for each source, a colour each target.

    Attack and protocol are chosen from menus. Bands are 95 % intervals. Arguments, result and
    errors are those of `matrix`.
    """
    jobs = _attacked((folder, *more))
    first = jobs[0].job
    rows = drawn_rows(primary_rates(jobs))
    return _themed(curves_alone(rows, first.record.protocol, first.attack))


def _attacked(
    given: tuple[str | Path | pd.DataFrame, ...], attack: str | None = None
) -> list[JobSummary]:
    """Return the jobs that there is a chart of."""
    jobs = summarise(jobs_of(*given)).attacked
    names = list(dict.fromkeys(one.job.attack for one in jobs))
    if not jobs or (attack is not None and attack not in names):
        raise ValueError(f"attack={attack}: there are {', '.join(names) or 'clean images alone'}.")
    return jobs


def _themed(chart: ChartType) -> ChartType:
    return chart.configure(**theme()["config"])
