"""Publish runs of sweeps, jobs, pairs and trainings with one function of any tracking store."""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from inspect import isclass, signature
from pathlib import Path
from typing import Any

from ..config.sections import TrackingSettings
from ..utils.call_target import call_target
from ..utils.package import resolve
from ..utils.refusals import first_line

log = logging.getLogger(__name__)

Point = tuple[str, float, int]
"""Name, value and step of a metric."""
STARTED = "started"
"""Tag of the time at which a run began, in milliseconds since 1970."""
_LOST = (
    "%s: tracking stops, but all files are written. When the store works again, run the same "
    "command: it tracks every job, without computing it again."
)
_TAGS = {"kind", "name", "note", "error", "sweep", "job", "run_key", STARTED}
"""Tags that are not the user's."""
_PUBLISH = "publish(kind, name, parameters, metrics, tags, files)"


@dataclass
class Tracker:
    """The tracking store of a process; no results depend on it, and any error ends the tracking.

    Attributes:
        store: A function `publish`, or an object with this method. An object may also have
            `remote`, True if it gets tables and pictures by default, and `link(sweep)`, which
            returns a line that says where to see a sweep. None: nothing is published.
        name: Name of the store in messages.
        tables: True: also publish tables and pictures.
        tags: Tags of every run.
    """

    store: Any = None
    name: str = ""
    tables: bool = False
    tags: Sequence[tuple[str, str]] = ()

    def publish(
        self,
        kind: str,
        name: str,
        parameters: Mapping[str, object],
        metrics: Sequence[Point],
        tags: Mapping[str, str],
        files: Sequence[Path] = (),
    ) -> None:
        """Publish a run of what is finished: a `sweep`, `job`, `pair` or `training`.

        Equal runs have an equal tag `run_key`: a store has one of them, and adds the tags that are
        new to it. The tag `sweep.ID` names a sweep that the run belongs to, and `sweep` the first
        one. The tag `job` is the `run_key` of a pair's job, `note` describes the run, `started` is
        when it began, and `error` says why it has failed.
        """
        files = [path for path in files if self.tables or path.suffix not in (".parquet", ".npz")]
        tags = {"kind": kind, **dict(self.tags), **tags}
        self._call(_publish_of(self.store), kind, name, parameters, metrics, tags, files)

    def link(self, sweep: str) -> str:
        """Return a line that says where to see a sweep, empty if the store has none."""
        return self._call(getattr(self.store, "link", None), sweep) or ""

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call a function of the store; None if there is none, or if it fails."""
        try:
            return function and function(*arguments)
        except (Exception, SystemExit) as error:  # a failing store must not cost any results
            self.store = None
            log.warning(_LOST, _fault(self.name, error))


@cache
def open_tracker(settings: TrackingSettings, dataset: str) -> Tracker:
    """Return the tracker for some settings and the name of a data set, opened once per process.

    If the default store, in a folder, cannot be opened, nothing is tracked, and a warning says so.

    Raises:
        ValueError: Another store cannot be opened, or is no store.
    """
    call = settings.call
    if not (target := call.get("_target_")):
        return Tracker()
    if taken := ", ".join(name for name, _ in settings.tags if name.partition(".")[0] in _TAGS):
        raise ValueError(f"tracking.tags={{{taken}: ...}}: every run has this tag. Rename it.")
    folder = Path(call["directory"]).absolute() if call.get("directory") else None
    name = str(call.get("uri") or folder or target)
    more: dict[str, Any] = {"dataset": dataset}
    with suppress(Exception):  # a module that fails, which the call describes
        if not isclass(resolve(target)):
            more = {"_partial_": True}  # the function is `publish`
    try:
        store = call_target({**call, **more})
    except ValueError as error:
        fault = _fault(name, error)
        if call.get("uri") or not target.endswith(".MlflowStore"):  # not the default folder
            raise ValueError(f"tracking: {fault}. Use another store, or tracking=none.") from error
        log.warning(_LOST, fault)
        return Tracker()
    try:
        signature(_publish_of(store)).bind(*_PUBLISH.split(", "))
    except TypeError as error:
        way = f"give it one method {_PUBLISH}."
        raise ValueError(f"tracking: {target} is no tracker: {way}") from error
    remote = bool(getattr(store, "remote", False))
    tables = remote if settings.tables is None else settings.tables
    return Tracker(store, name, tables, settings.tags)


def _publish_of(store: Any) -> Any:
    """Return the function that publishes: a method of the store, or the store itself."""
    return getattr(store, "publish", store)


def _fault(name: str, error: BaseException) -> str:
    return f"The tracking store {without_password(name)} cannot be used ({_reason(error)})"


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
