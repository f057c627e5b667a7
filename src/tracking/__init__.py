"""What a run leaves behind for comparison: MLflow, or nothing."""

from collections.abc import Mapping
from typing import Any

from src.tracking.tracker import Run, Tracker, pair_metrics

__all__ = ["Run", "Tracker", "open_tracker", "pair_metrics"]


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
        raise ValueError(
            f"tracking=mlflow needs the package {error.name}; install it or use tracking=none."
        ) from error
    return MlflowTracker(section["uri"], section["directory"], dataset)
