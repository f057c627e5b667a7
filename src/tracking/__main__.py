"""Serve MLflow's UI on the store in mlruns/, which is created first, as sweeps create it."""

import os
import sys

from src.tracking.mlflow_store import open_client


def main() -> None:
    """Become `mlflow ui`, with the flags that follow the module's name."""
    try:
        _, address = open_client(None, "mlruns")
    except ValueError as error:
        sys.exit(str(error))
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address]
    os.execv(sys.executable, [*command, *sys.argv[1:]])


if __name__ == "__main__":
    main()
