"""What a run leaves behind for comparison: MLflow, or nothing."""

from pathlib import Path

from src.config.settings import TrackingSettings
from src.tracking.tracker import Run, Tracker

__all__ = ["Run", "Tracker", "download_sweep", "open_tracker"]


def open_tracker(settings: TrackingSettings, dataset: str) -> Tracker:
    """Return the tracker that some settings ask for.

    Args:
        settings: Where runs are tracked.
        dataset: Name of the data set, which names the experiments.

    Raises:
        ValueError: MLflow is wanted but not installed, or its store cannot be reached.
    """
    if settings.name == "none":
        return Tracker()
    try:
        from src.tracking.mlflow_tracker import MlflowTracker
    except ModuleNotFoundError as error:
        raise ValueError(_lacking(error)) from error
    return MlflowTracker(settings.uri, settings.directory, dataset)


def download_sweep(settings: TrackingSettings, sweep: str, folder: Path) -> bool:
    """Copy the files of a tracked sweep's jobs into a folder each; False if there are none.

    No store is created for it.

    Raises:
        ValueError: MLflow is not installed, or its store cannot be read.
    """
    local = settings.uri is None
    if settings.name == "none" or (local and not Path(settings.directory, "mlflow.db").exists()):
        return False
    try:
        from src.tracking import mlflow_store
    except ModuleNotFoundError as error:
        raise ValueError(_lacking(error)) from error
    return mlflow_store.download_sweep(settings.uri, settings.directory, sweep, folder)


def _lacking(error: ModuleNotFoundError) -> str:
    return f"tracking=mlflow needs the package {error.name}; install it or use tracking=none."
