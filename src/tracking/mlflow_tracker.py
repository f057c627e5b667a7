"""MLflow: three experiments a data set, opened when needed, written in few requests.

`DATASET` holds flat pair runs, so that the Chart view overlays them at once;
`DATASET-sweeps` holds a run per sweep with its jobs nested in it;
`DATASET-training` holds a run per fine-tuning.
"""

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from pytorch_lightning.loggers import Logger

from src.tracking.mlflow_store import (
    Client,
    SteadyClient,
    open_client,
    patience,
    refusing,
    without_password,
)
from src.tracking.tracker import Run, Tracker
from src.utils.files import write_text

_ENDINGS = {"pair": "", "job": "-sweeps", "sweep": "-sweeps", "training": "-training"}
_LONGEST_NOTE = 7900  # characters; other texts are cut by MLflow

Points = Sequence[tuple[str, float, int]]
"""Metrics by name, value and step."""


class MlflowTracker(Tracker):
    """Tracks sweeps, jobs, pairs and trainings of one data set.

    Args:
        uri: Any MLflow tracking URI; None: a SQLite file in `directory`.
        directory: Where the SQLite file, its lock and the artifacts live.
        dataset: Names the experiments.

    Raises:
        ValueError: The store cannot be opened.
    """

    def __init__(self, uri: str | None, directory: str, dataset: str) -> None:
        self.directory = Path(directory).absolute()
        self.local = uri is None
        self.dataset = dataset
        self.opened, self.uri = open_client(uri, directory)
        self.client = SteadyClient(self.opened, self.uri)
        self.experiments: dict[str, str] = {}

    def start_sweep(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Open a sweep and return its run id.

        Raises:
            ValueError: The store does not take it. What fails later costs no job its results.
        """
        with refusing(self.uri), patience(seconds=20, retries=3):
            return self._start("sweep", name, {}, parameters, client=self.opened)

    def end_sweep(
        self, sweep: str, status: str, files: Sequence[Path] = (), note: str = ""
    ) -> None:
        """Close a sweep, and store its files and folders; the note becomes its description."""
        self._store(sweep, files)
        if note:
            shown = f"```text\n{note[:_LONGEST_NOTE]}\n```"  # as it is, in a fixed width
            self.client.set_tag(sweep, MLFLOW_RUN_NOTE, shown)
        self.client.set_terminated(sweep, status)

    @contextmanager
    def job(self, name: str, sweep: str | None, parameters: Mapping[str, Any]) -> Iterator[Run]:
        """Open a job under a sweep; it ends FINISHED, FAILED with its error, or KILLED."""
        tags = {"sweep": sweep or ""} | ({MLFLOW_PARENT_RUN_ID: sweep} if sweep else {})
        run = self._start("job", name, tags, parameters)
        status = "KILLED"
        try:
            yield Run(run, sweep or "")
            status = "FINISHED"
        except Exception as error:
            status = "FAILED"
            self.client.set_tag(run, "error", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.client.set_terminated(run, status)

    def log_metrics(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Note figures of a job."""
        points = [(name, value, 0) for name, value in metrics.items()]
        self.client.log_batch(run.id, metrics=_metrics(points))

    def set_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Add tags to a job."""
        # MLflow allows no other characters in a name.
        clean = [RunTag(re.sub(r"[^\w.\-/: ]", "-", name), tags[name]) for name in tags]
        self.client.log_batch(run.id, tags=clean)

    def log_files(self, run: Run, folder: Path) -> None:
        """Store a job's files; folders inside it are left out."""
        self._store(run.id, sorted(path for path in folder.iterdir() if path.is_file()))

    def log_pair(
        self,
        run: Run,
        name: str,
        *,
        tags: Mapping[str, str],
        parameters: Mapping[str, Any],
        curves: Mapping[str, Sequence[tuple[float, float]]],
        metrics: Mapping[str, float],
    ) -> None:
        """Log one source -> target pair as a flat run of its own."""
        points = [
            (metric, value, int(eps))
            for metric, curve in curves.items()
            for eps, value in curve
            if float(eps).is_integer()
        ]
        points += [(metric, value, 0) for metric, value in metrics.items()]
        tags = {"sweep": run.sweep, "job": run.id, **tags}
        pair = self._start("pair", name, tags, parameters, points)
        self.client.set_terminated(pair, "FINISHED")

    def training_logger(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], work: Path
    ) -> Logger:
        """Return a logger whose run id is kept in `work`, so that a resumed training goes on."""
        memory = work / "mlflow_run_id"
        run = memory.read_text() if memory.exists() else ""
        if not self._knows(run):
            run = self._start("training", name, tags, parameters)
            write_text(memory, run)
        return _TrainingLogger(self.client, run)

    def links(self, sweep: str, attacks: Sequence[str], shown: str = "") -> dict[str, str]:
        """Return the command that serves the UI and where to look there.

        The curves of each attack have a link, since the UI draws ten runs at first.
        """
        if self.client.lost:
            return {}
        served, uri = self.uri.startswith("http"), without_password(self.uri)
        server = f"{uri.rstrip('/') if served else 'http://127.0.0.1:5000'}/#/experiments"
        opened = "?workflowType=machine_learning"  # else new experiments open on an empty overview
        pairs = f"{server}/{self._experiment('pair', self.client)}/runs{opened}"
        run = f"{server}/{self._experiment('sweep', self.client)}/runs/{sweep}"
        links = {}
        if not served:
            command = f"mlflow ui --backend-store-uri {uri}"
            links["serve"] = f"make ui, or: {command}" if self.local else command
        for attack in attacks:
            wanted = quote(f"tags.sweep = '{sweep}' and tags.attack = '{attack}'")
            links[f"{attack} curves"] = f"{pairs}&compareRunsMode=CHART&searchFilter={wanted}"
        links["sweep"] = f"{run}{opened}"
        links["artifacts"] = f"{run}/artifacts/{quote(shown)}{opened}"
        return links

    def _knows(self, run: str) -> bool:
        """Tell whether the store holds a run; it may be another one than that of yesterday."""
        try:
            with patience(seconds=5, retries=0):
                return bool(run) and not self.client.lost and bool(self.opened.get_run(run))
        except MlflowException:
            return False

    def _experiment(self, kind: str, client: Client | SteadyClient) -> str:
        """Return an experiment's id; it is created when its first run is."""
        if kind not in self.experiments:
            name = self.dataset + _ENDINGS[kind]
            location = (self.directory / "artifacts" / name).as_uri() if self.local else None
            self.experiments[kind] = client.experiment(name, location)
        return self.experiments[kind]

    def _start(
        self,
        kind: str,
        name: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, Any],
        points: Points = (),
        *,
        client: Client | SteadyClient | None = None,
    ) -> str:
        """Open a run with all that is known of it, and return its id; empty without a store."""
        client = client or self.client
        experiment = self._experiment(kind, client)
        run = client.create_run(experiment, tags={"kind": kind, **tags}, run_name=name)
        if run is None:
            return ""
        params = [Param(key, str(value)) for key, value in parameters.items()]
        client.log_batch(run.info.run_id, metrics=_metrics(points), params=params)
        return str(run.info.run_id)

    def _store(self, run: str, paths: Sequence[Path]) -> None:
        """Store files, and the files of folders under the folder's name."""
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(run, str(path), artifact_path=path.name)
            else:
                self.client.log_artifact(run, str(path))


class _TrainingLogger(Logger):
    """Notes a training's figures with its run."""

    def __init__(self, client: SteadyClient, run: str) -> None:
        super().__init__()
        self.client, self.run = client, run

    @property
    def name(self) -> str:
        """Return what Lightning calls a folder by."""
        return "mlflow"

    @property
    def version(self) -> str:
        """Return the run's id."""
        return self.run

    def log_hyperparams(self, *parameters: Any, **more: Any) -> None:
        """Note nothing: the recipe is with the run since its start."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Note figures of a step."""
        points = [(name, value, step or 0) for name, value in metrics.items()]
        self.client.log_batch(self.run, metrics=_metrics(points))

    def finalize(self, status: str) -> None:
        """Close the run; of an interrupt Lightning says that the training failed."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        ended = "FINISHED" if status in ("success", "finished") else "FAILED"
        ended = "KILLED" if interrupted else ended
        self.client.set_terminated(self.run, ended)


def _metrics(points: Points) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value, step in points]
