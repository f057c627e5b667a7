"""MLflow client; no other module imports mlflow."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from src.artifacts.sweep_state import is_dead
from src.tracking.tracker import Point
from src.utils.files import remove_temporaries, temporary_name

# Set before the first request; otherwise MLflow prints two lines at the end of each run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no data leaves the machine
# This logger prints a traceback for every error, which MLflow then raises anyway. A filter, because
# Hydra resets the levels of loggers.
logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: False)


class TrackingStore(MlflowClient):
    """MLflow client that remembers experiments by name, and sends few requests to a server.

    Without `uri` the store is a SQLite file in `directory`, next to its lock and artifacts.
    """

    def __init__(self, uri: str | None, directory: str) -> None:
        folder = Path(directory).absolute()
        self.artifacts = None if uri else (folder / "artifacts").as_uri()
        self.experiments: dict[str, str] = {}
        if not uri and {*"?%"} & {*str(folder)}:
            raise ValueError("a SQLite address cannot contain ? or %; set tracking.directory")
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "mlflow.lock"):  # only one process creates the tables
            if not uri:
                _prepare(folder / "mlflow.db")
            super().__init__(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
            self.search_experiments(max_results=1)

    def experiment(self, name: str, note: str = "") -> str:
        """Return the id of an experiment; create it, with `note` as description, if needed."""
        if name not in self.experiments:
            location = self.artifacts and f"{self.artifacts}/{quote(name)}"
            try:
                self.experiments[name] = self.create_experiment(name, artifact_location=location)
                self.set_experiment_tag(self.experiments[name], "mlflow.note.content", note)
            except MlflowException:
                experiment = self.get_experiment_by_name(name)
                if experiment is None:
                    raise
                if experiment.lifecycle_stage == "deleted":
                    self.restore_experiment(experiment.experiment_id)
                self.experiments[name] = experiment.experiment_id
        return self.experiments[name]

    def start(self, experiment: str, name: str, tags: Mapping[str, str], note: str = "") -> str:
        """Open a run and return its id; `note` is the description of a new experiment."""
        where = self.experiment(experiment, note)
        created = self.create_run(where, tags=dict(tags), run_name=name)
        return str(created.info.run_id)

    def describe(self, run: str, parameters: Mapping[str, object], points: Sequence[Point]) -> None:
        """Log the parameters and metrics of a run in one request."""
        most = 6000  # maximum characters per parameter
        texts = ((key, str(value)) for key, value in parameters.items())
        params = [Param(k, v if len(v) <= most else f"{v[: most - 3]}...") for k, v in texts]
        self.log_batch(run, metrics=_metrics(points), params=params)

    def log(self, run: str, points: Sequence[Point], tags: Mapping[str, str] | None = None) -> None:
        """Log tags and metrics, with as many per request as MLflow allows."""
        run_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        for start in range(0, max(1, len(points)), 900):
            self.log_batch(run, metrics=_metrics(points[start : start + 900]), tags=run_tags)

    def name_data(self, run: str, name: str, digest: str, context: str = "evaluation") -> None:
        """Log the name of the data set used for evaluation or training; the UI filters by it."""
        source = json.dumps({"name": name})
        data = Dataset(name, digest, source_type="transferability", source=source)
        tag = InputTag("mlflow.data.context", context)
        self.log_inputs(run, datasets=[DatasetInput(data, [tag])])

    def end_dead(self, experiment: str) -> None:
        """End the open runs of dead sweeps (see `is_dead`), and of their parts, as KILLED."""
        known = self.get_experiment_by_name(experiment)
        where = [known.experiment_id] if known else []
        for run in self.search_runs(where, "attributes.status = 'RUNNING'") if where else []:
            sweep = run.data.tags.get("sweep", run.info.run_id)
            folder = self.get_run(sweep).data.tags.get("folder") if sweep else None
            if folder and is_dead(Path(folder)):
                self.set_terminated(run.info.run_id, "KILLED")

    def keep(self, run: str, path: Path) -> None:
        """Store a file, or a folder's files under its name, as artifacts of a run."""
        if path.is_dir():
            self.log_artifacts(run, str(path), artifact_path=path.name)
        else:
            self.log_artifact(run, str(path))


def _metrics(points: Sequence[Point]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value, step in points]


def _prepare(database: Path) -> None:
    """Create a SQLite store elsewhere and move it here, so that a kill leaves no partial store."""
    remove_temporaries(database.parent)
    if database.exists():
        return
    new = database.with_name(temporary_name(database))
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"  # closes the file before its move
    try:
        MlflowClient(f"sqlite:///{new}")
        database.with_name("mlflow.db-journal").unlink(missing_ok=True)  # it would be replayed
        new.rename(database)
    finally:
        new.unlink(missing_ok=True)
