"""MLflow's memory of earlier sweeps."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from src.tracking.mlflow_client import log_files, open_client, refusing
from src.tracking.sweeps import Sweeps

_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MlflowSweeps(Sweeps):
    """The sweeps of all data sets in an MLflow store.

    Args:
        uri: Any MLflow tracking URI; None: a SQLite file in `directory`.
        directory: Where the SQLite file lies.

    Raises:
        ValueError: The store cannot be opened.
    """

    def __init__(self, uri: str | None, directory: str) -> None:
        self.client, self.uri = open_client(uri, directory)

    def folder(self, sweep: str) -> Path | None:
        """Return the folder that is noted with a sweep's run."""
        run = self._run(sweep)
        return None if run is None or "folder" not in run.data.params else Path(_noted(run))

    def download(self, sweep: str, folder: Path) -> bool:
        """Copy the files of a sweep's jobs into a folder each."""
        if self._run(sweep) is None:
            return False
        jobs = self._search(f"tags.kind = 'job' and tags.sweep = '{sweep}'")
        for number, job in enumerate(reversed(jobs)):
            here = folder / f"{number}-{re.sub(r'[^A-Za-z0-9+_-]', '-', job.info.run_name)[:200]}"
            here.mkdir(parents=True)
            with refusing(self.uri):
                mlflow.artifacts.download_artifacts(
                    run_id=job.info.run_id, dst_path=str(here), tracking_uri=self.uri
                )
        return bool(jobs)

    def attach(self, sweep: str, files: Sequence[Path]) -> None:
        """Store files and folders with a sweep's run."""
        if self._run(sweep) is not None:
            with refusing(self.uri):
                log_files(self.client, sweep, files)

    def _run(self, sweep: str) -> Any:
        with refusing(self.uri):
            try:
                return self.client.get_run(sweep)
            except MlflowException as error:
                if error.error_code in _UNKNOWN:
                    return None
                raise

    def _search(self, wanted: str) -> list[Any]:
        with refusing(self.uri):
            experiments = [
                experiment.experiment_id
                for experiment in self.client.search_experiments()
                if experiment.name.endswith("-sweeps")
            ]
            if not experiments:
                return []
            found = self.client.search_runs(
                experiments, wanted, order_by=["attributes.start_time DESC"], max_results=1000
            )
            return list(found)


def _noted(run: Any) -> str:
    return str(run.data.params["folder"])
