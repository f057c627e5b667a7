"""Opening an MLflow store, and storing files in it."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException

log = logging.getLogger(__name__)

# Before anything is asked of a server, which otherwise adds two lines to each run that ends.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# It prints a traceback of every error that it then raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class Client(mlflow.MlflowClient):
    """An MLflow client that finds experiments or creates them."""

    def experiment(self, name: str, location: str | None) -> str:
        """Return the id of an experiment; a new one keeps its artifacts at a location."""
        found = self.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.create_experiment(name, artifact_location=location))
            except MlflowException:
                found = self.get_experiment_by_name(name)
                if found is None:  # no other process was faster
                    raise
        if found.lifecycle_stage == "deleted":
            self.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def open_client(uri: str | None, directory: str | Path) -> tuple[Client, str]:
    """Open a store, building the tables of a new SQLite file once.

    Args:
        uri: Any MLflow tracking URI; None: a SQLite file in `directory`.
        directory: Where the SQLite file and its lock live.

    Returns:
        The client, and the URI that it uses.

    Raises:
        ValueError: The store cannot be opened, or a server does not answer within seconds.
    """
    where = Path(directory).absolute()
    address = uri or f"sqlite:///{where / 'mlflow.db'}"
    with refusing(address), patience(seconds=5, retries=0):
        where.mkdir(parents=True, exist_ok=True)
        with FileLock(where / "mlflow.lock"):  # a new file's tables, not twice at once
            client = Client(tracking_uri=address)
            client.search_experiments(max_results=1)
    return client, address


@contextmanager
def refusing(address: str) -> Iterator[None]:
    """Turn what a store cannot do into one sentence.

    Raises:
        ValueError: It cannot do what was asked of it here.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        raise ValueError(
            f"tracking.uri: the MLflow store {without_password(address)} cannot be used "
            f"({_reason(error)}); use another, or tracking=none."
        ) from error


def download_sweep(uri: str | None, directory: str, sweep: str, folder: Path) -> bool:
    """Copy the files of a sweep's jobs into a folder each; False if the store knows none.

    Args:
        uri: Any MLflow tracking URI; None: a SQLite file in `directory`.
        directory: Where the SQLite file lies.
        sweep: The id of its run.
        folder: Where the jobs' folders go.

    Raises:
        ValueError: The store cannot be read.
    """
    client, address = open_client(uri, directory)
    with refusing(address):
        every = client.search_experiments()
        experiments = [e.experiment_id for e in every if e.name.endswith("-sweeps")]
        wanted = f"tags.kind = 'job' and tags.sweep = '{sweep.replace(chr(39), '')}'"
        oldest_first = ["attributes.start_time ASC"]
        jobs = client.search_runs(experiments, wanted, order_by=oldest_first, max_results=1000)
        for number, job in enumerate(jobs if experiments else []):
            name = re.sub(r"[^A-Za-z0-9+_-]", "-", job.info.run_name)[:200]
            here = folder / f"{number}-{name}"
            here.mkdir(parents=True)
            mlflow.artifacts.download_artifacts(
                run_id=job.info.run_id, dst_path=str(here), tracking_uri=address
            )
    return bool(experiments and jobs)


class SteadyClient:
    """An MLflow client whose store may go away: that is said once, and no call raises.

    Args:
        client: The client whose methods this one has; they return None when the store is lost.
        address: Of the store.

    Attributes:
        lost: Whether a call has failed; none is tried after it.
    """

    def __init__(self, client: Client, address: str) -> None:
        self.client, self.address, self.lost = client, address, False

    def __getattr__(self, name: str) -> Any:
        """Return a method of the client that does not raise."""
        if name == "client" or name.startswith("__"):  # of one that is being unpickled
            raise AttributeError(name)
        method = getattr(self.client, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.lost:
                return None
            try:
                with patience(seconds=20, retries=3):
                    return method(*arguments, **keywords)
            except Exception as error:  # whatever a store does, it costs nobody a result
                self.lost = True
                log.warning(
                    "The MLflow store %s fails (%s): nothing more is tracked there, all files are "
                    "written.",
                    without_password(self.address),
                    _reason(error),
                )
                return None

        return call


def without_password(address: str) -> str:
    """Return an address without the name and the password in it."""
    return re.sub("://[^/@]*@", "://", address)


def log_files(client: Client | SteadyClient, run: str, files: Sequence[Path]) -> None:
    """Store files, and the files of folders under the folder's name."""
    for file in files:
        if file.is_dir():
            client.log_artifacts(run, str(file), artifact_path=file.name)
        else:
            client.log_artifact(run, str(file))


def _reason(error: BaseException) -> str:
    """Return the first line of what lies at the bottom of an error, but for a failed look-up."""
    while (cause := error.__cause__ or error.__context__) and not isinstance(cause, LookupError):
        error = cause
    return str(error).strip().split("\n")[0] or type(error).__name__


@contextmanager
def patience(seconds: int, retries: int) -> Iterator[None]:
    """Limit how long MLflow waits for a server, as far as the environment does not."""
    wanted = {"TIMEOUT": seconds, "MAX_RETRIES": retries}
    ours = {f"MLFLOW_HTTP_REQUEST_{key}": str(value) for key, value in wanted.items()}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
