"""Serve MLflow's UI on the store in mlruns/, which is created first, as sweeps create it."""

import os
import sys

from src.config.settings import TrackingSettings
from src.tracking.tracker import open_tracker


def main() -> None:
    """Become `mlflow ui`, with the flags that follow the module's name."""
    try:
        tracker = open_tracker(TrackingSettings(name="mlflow"), dataset="")
    except ValueError as error:
        sys.exit(str(error))
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracker.address]
    os.execv(sys.executable, [*command, *sys.argv[1:]])


if __name__ == "__main__":
    main()
