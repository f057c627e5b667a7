"""MLflow as a tracking store; no other module imports mlflow.

There are three experiments per data set: `DATASET` has flat runs for pairs, so that the Chart view
overlays them at once; `DATASET-sweeps` has a run per sweep, with the runs of its jobs nested in it;
`DATASET-training` has a run per training.

This file uses names that MLflow does not document. If they change, no metric and no file is lost:

- tags `mlflow.*` fill the UI's columns, descriptions and nesting, which would be missing;
- the address of a page of the UI is for `link`, which would lead to its first page;
- the logger `mlflow.store.db.utils` is silenced; it would print tracebacks again.
"""

import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from ..artifacts.record import git_commit
from ..artifacts.sweep_state import is_dead
from ..utils.files import remove_temporaries, temporary_name
from ..utils.package import FOLDER, PACKAGE
from ..utils.refusals import first_line, warn_once
from .tracker import Point, without_password

log = logging.getLogger(__name__)

# Set before the first request; otherwise MLflow prints two lines at the end of each run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no data leaves the machine
# This logger prints a traceback for every error, which MLflow then raises anyway. A filter, because
# Hydra resets the levels of loggers.
logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: False)

NOTES = {
    "": "One run per pair of source and target. Its curves are the metrics `.../curve`.",
    "-sweeps": "One run per sweep, with its jobs nested below.",
    "-training": "One run per training of a model without weights.",
}
"""Descriptions of the experiments, by suffix of their names."""
_ENDS = {"pair": "", "training": "-training"}
_RENAMED = {"note": "mlflow.note.content", "name": "mlflow.runName"}
_VIEW = "?workflowType=machine_learning"  # otherwise new experiments show an empty overview
_LONGEST_TAG, _LONGEST_PARAMETER = 7900, 6000


class MlflowStore(MlflowClient):
    """MLflow client that remembers experiments by name, and sends few requests to a server.

    Args:
        dataset: Name of the data set.
        uri: Address of the store; None: a SQLite file in `directory`, next to its lock and
            artifacts.
        directory: Folder of the SQLite file.
        experiment: Start of the experiments' names; None: `dataset`.
        system_metrics: True: log load and memory of this machine during jobs and trainings.
    """

    def __init__(
        self,
        dataset: str,
        uri: str | None = None,
        directory: str = "mlruns",
        experiment: str | None = None,
        system_metrics: bool = False,
    ) -> None:
        folder = Path(directory).expanduser().absolute()
        self.dataset, self.prefix = dataset, experiment or dataset
        self.artifacts = None if uri else (folder / "artifacts").as_uri()
        self.remote = "://" in (uri or "") and not str(uri).startswith("sqlite")
        self.experiments: dict[str, str] = {}
        if system_metrics and find_spec("psutil") is None:
            raise ValueError("tracking.system_metrics=true needs psutil: pip install psutil")
        self.measured = ("job", "training") if system_metrics else ()
        self.monitors: dict[str, Any] = {}
        if not uri and {*"?%"} & {*str(folder)}:
            raise ValueError("a SQLite address cannot contain ? or %; set tracking.directory")
        folder.mkdir(parents=True, exist_ok=True)
        # Only one process creates the tables.
        with _patience(seconds=5, retries=0), FileLock(folder / "mlflow.lock"):
            if not uri:
                _prepare(folder / "mlflow.db")
            super().__init__(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
            self.search_experiments(max_results=1)
        while not uri and (places := self._moved_from(folder)):
            warn_once(
                f"{folder} was moved or copied: {self.prefix} has its files in {places[0]}. "
                f"New runs are in {self.prefix}-moved, or set tracking.experiment=NAME."
            )
            self.prefix += "-moved"

    @property
    def address(self) -> str:
        """URI of the store."""
        return str(self.tracking_uri)

    def start(
        self,
        kind: str,
        name: str,
        parameters: Mapping[str, object],
        tags: Mapping[str, str],
        points: Sequence[Point] = (),
    ) -> str:
        """Open a run in the experiment of its kind, and return its id; empty if it is rejected."""
        own = {"mlflow.source.name": f"{PACKAGE}.main", "mlflow.source.type": "LOCAL"}
        if (commit := git_commit()) != "unknown":
            own["mlflow.source.git.commit"] = commit
        if kind == "job" and tags["sweep"]:
            own["mlflow.parentRunId"] = tags["sweep"]
        end, tags = _ENDS.get(kind, "-sweeps"), dict(tags)
        if kind == "pair" and "note" in tags and tags["sweep"]:
            sweep = (
                f"#/experiments/{self._experiment(f'{self.prefix}-sweeps')}/runs/{tags['sweep']}"
            )
            tags["note"] += f" [Report of the sweep]({sweep}/artifacts/report.html{_VIEW})"
        creation = end, name, {**own, **_tags(tags)}
        if kind == "sweep":
            with _patience(seconds=20, retries=3):
                run = self._create(*creation)
        elif (run := self._send(self._create, *creation)) is None:
            return ""
        texts = {key: str(value) for key, value in parameters.items()}
        params = [Param(key, _shorten(text, _LONGEST_PARAMETER)) for key, text in texts.items()]
        if params or points:
            self._send(self.log_batch, run, metrics=_metrics(points), params=params)
        self._name_data(run, tags, "training" if kind == "training" else "evaluation")
        if kind in self.measured:
            # It needs psutil, which may not be installed.
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self.monitors[run] = SystemMetricsMonitor(run, tracking_uri=self.address)
            self.monitors[run].start()
        return run

    def log(self, run: str, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Log tags and metrics, with as many per request as MLflow allows."""
        run_tags = [RunTag(name, value) for name, value in _tags(tags).items()]
        for start in range(0, max(1, len(points)), 900):
            metrics = _metrics(points[start : start + 900])
            self._send(self.log_batch, run, metrics=metrics, tags=run_tags)
        self._name_data(run, tags, "evaluation")

    def keep(self, run: str, path: Path) -> None:
        """Store a file, or a folder's files under its name, as artifacts of a run."""
        if path.is_dir():
            self._send(self.log_artifacts, run, str(path), artifact_path=path.name)
        else:
            self._send(self.log_artifact, run, str(path))

    def end(self, run: str, status: str) -> None:
        """Close a run."""
        if run in self.monitors:
            self._send(self.monitors.pop(run).finish)
        self._send(self.set_terminated, run, status)

    def end_dead(self) -> None:
        """End the open runs of dead sweeps (see `is_dead`), and of their parts, as KILLED."""
        for end in NOTES:
            self._send(self._end_dead, f"{self.prefix}{end}")

    def link(self, sweep: str) -> str:
        """Return the sweep's page on a server, or the command that shows a local store."""
        uri = without_password(self.address)
        if uri.startswith("http"):
            page = f"#/experiments/{self._experiment(f'{self.prefix}-sweeps')}/runs/{sweep}"
            return f"MLflow: {uri.rstrip('/')}/{page}{_VIEW}"
        made = Path.cwd() == FOLDER.parent and uri == f"sqlite:///{FOLDER.parent}/mlruns/mlflow.db"
        words = "make ui" if made else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return f"MLflow, sweep {sweep}: {words}"

    def _moved_from(self, folder: Path) -> list[Path]:
        """Return the local places of these experiments that are not in the store's folder."""
        known = (self.get_experiment_by_name(f"{self.prefix}{end}") for end in NOTES)
        local = (its.artifact_location for its in known if its)
        paths = [Path(url2pathname(urlsplit(its).path)) for its in local if its[:5] == "file:"]
        return [path for path in paths if not path.resolve().is_relative_to(folder.resolve())]

    def _create(self, end: str, name: str, tags: Mapping[str, str]) -> str:
        """Open a run in the experiment with the suffix `end`, and return its id."""
        where = self._experiment(f"{self.prefix}{end}", NOTES[end])
        return str(self.create_run(where, tags=dict(tags), run_name=name).info.run_id)

    def _experiment(self, name: str, note: str = "") -> str:
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

    def _name_data(self, run: str, tags: Mapping[str, str], context: str) -> None:
        """Log the data set of a run that names its digest; the UI filters by it."""
        if "data_digest" in tags:
            path, counts = tags.get("data_path"), ("images", "classes")
            kind, source = ("local", {"uri": path}) if path else ("package", {"name": self.dataset})
            known = {name: int(tags[f"data_{name}"]) for name in counts if f"data_{name}" in tags}
            profile, texts = json.dumps(known), (kind, json.dumps(source))
            data = Dataset(self.dataset, tags["data_digest"], *texts, profile=profile)
            tag = InputTag("mlflow.data.context", context)
            self._send(self.log_inputs, run, datasets=[DatasetInput(data, [tag])])

    def _end_dead(self, experiment: str) -> None:
        known = self.get_experiment_by_name(experiment)
        where = [known.experiment_id] if known else []
        for run in self.search_runs(where, "attributes.status = 'RUNNING'") if where else []:
            sweep = run.data.tags.get("sweep", run.info.run_id)
            folder = self.get_run(sweep).data.tags.get("folder") if sweep else None
            if folder and is_dead(Path(folder)):
                self.set_terminated(run.info.run_id, "KILLED")

    def _send(self, request: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a method; None, with a warning, if MLflow rejects these data but accepts others."""
        try:
            with _patience(seconds=20, retries=3):
                return request(*arguments, **keywords)
        except Exception as error:
            upload = getattr(getattr(error, "response", None), "status_code", 500)
            if getattr(error, "get_http_status_code", lambda: upload)() not in (400, 404, 409, 413):
                raise
            reason = without_password(first_line(error))
            log.warning("MLflow rejected some of the tracked data (%s).", reason)


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with MLflow's names and lengths; tables in descriptions are monospaced."""
    texts = {name: value[:_LONGEST_TAG] for name, value in tags.items()}
    if "\n" in texts.get("note", ""):
        texts["note"] = f"```text\n{texts['note']}\n```"
    return {_RENAMED.get(name, name): text for name, text in texts.items()}


def _shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _metrics(points: Sequence[Point]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value, step in points]


@contextmanager
def _patience(seconds: int, retries: int) -> Iterator[None]:
    """Limit how long MLflow waits for a server, unless environment variables do so."""
    limits = {"TIMEOUT": str(seconds), "MAX_RETRIES": str(retries)}
    variables = {f"MLFLOW_HTTP_REQUEST_{key}": value for key, value in limits.items()}
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


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
