"""Opening an MLflow store, and storing files in it."""

from collections.abc import Sequence
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException


def open_client(uri: str | None, directory: str | Path) -> tuple[mlflow.MlflowClient, str]:
    """Open a store, building the tables of a new SQLite file once.

    Args:
        uri: Any MLflow tracking URI; None: a SQLite file in `directory`.
        directory: Where the SQLite file and its lock live.

    Returns:
        The client, and the URI that it uses.

    Raises:
        ValueError: The store cannot be opened.
    """
    where = Path(directory).absolute()
    address = uri or f"sqlite:///{where / 'mlflow.db'}"
    try:
        client = mlflow.MlflowClient(tracking_uri=address)
        where.mkdir(parents=True, exist_ok=True)
        with FileLock(where / "mlflow.lock"):  # not twice at once
            client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise ValueError(refusal(address, error)) from error
    return client, address


def refusal(address: str, error: Exception) -> str:
    """Return the sentence that says that a store cannot be used."""
    reason = str(error).strip().split("\n")[0]
    return (
        f"tracking.uri: the MLflow store {address} cannot be opened ({reason}); "
        "use another, or tracking=none."
    )


def log_files(client: mlflow.MlflowClient, run: str, files: Sequence[Path]) -> None:
    """Store files, and the files of folders under the folder's name."""
    for file in files:
        if file.is_dir():
            client.log_artifacts(run, str(file), artifact_path=file.name)
        else:
            client.log_artifact(run, str(file))
