"""Tracked runs for sweeps, jobs, pairs and trainings, in three experiments per data set.

`DATASET` has flat runs for pairs, so that the Chart view overlays them at once;
`DATASET-sweeps` has a run per sweep, with the runs of its jobs nested in it;
`DATASET-training` has a run per training.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytorch_lightning.loggers import Logger

from src.artifacts.record import git_commit
from src.config.sections import TrackingSettings
from src.utils.refusals import first_line

if TYPE_CHECKING:
    from src.tracking.mlflow_store import TrackingStore

log = logging.getLogger(__name__)

NOTES = {
    "": "One run per pair of source and target. Its curves are the metrics `curves/...`.",
    "-sweeps": "One run per sweep, with its jobs nested below.",
    "-training": "One run per training of a model without weights.",
}
"""Descriptions of the experiments, by suffix of their names."""
Point = tuple[str, float, int]
"""Name, value and step of a metric."""


@dataclass(frozen=True)
class Run:
    """Tracked job: the ids of its run and its sweep, empty if nothing is tracked."""

    id: str = ""
    sweep: str = ""


class Tracker:
    """Tracker for one data set, whose name is in the experiments' names.

    Without `store` it tracks nothing. If the store fails later, no results are lost.
    """

    def __init__(
        self,
        store: "TrackingStore | None" = None,
        dataset: str = "",
        tables: bool = False,
        experiment: str | None = None,
        tags: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.store, self.dataset, self.tables = store, dataset, tables
        self.experiment, self.tags = experiment or dataset, dict(tags)

    @property
    def address(self) -> str:
        """URI of the store, for printing."""
        return "" if self.store is None else str(self.store.tracking_uri)

    def start_sweep(
        self, name: str, parameters: Mapping[str, Any], folder: Path | None = None
    ) -> str | None:
        """Open the run of a sweep in a folder and return its id, which is passed to its jobs.

        If a named store fails, it is refused here, before anything is tracked.
        """
        local = self.store is not None and self.store.artifacts is not None
        tags = {"kind": "sweep"} | ({} if folder is None else {"folder": str(folder.absolute())})
        sweep: str | None = self._start("-sweeps", name, tags, goes_on=local)
        self._ask("describe", sweep, parameters, (), goes_on=local)
        return sweep

    def end_sweep(
        self, sweep: str, status: str, files: Sequence[Path], note: str, points: Sequence[Point]
    ) -> None:
        """Close a sweep's run as FINISHED, FAILED or KILLED; `note` becomes its description."""
        for path in files:
            self._ask("keep", sweep, path)
        text = f"```text\n{note[:7900]}\n```"  # monospaced, and truncated to a tag's length
        self._ask("log", sweep, points, {"mlflow.note.content": text})
        self._ask("set_terminated", sweep, status)

    def end_dead(self) -> None:
        """End the runs of killed commands, and of those that have lost the store, as KILLED."""
        for end in NOTES:
            self._ask("end_dead", f"{self.experiment}{end}")

    @contextmanager
    def job(self, name: str, sweep: str | None, parameters: Mapping[str, Any]) -> Iterator[Run]:
        """Open a job's run under a sweep; it ends as FINISHED, FAILED (with an error) or KILLED."""
        tags = {"kind": "job", "sweep": sweep or ""}
        if sweep:
            tags["mlflow.parentRunId"] = sweep
        run = self._start("-sweeps", name, tags) or ""
        self._ask("describe", run, parameters, ())
        status = "KILLED"
        try:
            yield Run(run, sweep or "")
            status = "FINISHED"
        except Exception as error:
            status = "FAILED"
            self._ask("set_tag", run, "error", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._ask("set_terminated", run, status)

    def log_job(
        self,
        run: Run,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path],
        data: str,
    ) -> None:
        """Log the metrics, tags and files of a job, and the digest of its `data`.

        Tables and pictures are logged only to a remote store, or if `tracking.tables` asks for it.
        """
        self._ask("log", run.id, [(name, value, 0) for name, value in metrics.items()], tags)
        self._ask("name_data", run.id, self.dataset, data)
        for path in files:
            if self.tables or path.suffix not in (".parquet", ".npz"):
                self._ask("keep", run.id, path)

    def log_pair(
        self,
        run: Run,
        name: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, Any],
        points: Sequence[Point],
    ) -> None:
        """Log one pair (source -> target) of a job as a separate, flat run."""
        tags = {"kind": "pair", "sweep": run.sweep, "job": run.id, **tags}
        pair = self._start("", name, tags)
        self._ask("describe", pair, parameters, points)
        self._ask("name_data", pair, self.dataset, tags["data_digest"])
        self._ask("set_terminated", pair, "FINISHED")

    def training_logger(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], data: str
    ) -> Logger | None:
        """Return a Lightning logger for one training, or None if nothing is tracked.

        `data` is the digest of the training images.
        """
        run = self._start("-training", name, {**tags, "kind": "training"})
        self._ask("describe", run, parameters, ())
        self._ask("name_data", run, self.dataset, data, "training")
        return _TrainingLogger(self, run) if run else None

    def links(self, sweep: str, attacks: Sequence[str]) -> dict[str, str]:
        """Return the server, or the command that starts one, and links to pages, by description.

        There is one link per attack for its curves, because the UI shows only ten runs at first.
        """
        names = self.experiment, f"{self.experiment}-sweeps"
        pairs, sweeps = (self._ask("experiment", name) for name in names)
        if self.store is None:
            return {}
        uri = _without_password(self.address)
        served = uri.startswith("http")
        ui = f"{uri.rstrip('/') if served else 'http://127.0.0.1:5000'}/#/experiments"
        view = "?workflowType=machine_learning"  # otherwise new experiments show an empty overview
        order = f"orderByKey={quote('metrics.`reference/success_rate`')}&orderByAsc=false"
        command = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        links = {"MLflow store": uri} if served else {"serve": command}
        for attack in attacks:
            query = quote(f"tags.sweep LIKE '%{sweep}%' and tags.attack = '{attack}'")
            curves = f"{view}&compareRunsMode=CHART&searchFilter={query}"
            links[f"{attack} curves"] = f"{ui}/{pairs}/runs{curves}&{order}"
        return {**links, "sweep": f"{ui}/{sweeps}/runs/{sweep}{view}"}

    def _start(
        self, end: str, name: str, tags: Mapping[str, str], goes_on: bool = True
    ) -> str | None:
        """Open a run in the experiment with the suffix `end`, and return its id."""
        run_tags = {"mlflow.source.name": "src.main", "mlflow.source.type": "LOCAL"}
        run_tags |= {"mlflow.source.git.commit": git_commit(), **self.tags, **tags}
        where, note = f"{self.experiment}{end}", NOTES[end]
        run: str | None = self._ask("start", where, name, run_tags, note, goes_on=goes_on)
        return run

    def _ask(self, method: str, where: str | None, *arguments: Any, goes_on: bool = True) -> Any:
        """Call a method of the store on an experiment or a run; None if there is none."""
        if self.store is None or not where:
            return None
        try:
            with _patience(seconds=20, retries=3):
                return getattr(self.store, method)(where, *arguments)
        except Exception as error:  # a failing store must not cost any results
            upload = getattr(getattr(error, "response", None), "status_code", 500)
            status = getattr(error, "get_http_status_code", lambda: upload)()
            if goes_on and status in (400, 404, 409, 413):  # it accepts the rest
                log.warning("MLflow rejected some of the tracked data (%s).", _reason(error))
            else:
                address, self.store = self.address, None
                _warn_of_loss(address, goes_on, error)


@cache
def open_tracker(settings: TrackingSettings, dataset: str) -> Tracker:
    """Return the tracker for some settings, opened once per process.

    `dataset` is part of the experiments' names. If the default store in `tracking.directory` cannot
    be opened, nothing is tracked, and a warning says so.

    Raises:
        ValueError: A store named in the settings cannot be opened, or does not respond within
            seconds.
    """
    if settings.name == "none":
        return Tracker()
    try:
        with _patience(seconds=5, retries=0):
            # here: not needed for tracking=none
            from src.tracking.mlflow_store import TrackingStore

            store = TrackingStore(settings.uri, settings.directory)
    except Exception as error:  # its type depends on the store
        file = Path(settings.directory).absolute() / "mlflow.db"
        _warn_of_loss(settings.uri or f"sqlite:///{file}", settings.uri is None, error)
        return Tracker()
    elsewhere = "://" in (settings.uri or "") and not str(settings.uri).startswith("sqlite")
    tables = elsewhere if settings.tables is None else settings.tables
    return Tracker(store, dataset, tables, settings.experiment, settings.tags)


def _warn_of_loss(address: str, goes_on: bool, error: Exception) -> None:
    """Warn that a store cannot be used; refuse it if nothing can have been tracked yet."""
    fault = f"The MLflow store {_without_password(address)} cannot be used ({_reason(error)})"
    if not goes_on:
        raise ValueError(f"tracking.uri: {fault}. Use another store, or tracking=none.") from error
    log.warning(
        "%s: tracking stops, but all files are written. When the store works again, run the same "
        "command: it tracks every job, without computing it again.",
        fault,
    )


def _without_password(text: str) -> str:
    """Return a text without the user names and passwords in its addresses."""
    return re.sub(r"://[^@\s]*@", "://", text)


def _reason(error: BaseException) -> str:
    """Return the first line of an error's root cause, not counting failed look-ups.

    The chain ends before an error without arguments, as SQLAlchemy's pool raises.
    """
    while (cause := error.__cause__ or error.__context__) and not isinstance(cause, LookupError):
        if not cause.args:
            break
        error = cause
    return _without_password(first_line(error)) or type(error).__name__


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


class _TrainingLogger(Logger):
    """Logger for the metrics of a training; its recipe was logged when the run started."""

    def __init__(self, tracker: Tracker, run: str) -> None:
        super().__init__()
        self.tracker, self.run = tracker, run

    @property
    def name(self) -> str:
        """Name of a folder, as Lightning requires."""
        return "mlflow"

    @property
    def version(self) -> str:
        """Id of the run."""
        return self.run

    def log_hyperparams(self, *parameters: Any, **more: Any) -> None:
        """Do nothing: the recipe was logged when the run started."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        points = [(name, value, step or 0) for name, value in metrics.items()]
        self.tracker._ask("log", self.run, points)

    def finalize(self, status: str) -> None:
        """Close the run; an interrupt, which Lightning reports as a failure, counts as KILLED."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        outcome = "FINISHED" if status in ("success", "finished") else "FAILED"
        self.tracker._ask("set_terminated", self.run, "KILLED" if interrupted else outcome)
