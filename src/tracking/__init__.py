"""What a run leaves behind for comparison: MLflow, or nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.tracking.sweeps import Sweeps
from src.tracking.tracker import Run, Tracker

__all__ = ["Run", "Sweeps", "Tracker", "open_sweeps", "open_tracker"]


def open_tracker(section: Mapping[str, Any], dataset: str) -> Tracker:
    """Return the tracker that a config's `tracking` section asks for.

    Args:
        section: The resolved section.
        dataset: Name of the data set, which names the experiments.

    Raises:
        ValueError: MLflow is wanted but not installed, or its store cannot be reached.
    """
    if section["name"] == "none":
        return Tracker()
    try:
        from src.tracking.mlflow_tracker import MlflowTracker
    except ModuleNotFoundError as error:
        raise ValueError(_lacking(error)) from error
    return MlflowTracker(section["uri"], section["directory"], dataset)


def open_sweeps(section: Mapping[str, Any]) -> Sweeps:
    """Return what the store of a config's `tracking` section knows of earlier sweeps.

    No store is created for it.

    Raises:
        ValueError: As `open_tracker`.
    """
    if section["name"] == "none":
        return Sweeps()
    if section["uri"] is None and not (Path(section["directory"]) / "mlflow.db").exists():
        return Sweeps()
    try:
        from src.tracking.mlflow_sweeps import MlflowSweeps
    except ModuleNotFoundError as error:
        raise ValueError(_lacking(error)) from error
    return MlflowSweeps(section["uri"], section["directory"])


def _lacking(error: ModuleNotFoundError) -> str:
    return f"tracking=mlflow needs the package {error.name}; install it or use tracking=none."
