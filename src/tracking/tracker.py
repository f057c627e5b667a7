"""The tracking interface; its base class tracks nothing."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    def end_sweep(
        self, sweep: str, status: str, files: Sequence[Path] = (), note: str = ""
    ) -> None:
        """Close a sweep as FINISHED, FAILED or KILLED, and store its files and what to read."""

    def job(
        self, name: str, sweep: str | None, parameters: Mapping[str, Any]
    ) -> AbstractContextManager[Run]:
        """Open a job under a sweep; leaving the context closes it as what happened to it."""
        return nullcontext(Run())

    def log_metrics(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Note figures of a job."""

    def set_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Add tags to a job."""

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
    ) -> "Logger | None":
        """Return a Lightning logger for one training, continued if `work` remembers it."""
        return None

    def links(self, sweep: str, attacks: Sequence[str], shown: str = "") -> dict[str, str]:
        """Return what to open to see a sweep, by description.

        Args:
            sweep: Its id.
            attacks: Names of those whose curves there are.
            shown: Name of the sweep's file to open.
        """
        return {}
