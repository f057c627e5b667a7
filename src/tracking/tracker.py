"""Tracked runs for sweeps, jobs, pairs and trainings, in any store that has four methods."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config.sections import TrackingSettings
from ..utils.call_target import call_target
from ..utils.refusals import first_line

if TYPE_CHECKING:
    from .training_logger import TrainingLogger

log = logging.getLogger(__name__)

Point = tuple[str, float, int]
"""Name, value and step of a metric."""


class TrackingStore(Protocol):
    """Store of runs: what `_target_` of the config section `tracking` returns.

    It is called with `dataset`, the name of the data set, and the section's other keys. Any error
    ends the tracking, and no job. A store may also have `remote`, True if it also gets tables and
    pictures; `end_dead()`, which ends the runs of killed commands; and `link(sweep)`, which returns
    a line that says where to see a sweep.
    """

    def start(
        self,
        kind: str,
        name: str,
        parameters: Mapping[str, object],
        tags: Mapping[str, str],
        points: Sequence[Point],
    ) -> str:
        """Open a run, and return its id. `kind` is sweep, job, pair or training.

        `tags` may have `sweep` and `job`, the ids of the runs that it belongs to, and
        `data_digest`, `data_path`, `data_images` and `data_classes` of its images.
        """

    def log(self, run: str, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Log metrics and tags of an open run. The tag `note` describes it, `name` renames it."""

    def keep(self, run: str, path: Path) -> None:
        """Store a file, or a folder's files, with a run."""

    def end(self, run: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""


METHODS = ("start", "log", "keep", "end")
UNTRACKED = "tracking._target_=null"
"""Override that a sweep without a run passes on to its jobs."""


@dataclass(frozen=True)
class Run:
    """Tracked job: the ids of its run and its sweep, empty if nothing is tracked."""

    id: str = ""
    sweep: str = ""


class Tracker:
    """Runs of a command in a store.

    If the store fails, no results are lost.

    Args:
        store: The store; None: nothing is tracked.
        tables: True: also log tables and pictures.
        tags: Tags of every run.
        required: True: the command is refused if the store fails before anything is tracked.
    """

    def __init__(
        self,
        store: TrackingStore | None = None,
        tables: bool = False,
        tags: Sequence[tuple[str, str]] = (),
        required: bool = False,
    ) -> None:
        self.store, self.tables, self.tags, self.required = store, tables, dict(tags), required

    def start_sweep(
        self, name: str, parameters: Mapping[str, Any], folder: Path | None = None
    ) -> str | None:
        """Open the run of a sweep in a folder and return its id, which is passed to its jobs.

        If a named store fails, it is refused here, before anything is tracked.
        """
        tags = {} if folder is None else {"folder": str(folder.absolute())}
        return self._start("sweep", name, parameters, tags, goes_on=not self.required)

    def end_sweep(
        self, sweep: str, status: str, files: Sequence[Path], note: str, points: Sequence[Point]
    ) -> None:
        """Close a sweep's run as FINISHED, FAILED or KILLED; `note` becomes its description."""
        for path in files:
            self._ask("keep", sweep, path)
        self._ask("log", sweep, points, {"note": note})
        self._ask("end", sweep, status)

    def end_dead(self) -> None:
        """End the runs of killed commands, and of those that have lost the store, as KILLED."""
        if hasattr(self.store, "end_dead"):
            self._call("end_dead")

    @contextmanager
    def job(self, name: str, sweep: str | None, parameters: Mapping[str, Any]) -> Iterator[Run]:
        """Open a job's run under a sweep; it ends as FINISHED, FAILED (with an error) or KILLED."""
        run = self._start("job", name, parameters, {"sweep": sweep or ""}) or ""
        with self._ended(run):
            try:
                yield Run(run, sweep or "")
            except Exception as error:
                self._ask("log", run, [], {"error": f"{type(error).__name__}: {error}"})
                raise

    def log_job(
        self,
        run: Run,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path],
    ) -> None:
        """Log the metrics, tags and files of a job."""
        points = [(name, value, 0) for name, value in metrics.items()]
        self._ask("log", run.id, points, tags)
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
        tags = {"sweep": run.sweep, "job": run.id, **tags}
        self._ask("end", self._start("pair", name, parameters, tags, points), "FINISHED")

    @contextmanager
    def training_logger(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any]
    ) -> Iterator["TrainingLogger | None"]:
        """Open a training's run, and give its Lightning logger; None if nothing is tracked."""
        from .training_logger import TrainingLogger  # slow to import

        run = self._start("training", name, parameters, tags)
        with self._ended(run):
            yield TrainingLogger(self, run) if run else None

    @contextmanager
    def _ended(self, run: str | None) -> Iterator[None]:
        """Close a run as FINISHED, FAILED or, after an interrupt, KILLED."""
        status = "KILLED"
        try:
            yield
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            self._ask("end", run, status)

    def link(self, sweep: str) -> str:
        """Return a line that says where to see a sweep, empty if the store has none."""
        return (self._call("link", sweep) if hasattr(self.store, "link") else None) or ""

    def _start(
        self,
        kind: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        points: Sequence[Point] = (),
        goes_on: bool = True,
    ) -> str | None:
        """Open a run, and return its id."""
        tags = {"kind": kind, **self.tags, **tags}
        run: str | None = self._call("start", kind, name, parameters, tags, points, goes_on=goes_on)
        return run

    def _ask(self, method: str, run: str | None, *arguments: Any) -> None:
        """Call a method of the store on a run, if there is one."""
        if run:
            self._call(method, run, *arguments)

    def _call(self, method: str, *arguments: Any, goes_on: bool = True) -> Any:
        """Call a method of the store; None if there is none, or if it fails."""
        if self.store is None:
            return None
        try:
            return getattr(self.store, method)(*arguments)
        except Exception as error:  # a failing store must not cost any results
            name, self.store = str(getattr(self.store, "address", type(self.store).__name__)), None
            _warn_of_loss(name, goes_on, error)


@cache
def open_tracker(settings: TrackingSettings, dataset: str) -> Tracker:
    """Return the tracker for some settings and the name of a data set, opened once per process.

    If the default store, in a folder, cannot be opened, nothing is tracked, and a warning says so.

    Raises:
        ValueError: Another store cannot be opened.
    """
    call = settings.call
    if not call.get("_target_"):
        return Tracker()
    required = call.get("uri", "") is not None  # null: MLflow's store in a folder
    try:
        store = call_target({**call, "dataset": dataset})
        if missing := [name for name in METHODS if not callable(getattr(store, name, None))]:
            raise ValueError(f"it lacks {', '.join(missing)}; it needs {', '.join(METHODS)}")
    except ValueError as error:
        folder = Path(call["directory"]).absolute() if call.get("directory") else None
        _warn_of_loss(str(call.get("uri") or folder or call["_target_"]), not required, error)
        return Tracker()
    remote = bool(getattr(store, "remote", False))
    tables = remote if settings.tables is None else settings.tables
    return Tracker(store, tables, settings.tags, required)


def _warn_of_loss(name: str, goes_on: bool, error: Exception) -> None:
    """Warn that a store cannot be used; refuse it if nothing can have been tracked yet."""
    fault = f"The tracking store {without_password(name)} cannot be used ({_reason(error)})"
    if not goes_on:
        raise ValueError(f"tracking: {fault}. Use another store, or tracking=none.") from error
    log.warning(
        "%s: tracking stops, but all files are written. When the store works again, run the same "
        "command: it tracks every job, without computing it again.",
        fault,
    )


def without_password(text: str) -> str:
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
    return without_password(first_line(error)) or type(error).__name__
