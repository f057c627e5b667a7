"""The tracking interface; its base class tracks nothing."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers import Logger


@dataclass(frozen=True)
class Run:
    """A tracked job.

    Attributes:
        id: The run's id in the store; empty if nothing is tracked.
        sweep: The id of the sweep that it belongs to.
    """

    id: str = ""
    sweep: str = ""


class Tracker:
    """A tracker that tracks nothing, and the interface of those that do."""

    def start_sweep(self, name: str, parameters: Mapping[str, Any]) -> str | None:
        """Open a sweep and return its id, which its jobs are started with."""
        return None

    def end_sweep(self, sweep: str, status: str, files: Sequence[Path] = ()) -> None:
        """Close a sweep as FINISHED, FAILED or KILLED, and store its files."""

    def job(
        self, name: str, sweep: str | None, parameters: Mapping[str, Any]
    ) -> AbstractContextManager[Run]:
        """Open a job under a sweep; leaving the context closes it as what happened to it."""
        return nullcontext(Run())

    def log_metrics(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Note figures of a job."""

    def log_files(self, run: Run, folder: Path) -> None:
        """Store a job's files."""

    def log_pair(
        self,
        run: Run,
        name: str,
        *,
        tags: Mapping[str, str],
        parameters: Mapping[str, Any],
        curves: Mapping[str, Sequence[tuple[float, float]]],
        metrics: Mapping[str, float],
    ) -> None:
        """Log one source -> target pair of a job.

        Args:
            run: The job.
            name: What the run is called.
            tags: To filter by.
            parameters: Settings.
            curves: By metric name, the (eps_255, value) pairs. MLflow's steps are whole numbers,
                so it draws the whole budgets alone.
            metrics: Figures without a budget.
        """

    def training_logger(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], work: Path
    ) -> Logger | None:
        """Return a Lightning logger for one training, continued if `work` remembers it."""
        return None

    def links(self, sweep: str) -> dict[str, str]:
        """Return what to open to see a sweep, by description."""
        return {}


def pair_metrics(
    by_protocol: Mapping[str, pd.DataFrame], headline: str, standard: float
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, float]]:
    """Turn one pair's rates under every protocol into curves and figures for a tracker.

    Args:
        by_protocol: By protocol, the rows of `src.analysis.rates` of one target.
        headline: The protocol whose rates have plain names; the others' begin with `PROTOCOL/`,
            as all counts do. MLflow draws what stands before the slash as a section.
        standard: The budget, in units of 1/255, of the figures named `standard_...`.

    Returns:
        Curves and figures as `Tracker.log_pair` takes them. Rates of an empty denominator are
        left out.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    metrics: dict[str, float] = {}
    for protocol, rows in by_protocol.items():
        prefix = "" if protocol == headline else f"{protocol}/"
        at = rows[rows["eps_255"] == standard].iloc[0]
        if not prefix:
            for count in ("n", "source_clean_correct", "target_clean_correct"):
                metrics[count] = float(at[count])
        metrics[f"{protocol}/denominator"] = float(at["denominator"])
        metrics[f"{protocol}/standard_still_correct"] = float(at["still_correct"])
        curves[f"{protocol}/still_correct"] = _curve(rows, "still_correct")
        for name in ("robust_accuracy", "success_rate", "confidence", "true_confidence"):
            curves[prefix + name] = _curve(rows, name)
            metrics[f"{prefix}standard_{name}"] = float(at[name])
        for name in ("robust_accuracy_low", "robust_accuracy_high"):
            metrics[f"{prefix}standard_{name}"] = float(at[name])
    metrics = {name: value for name, value in metrics.items() if value == value}
    return {name: curve for name, curve in curves.items() if curve}, metrics


def _curve(rows: pd.DataFrame, column: str) -> list[tuple[float, float]]:
    known = rows[rows[column].notna()]
    return list(zip(known["eps_255"].astype(float), known[column].astype(float), strict=True))
