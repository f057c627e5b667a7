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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from ..artifacts.record import git_commit
from ..artifacts.sweep_state import is_dead
from ..utils.files import remove_temporaries, temporary_name
from ..utils.package import FOLDER, PACKAGE
from ..utils.refusals import first_line, quoted, warn_once
from .tracker import STARTED, Point, without_password

log = logging.getLogger(__name__)

# Set before the first request; otherwise MLflow prints two lines at the end of each run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no data leaves the machine
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds; MLflow waits for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
# This logger prints a traceback for every error, which MLflow then raises anyway. A filter, because
# Hydra resets the levels of loggers.
logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: False)

NOTES = {
    "": "One run per pair of source and target. Its curves are the metrics `.../curve`.",
    "-sweeps": "One run per sweep, and below it the jobs that it ran first.",
    "-training": "One run per training of a model without weights.",
}
"""Descriptions of the experiments, by suffix of their names."""
_ENDS = {"pair": "", "training": "-training"}
_IN_SWEEP = "tags.`sweep.{}` = 'true'"
_PARENT = "mlflow.parentRunId"
_RENAMED = {"note": "mlflow.note.content", "name": "mlflow.runName"}
_VIEW = "workflowType=machine_learning"  # otherwise new experiments show an empty overview
_LONGEST_TAG, _LONGEST_PARAMETER = 7900, 6000


class MlflowStore(MlflowClient):
    """MLflow client that publishes each run once, and sends few requests to a server.

    Args:
        dataset: Name of the data set.
        uri: Address of the store; None: a SQLite file in `directory`, next to its lock and
            artifacts.
        directory: Folder of the SQLite file.
        experiment: Start of the experiments' names; None: `dataset`.
    """

    def __init__(
        self,
        dataset: str,
        uri: str | None = None,
        directory: str = "mlruns",
        experiment: str | None = None,
    ) -> None:
        folder = Path(directory).expanduser().absolute()
        self.dataset, self.prefix = dataset, experiment or dataset
        self.source = {"mlflow.source.name": f"{PACKAGE}.main", "mlflow.source.type": "LOCAL"}
        if (commit := git_commit()) != "unknown":
            self.source["mlflow.source.git.commit"] = commit
        self.artifacts = None if uri else (folder / "artifacts").as_uri()
        self.remote = "://" in (uri or "") and not str(uri).startswith("sqlite")
        if not uri and {*"?%"} & {*str(folder)}:
            raise ValueError("a SQLite address cannot contain ? or %; set tracking.directory")
        if uri and is_local_uri(uri):
            place = shlex.quote(f"tracking.directory={quoted(local_file_uri_to_path(uri))}")
            raise ValueError(
                f"it is a folder; for a database in it, type tracking.uri=null {place}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        # Only one process creates the tables.
        with FileLock(folder / "mlflow.lock"):
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
        self.experiments = {end: self._open_experiment(end) for end in NOTES}
        self._end_leftovers()

    def publish(
        self,
        kind: str,
        name: str,
        parameters: Mapping[str, object],
        metrics: Sequence[Point],
        tags: Mapping[str, str],
        files: Sequence[Path],
    ) -> None:
        """Write a run to the experiment of its kind; one that exists gets new tags and files.

        An open run is being written by another process, or that was killed: it is written again,
        with the same points.
        """
        experiment, key = self.experiments[_ENDS.get(kind, "-sweeps")], tags["run_key"]
        if kind == "pair" and "note" in tags:
            note = f"{tags['note']} [Sweep and report]({self._page('-sweeps', tags['sweep'])})"
            tags = {**tags, "note": note}
        tags = dict(tags)
        start = int(tags.pop(STARTED)) if STARTED in tags else None
        texts = {**self.source, **_tags(tags)}
        run = next(self._runs(experiment, f"tags.run_key = '{key}'"), None)
        run = run or self._send(self.create_run, experiment, start, texts, name)
        if run is None:
            return
        number, now = run.info.run_id, run.info.start_time
        new = [RunTag(*pair) for pair in texts.items() if pair[0] not in run.data.tags]
        self._send(self.log_batch, number, tags=new)
        stored = {artifact.path for artifact in self.list_artifacts(number)} if files else ()
        for path in (path for path in files if path.name not in stored):
            self._send(self.log_artifact, number, str(path))
        if run.info.status != "RUNNING":
            self._drop_copies(experiment, key)
            return
        points = [Metric(metric, float(value), now, step) for metric, value, step in metrics]
        params = [Param(key, _shorten(str(value))) for key, value in parameters.items()]
        self._send(self.log_batch, number, params=params)  # alone, as they may be rejected
        for start in range(0, len(points), 900):
            self._send(self.log_batch, number, points[start : start + 900])
        self._name_data(number, tags, "training" if kind == "training" else "evaluation")
        if kind == "sweep":
            self._nest_jobs(number, tags["sweep"])
        self._send(self.set_terminated, number, "FAILED" if "error" in tags else "FINISHED")
        self._drop_copies(experiment, key)

    def link(self, sweep: str) -> str:
        """Return the page of a sweep's pairs on a server, or the command that shows a store."""
        uri = without_password(str(self.tracking_uri))
        if uri.startswith("http"):
            return f"MLflow: {uri.rstrip('/')}/{self._page('', sweep)}&compareRunsMode=CHART"
        made = Path.cwd() == FOLDER.parent and uri == f"sqlite:///{FOLDER.parent}/mlruns/mlflow.db"
        words = "make ui" if made else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return f"MLflow, sweep {sweep}: {words}"

    def _page(self, end: str, sweep: str) -> str:
        """Return the page of a sweep's runs in an experiment, relative to the UI."""
        runs = quote(_IN_SWEEP.format(sweep))
        return f"#/experiments/{self.experiments[end]}/runs?searchFilter={runs}&{_VIEW}"

    def _runs(self, experiment: str, wanted: str) -> Iterator[Run]:
        """Yield runs, those that are complete first, in an order that all processes agree on."""
        order = ["attributes.status ASC", "attributes.run_id ASC"]  # FAILED, FINISHED, RUNNING
        yield from self.search_runs([experiment], wanted, max_results=10_000, order_by=order)

    def _drop_copies(self, experiment: str, key: str) -> None:
        """Leave one of several complete runs with a key, which processes have written at once."""
        wanted = f"tags.run_key = '{key}' and attributes.status != 'RUNNING'"
        runs = [*self._runs(experiment, wanted)]
        for copy in runs[1:]:
            sweeps = [RunTag(*pair) for pair in copy.data.tags.items() if pair[0][:6] == "sweep."]
            self.log_batch(runs[0].info.run_id, tags=sweeps)
            with suppress(MlflowException):  # the other process has deleted it
                self.delete_run(copy.info.run_id)

    def _nest_jobs(self, run: str, sweep: str) -> None:
        """Show a sweep's jobs below its run, unless an earlier sweep has them."""
        wanted = f"tags.kind = 'job' and {_IN_SWEEP.format(sweep)}"
        for job in self._runs(self.experiments["-sweeps"], wanted):
            if _PARENT not in job.data.tags:
                self.set_tag(job.info.run_id, _PARENT, run)

    def _end_leftovers(self) -> None:
        """End the open runs of dead sweeps."""
        wanted = "attributes.status = 'RUNNING' and tags.`mlflow.source.name` LIKE '%.main'"
        for experiment in self.experiments.values():
            for run in self._runs(experiment, wanted):
                if (folder := run.data.tags.get("folder")) and is_dead(Path(folder)):
                    self.set_terminated(run.info.run_id, "FAILED")

    def _moved_from(self, folder: Path) -> list[Path]:
        """Return the local places of these experiments that are not in the store's folder."""
        experiments = (self.get_experiment_by_name(f"{self.prefix}{end}") for end in NOTES)
        local = (experiment.artifact_location for experiment in experiments if experiment)
        paths = [Path(url2pathname(urlsplit(url).path)) for url in local if url[:5] == "file:"]
        return [path for path in paths if not path.resolve().is_relative_to(folder.resolve())]

    def _open_experiment(self, end: str) -> str:
        """Return the id of the experiment with the suffix `end`; create or restore it if needed."""
        name = f"{self.prefix}{end}"
        location = self.artifacts and f"{self.artifacts}/{quote(name)}"
        try:
            number = self.create_experiment(name, artifact_location=location)
        except MlflowException:
            experiment = self.get_experiment_by_name(name)
            if experiment is None:
                raise
            number = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                self.restore_experiment(number)
        self.set_experiment_tag(number, _RENAMED["note"], NOTES[end])  # or it cannot be written
        return str(number)

    def _name_data(self, run: str, tags: Mapping[str, str], context: str) -> None:
        """Log the data set of a run that names its digest; the UI filters by it."""
        if "data_digest" in tags:
            path, counts = tags.get("data_path"), ("images", "classes")
            kind, source = ("local", {"uri": path}) if path else ("package", {"name": self.dataset})
            stored = {name: int(tags[f"data_{name}"]) for name in counts if f"data_{name}" in tags}
            profile, texts = json.dumps(stored), (kind, json.dumps(source))
            data = Dataset(self.dataset, tags["data_digest"], *texts, profile=profile)
            tag = InputTag("mlflow.data.context", context)
            self._send(self.log_inputs, run, datasets=[DatasetInput(data, [tag])])

    def _send(self, request: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a method; None, with a warning, if MLflow rejects these data but accepts others."""
        try:
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


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_PARAMETER else f"{text[: _LONGEST_PARAMETER - 3]}..."


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
