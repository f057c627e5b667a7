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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
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
    "-sweeps": "One run per sweep, and below it the jobs that it ran first.",
    "-training": "One run per training of a model without weights.",
}
"""Descriptions of the experiments, by suffix of their names."""
_ENDS = {"pair": "", "training": "-training"}
_KINDS = ("sweep", "job", *_ENDS)
_SOURCE = {"mlflow.source.name": f"{PACKAGE}.main", "mlflow.source.type": "LOCAL"}
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
        self.artifacts = None if uri else (folder / "artifacts").as_uri()
        self.remote = "://" in (uri or "") and not str(uri).startswith("sqlite")
        self.experiments: dict[str, str] = {}
        if not uri and {*"?%"} & {*str(folder)}:
            raise ValueError("a SQLite address cannot contain ? or %; set tracking.directory")
        if uri and ("://" not in uri or uri.startswith("file:")):
            raise ValueError(
                "it is a folder, which MLflow no longer writes runs to; for a database in it, type "
                f"tracking.uri=null tracking.directory={shlex.quote(uri.removeprefix('file://'))}"
            )
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
        with _patience(seconds=20, retries=3):
            for end, note in NOTES.items():  # a store that cannot be written fails here
                self.set_experiment_tag(self._experiment(end), _RENAMED["note"], note)
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
        """Write a run to the experiment of its kind; one that exists gets the tags that are new.

        A run that is open was left by a process that was killed, or is written by another one: it
        is written again, with the same points.
        """
        experiment, own = self._experiment(_ENDS.get(kind, "-sweeps")), dict(_SOURCE)
        if (commit := git_commit()) != "unknown":
            own["mlflow.source.git.commit"] = commit
        if kind == "pair" and "note" in tags and "sweep" in tags:
            note = f"{tags['note']} [Its sweep]({self._page('-sweeps', tags['sweep'])})"
            tags = {**tags, "note": note}
        own |= _tags(tags)
        run = next(iter(self._equal(experiment, tags["run_key"])), None)
        if run and run.info.status != "RUNNING":
            new = [RunTag(*its) for its in own.items() if its[0] not in run.data.tags]
            self._send(self.log_batch, run.info.run_id, tags=new)
            return
        if not (run := run or self._send(self.create_run, experiment, tags=own, run_name=name)):
            return
        number, now = run.info.run_id, run.info.start_time
        points = [Metric(name, float(value), now, step) for name, value, step in metrics]
        params = [Param(key, _shorten(str(value))) for key, value in parameters.items()]
        for start in range(0, max(1, len(points)), 900):
            batch = {"metrics": points[start : start + 900], "params": params[: 100 * (not start)]}
            self._send(self.log_batch, number, **batch)
        self._name_data(number, tags, "training" if kind == "training" else "evaluation")
        for path in files:
            if path.is_dir():
                self._send(self.log_artifacts, number, str(path), artifact_path=path.name)
            else:
                self._send(self.log_artifact, number, str(path))
        if kind == "sweep":
            self._nest_jobs(experiment, number, tags["sweep"])
        self._send(self.set_terminated, number, "FAILED" if "error" in tags else "FINISHED")
        self._drop_copies(experiment, tags["run_key"])

    def link(self, sweep: str) -> str:
        """Return the page of a sweep's pairs on a server, or the command that shows a store."""
        uri = without_password(str(self.tracking_uri))
        if uri.startswith("http"):
            return f"MLflow: {uri.rstrip('/')}/{self._page('', sweep)}"
        made = Path.cwd() == FOLDER.parent and uri == f"sqlite:///{FOLDER.parent}/mlruns/mlflow.db"
        words = "make ui" if made else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return f"MLflow, sweep {sweep}: {words}"

    def _page(self, end: str, sweep: str) -> str:
        """Return the page of a sweep's runs in an experiment, relative to the UI."""
        runs = quote(f"tags.`sweep.{sweep}` = 'true'")
        return f"#/experiments/{self._experiment(end)}/runs?searchFilter={runs}&{_VIEW}"

    def _equal(self, experiment: str, key: str) -> list[Run]:
        """Return the runs with a key: complete ones first, in an order all processes agree on."""
        runs = self._send(self.search_runs, [experiment], f"tags.run_key = '{key}'") or []
        return sorted(runs, key=lambda its: (its.info.status == "RUNNING", its.info.run_id))

    def _drop_copies(self, experiment: str, key: str) -> None:
        """Leave one of several complete runs with a key, which processes have written at once."""
        first, *copies = [r for r in self._equal(experiment, key) if r.info.status != "RUNNING"]
        for copy in copies:
            sweeps = [RunTag(*its) for its in copy.data.tags.items() if its[0].startswith("sweep.")]
            self.log_batch(first.info.run_id, tags=sweeps)
            with suppress(MlflowException):  # the other process has deleted it
                self.delete_run(copy.info.run_id)

    def _nest_jobs(self, experiment: str, run: str, sweep: str) -> None:
        """Show a sweep's jobs below its run, unless an earlier sweep has them."""
        jobs = f"tags.kind = 'job' and tags.`sweep.{sweep}` = 'true'"
        for job in self._send(self.search_runs, [experiment], jobs, max_results=10_000) or []:
            if _PARENT not in job.data.tags:
                self._send(self.set_tag, job.info.run_id, _PARENT, run)

    def _end_leftovers(self) -> None:
        """End open runs of version 0.5.0 and earlier if no command holds their sweep's folder.

        This program closes its runs at once; in earlier versions they were open for hours.
        """
        where = list(self.experiments.values())
        for run in self.search_runs(where, "attributes.status = 'RUNNING'", max_results=10_000):
            tags = run.data.tags
            source, kind = tags.get("mlflow.source.name", ""), tags.get("kind")
            if source.endswith(".main") and kind in _KINDS and "run_key" not in tags:
                with suppress(MlflowException):  # its sweep was deleted
                    sweep = self.get_run(tags.get("sweep") or run.info.run_id)
                    folder = sweep.data.tags.get("folder")
                    if folder and is_dead(Path(folder)):
                        self.set_terminated(run.info.run_id, "FAILED")

    def _moved_from(self, folder: Path) -> list[Path]:
        """Return the local places of these experiments that are not in the store's folder."""
        known = (self.get_experiment_by_name(f"{self.prefix}{end}") for end in NOTES)
        local = (its.artifact_location for its in known if its)
        paths = [Path(url2pathname(urlsplit(its).path)) for its in local if its[:5] == "file:"]
        return [path for path in paths if not path.resolve().is_relative_to(folder.resolve())]

    def _experiment(self, end: str) -> str:
        """Return the id of the experiment with the suffix `end`; create it if needed."""
        name = f"{self.prefix}{end}"
        if name not in self.experiments:
            location = self.artifacts and f"{self.artifacts}/{quote(name)}"
            try:
                self.experiments[name] = self.create_experiment(name, artifact_location=location)
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


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_PARAMETER else f"{text[: _LONGEST_PARAMETER - 3]}..."


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
