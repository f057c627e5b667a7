"""Sweeps as one data frame, and the report's charts of such a frame."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pandas.api.types import union_categoricals

from src.analysis import is_white_box, rates_by_protocol
from src.config.settings import reference_budget
from src.report.charts.theme import Drawn, theme
from src.report.charts.transfer import curves_alone, drawn_rows, matrix_alone
from src.report.measure import with_bands
from src.store.jobs import StoredJob, find_jobs
from src.utils.checks import legible

_NAMES = ("attack", "source", "target", "norm", "protocol", "variant")
_NUMBERS = ("eps_255", "index", "label", "target_label", "predicted", "confidence")
COLUMNS = (*_NAMES, *_NUMBERS, "true_confidence")


def load_sweep(folder: str | Path, *more: str | Path) -> pd.DataFrame:
    """Return all predictions of a sweep's finished jobs as one data frame.

    Args:
        folder: A sweep's folder, such as `outputs/DATE`, or any other that holds such folders.
        *more: Further folders.

    Returns:
        One row per job, variant, target, budget and image, with the columns

        - `attack`: the attack's label, with what distinguishes jobs of the same attack and source;
        - `source`: the model that the images were crafted on, `a+b` for an ensemble; empty for a
          job of clean images alone;
        - `target`: the model that classified them; clean images are classified by the source too;
        - `norm`: norm of the budget, `linf` or `l2`;
        - `protocol`: which images the job's own matrix counts, see `rates`;
        - `variant`: storage format, such as `float32`, or control, `noise` or `shuffled`; a job's
          primary one comes first;
        - `eps_255`: the budget in units of 1/255, 0 for clean images;
        - `index`: number of the image in the data set;
        - `label`, `target_label`, `predicted`: classes: the true one, the one aimed at (missing
          where there is none) and the most likely one;
        - `confidence`, `true_confidence`: probabilities of the most likely and of the true class,
          in [0, 1].

        The first six are categoricals.

    Raises:
        ValueError: A folder is not there, holds no finished job, or a file in it is damaged.

    Examples:
        >>> frame = load_sweep("outputs/2026-01-31_12-00-00-000000")  # doctest: +SKIP
        >>> wrong = frame.predicted != frame.label  # doctest: +SKIP
        >>> wrong.groupby([frame.attack, frame.eps_255]).mean()  # doctest: +SKIP
    """
    jobs = find_jobs(map(Path, (folder, *more)))
    parts = [part for job in jobs for part in _parts(job)]
    return pd.DataFrame({name: _joined([part[name] for part in parts]) for name in COLUMNS})


def matrix(
    predictions: pd.DataFrame,
    attack: str | None = None,
    eps_255: float | None = None,
    protocol: str | None = None,
) -> Drawn:
    """Draw the transfer matrix: sources, targets and k / n of the images that a protocol counts.

    Attack, budget and protocol are chosen from menus; the arguments are the initial choices.

    Args:
        predictions: Rows as `load_sweep` returns them. Of each attack and source the first variant
            is drawn, and the clean rows must be there that its `protocol` needs.
        attack: Label; None: the first one.
        eps_255: Budget in units of 1/255; None: 8, or the attack's largest if it lacks that.
        protocol: Protocol; None: that of the jobs.

    Returns:
        An Altair chart: a notebook shows it, and `chart.save("matrix.svg")` writes it.

    Raises:
        ValueError: Columns lack, there are clean images alone, or clean rows lack.
    """
    attacked = _attacked(predictions)
    first = attacked.iloc[0]
    attack, protocol = attack or str(first["attack"]), protocol or str(first["protocol"])
    budgets = sorted(set(attacked.loc[attacked["attack"] == attack, "eps_255"]))
    eps_255 = eps_255 or reference_budget(budgets)
    rows = _rows(predictions)
    known = {"attack": (attack, set(rows["attack"])), "eps_255": (eps_255, budgets)}
    for key, (value, values) in {**known, "protocol": (protocol, set(rows["protocol"]))}.items():
        if value not in values:
            raise ValueError(f"{key}={value}: there are {', '.join(map(str, sorted(values)))}.")
    return _themed(matrix_alone(rows, eps_255, protocol, attack))


def curves(predictions: pd.DataFrame) -> Drawn:
    """Draw accuracy (or success of a targeted attack) and confidence over the budget.

    Each source has a column, each target a colour, each attack a dash pattern; at most two attacks
    are drawn until the legend is clicked. Bands are 95 % intervals.

    Args:
        predictions: Rows as `load_sweep` returns them; see `matrix`.

    Returns:
        An Altair chart: a notebook shows it, and `chart.save("curves.svg")` writes it.

    Raises:
        ValueError: As `matrix`.
    """
    first = _attacked(predictions).iloc[0]
    rows = _rows(predictions)
    return _themed(curves_alone(rows, str(first["protocol"]), str(first["attack"])))


def _parts(job: StoredJob) -> Iterator[pd.DataFrame]:
    """Yield the predictions of each variant of a job, with the columns that name the job."""
    record = job.record
    job_names = {
        "attack": job.attack,
        "source": record.source,
        "norm": record.norm,
        "protocol": record.protocol,
    }
    for variant, table in job.variants().items():
        named = table.assign(**job_names, variant=variant).astype(dict.fromkeys(_NAMES, "category"))
        yield named.astype({"target_label": "Int64"})


def _joined(parts: list[pd.Series]) -> pd.Series:
    """Concatenate columns, also categoricals with different categories."""
    if isinstance(parts[0].dtype, pd.CategoricalDtype):
        return pd.Series(union_categoricals(parts))
    return pd.concat(parts, ignore_index=True)


def _attacked(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of adversarial images; without any there is nothing to draw."""
    if missing := [name for name in COLUMNS if name not in predictions]:
        raise ValueError(f"the predictions have no column {missing[0]}; load_sweep returns all.")
    attacked = predictions[predictions["eps_255"] > 0]
    if attacked.empty:
        raise ValueError("the predictions are of clean images alone: no row has eps_255 above 0.")
    return attacked


def _rows(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rates behind the charts, job by job, of each job's first variant."""
    parts = []
    for _, rows in predictions.groupby(["attack", "source"], observed=True, sort=False):
        names = ("source", "attack", "norm", "protocol", "variant")
        source, attack, norm, protocol, variant = (str(rows[name].iloc[0]) for name in names)
        rows = rows[rows["variant"] == variant]
        targets = list(rows.loc[rows["eps_255"] > 0, "target"].unique())
        if targets:  # not clean images alone
            rates = rates_by_protocol({variant: rows}, source, targets, attack, norm)
            table = with_bands(rates, rows, source, targets, variant, protocol)
            parts.append(table.assign(white_box=[is_white_box(source, t) for t in table["target"]]))
    drawn = drawn_rows(pd.concat(parts, ignore_index=True))
    legibly = {name: drawn[name].map(legible) for name in ("attack", "source", "target")}
    return drawn.assign(**legibly)  # the renderer ends the process at what is not XML


def _themed(chart: Drawn) -> Drawn:
    return chart.configure(**theme()["config"])
