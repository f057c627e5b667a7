"""Runs of sweeps, jobs, pairs and trainings, in three experiments a data set.

`DATASET` holds flat pair runs, so that the Chart view overlays them at once;
`DATASET-sweeps` holds a run per sweep with its jobs nested in it;
`DATASET-training` holds a run per fine-tuning.
"""

import logging
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytorch_lightning.loggers import Logger

from src.config.settings import TrackingSettings
from src.utils.checks import first_line
from src.utils.locks import is_held

if TYPE_CHECKING:
    from src.tracking.mlflow_store import Store

log = logging.getLogger(__name__)

Point = tuple[str, float, int]
"""A metric's name, value and step."""


@dataclass(frozen=True)
class Run:
    """A tracked job: the ids of its run and of its sweep, empty if nothing is tracked.

    Its process holds the file `lock`.
    """

    id: str = ""
    sweep: str = ""
    lock: Path = Path()


class Tracker:
    """Tracker of one data set, which names its experiments; without `store` it tracks nothing.

    A store that goes away costs no results.
    """

    def __init__(
        self, store: "Store | None" = None, dataset: str = "", tables: bool = False
    ) -> None:
        self.store, self.dataset, self.tables = store, dataset, tables

    @property
    def address(self) -> str:
        """URI of the store."""
        return "" if self.store is None else str(self.store.tracking_uri)

    def close_orphans(self) -> None:
        """End as KILLED the runs of this machine whose processes are gone, as their locks tell."""
        running = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
        for ending in ("", "-sweeps", "-training"):
            for run in self._ask("found", f"{self.dataset}{ending}", running) or ():
                lock = Path(run.data.tags.get("lock", ""))
                if lock.is_absolute() and lock.parent.is_dir() and not is_held(lock):
                    self._ask("set_terminated", run.info.run_id, "KILLED")

    def start_sweep(
        self, name: str, plan: str, parameters: Mapping[str, Any], lock: Path
    ) -> str | None:
        """Open a sweep, whose process holds a lock, and return its id, which its jobs get.

        The plan tells it from others in any store. A named store that fails is refused here.
        """
        if self.store is None:
            return None
        tags = {"kind": "sweep", "plan": plan, **_place(lock)}
        try:
            with _patience(seconds=20, retries=3):
                return self.store.start(f"{self.dataset}-sweeps", name, tags, parameters)
        except Exception as error:
            _lose(self.address, self.store.artifacts is not None, error)
            self.store = None
            return None

    def end_sweep(
        self, sweep: str, status: str, files: Sequence[Path], note: str, points: Sequence[Point]
    ) -> None:
        """Close a sweep as FINISHED, FAILED or KILLED; the note becomes its description."""
        self._ask("keep", sweep, files)
        shown = f"```text\n{note[:7900]}\n```"  # in a fixed width, and as much as a tag may hold
        run = self._ask("get_run", sweep)
        new = points if run and not run.data.metrics else ()  # it may be delivered again
        self._ask("log", sweep, new, {"mlflow.note.content": shown})
        self._ask("set_terminated", sweep, status)

    @contextmanager
    def job(
        self, name: str, sweep: str | None, parameters: Mapping[str, Any], lock: Path
    ) -> Iterator[Run]:
        """Open a job under a sweep; it ends FINISHED, FAILED with its error, or KILLED.

        Its process holds a lock, which lies in the job's folder.
        """
        tags = {"kind": "job", "sweep": sweep or "", **_place(lock)}
        if sweep:
            tags["mlflow.parentRunId"] = sweep
        run = self._ask("start", f"{self.dataset}-sweeps", name, tags, parameters) or ""
        status = "KILLED"
        try:
            yield Run(run, sweep or "", lock)
            status = "FINISHED"
        except Exception as error:
            status = "FAILED"
            self._ask("set_tag", run, "error", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._ask("set_terminated", run, status)

    def log_job(self, run: Run, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Log a job's own metrics and tags."""
        self._ask("log", run.id, [(name, value, 0) for name, value in metrics.items()], tags)

    def log_files(self, run: Run, files: Sequence[Path]) -> None:
        """Store a job's files, its tables only in a store elsewhere or where that is asked for."""
        self._ask(
            "keep", run.id, [path for path in files if self.tables or path.suffix != ".parquet"]
        )

    def sweep_of(self, plan: str) -> str | None:
        """Return the id of the sweep that has a plan; None if it was not tracked here."""
        found = self._ask("found", f"{self.dataset}-sweeps", f"tags.plan = '{plan}'")
        return found[0].info.run_id if found else None

    def has_job(self, delivery: str) -> bool:
        """Tell whether the store has a finished job of this `delivery`."""
        return bool(self._delivered(f"{self.dataset}-sweeps", delivery))

    def pairs_of(self, delivery: str) -> set[str]:
        """Return the targets whose pairs the store has of a job's `delivery`."""
        return {run.data.tags["target"] for run in self._delivered(self.dataset, delivery)}

    def log_pair(
        self,
        run: Run,
        name: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, Any],
        points: Sequence[Point],
    ) -> None:
        """Log one source -> target pair of a job as a flat run of its own."""
        tags = {"kind": "pair", "sweep": run.sweep, "job": run.id, **_place(run.lock), **tags}
        pair = self._ask("start", self.dataset, name, tags, parameters, points)
        self._ask("set_terminated", pair, "FINISHED")

    def training_logger(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], lock: Path
    ) -> Logger | None:
        """Return a Lightning logger for one training, or None where nothing is tracked."""
        tags = {"kind": "training", **_place(lock), **tags}
        run = self._ask("start", f"{self.dataset}-training", name, tags, parameters)
        return _TrainingLogger(self, run) if run else None

    def links(self, sweep: str, attacks: Sequence[str]) -> dict[str, str]:
        """Return, by description, the command that serves the UI and links into it.

        The curves of each attack have a link, since the UI draws ten runs at first.
        """
        pairs, sweeps = (
            self._ask("experiment", f"{self.dataset}{ending}") for ending in ("", "-sweeps")
        )
        if self.store is None:
            return {}
        uri = _without_password(self.address)
        served = uri.startswith("http")
        ui = f"{uri.rstrip('/') if served else 'http://127.0.0.1:5000'}/#/experiments"
        opened = "?workflowType=machine_learning"  # else new experiments open on an empty overview
        links = {} if served else {"serve": f"mlflow ui --backend-store-uri {uri}"}
        for attack in attacks:
            wanted = quote(f"tags.sweep LIKE '%{sweep}%' and tags.attack = '{attack}'")
            curves = f"{opened}&compareRunsMode=CHART&searchFilter={wanted}"
            links[f"{attack} curves"] = f"{ui}/{pairs}/runs{curves}"
        return {**links, "sweep": f"{ui}/{sweeps}/runs/{sweep}{opened}"}

    def _delivered(self, experiment: str, delivery: str) -> list[Any]:
        """Return the finished runs of an experiment with a job's `delivery`."""
        wanted = f"tags.delivery = '{delivery}' and attributes.status = 'FINISHED'"
        return self._ask("found", experiment, wanted) or []

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the store; None where there is none, or none any more."""
        if self.store is None:
            return None
        try:
            with _patience(seconds=20, retries=3):
                return getattr(self.store, method)(*arguments)
        except Exception as error:  # whatever a store does, it costs nobody a result
            _lose(self.address, True, error)
            self.store = None
            return None


@cache
def open_tracker(settings: TrackingSettings, dataset: str) -> Tracker:
    """Return the tracker that some settings ask for; `dataset` names its experiments.

    It is opened once a process, until `open_tracker.cache_clear()`.

    A named store that cannot be opened, or is silent for seconds, is refused. Without one of the
    program's own, in `tracking.directory`, nothing is tracked, as a warning says.
    """
    if settings.name == "none":
        return Tracker()
    try:
        with _patience(seconds=5, retries=0):
            from src.tracking.mlflow_store import Store  # here: tracking=none needs no mlflow

            store = Store(settings.uri, settings.directory)
    except Exception as error:  # of many kinds, depending on the store
        file = Path(settings.directory).absolute() / "mlflow.db"
        _lose(settings.uri or f"sqlite:///{file}", settings.uri is None, error)
        return Tracker()
    elsewhere = "://" in (settings.uri or "") and not str(settings.uri).startswith("sqlite")
    return Tracker(store, dataset, elsewhere if settings.tables is None else settings.tables)


def _lose(address: str, goes_on: bool, error: Exception) -> None:
    """Warn that a store cannot be used; refuse it where nothing can have been tracked yet."""
    words = f"The MLflow store {_without_password(address)} cannot be used ({_reason(error)})"
    if not goes_on:
        raise ValueError(f"tracking.uri: {words}; use another, or tracking=none.") from error
    later = f" --uri {_without_password(address)}"
    if address.startswith("sqlite:"):
        later = f" --directory {Path(address.removeprefix('sqlite:///')).parent}"
        words = f"{words}; repair the file, or move it away"
    log.warning(
        "%s: nothing more is tracked there, all files are written, and python -m src.sync%s "
        "delivers them later.",
        words,
        later,
    )


def _place(lock: Path) -> dict[str, str]:
    """Return the tags that tell which process a run is of: its machine, and the lock it holds."""
    return {"host": platform.node(), "lock": str(lock.absolute())}


def _without_password(text: str) -> str:
    """Return a text without the names and passwords in its addresses."""
    return re.sub(r"://[^@\s]*@", "://", text)


def _reason(error: BaseException) -> str:
    """Return the first line of an error's deepest cause above any failed look-up."""
    while (cause := error.__cause__ or error.__context__) and not isinstance(cause, LookupError):
        error = cause
    return _without_password(first_line(error)) or type(error).__name__


@contextmanager
def _patience(seconds: int, retries: int) -> Iterator[None]:
    """Limit how long MLflow waits for a server, as far as the environment does not."""
    wanted = {"TIMEOUT": str(seconds), "MAX_RETRIES": str(retries)}
    ours = {f"MLFLOW_HTTP_REQUEST_{key}": value for key, value in wanted.items()}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


class _TrainingLogger(Logger):
    """Logs the metrics of a training; its recipe is with the run since its start."""

    def __init__(self, tracker: Tracker, run: str) -> None:
        super().__init__()
        self.tracker, self.run = tracker, run

    @property
    def name(self) -> str:
        """Folder name for Lightning."""
        return "mlflow"

    @property
    def version(self) -> str:
        """The run's id."""
        return self.run

    def log_hyperparams(self, *parameters: Any, **more: Any) -> None:
        """Log nothing more."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of a step."""
        points = [(name, value, step or 0) for name, value in metrics.items()]
        self.tracker._ask("log", self.run, points)

    def finalize(self, status: str) -> None:
        """Close the run; Lightning reports an interrupt as a failure."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        ended = "FINISHED" if status in ("success", "finished") else "FAILED"
        self.tracker._ask("set_terminated", self.run, "KILLED" if interrupted else ended)
