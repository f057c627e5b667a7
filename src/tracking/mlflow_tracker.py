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

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from pytorch_lightning.loggers import Logger

from src.tracking.mlflow_store import (
    Client,
    SteadyClient,
    log_files,
    open_client,
    patience,
    refusing,
    without_password,
)
from src.tracking.tracker import Run, Tracker
from src.utils.files import write_text

ARTIFACTS = "artifacts"
_ENDINGS = {"pair": "", "sweep": "-sweeps", "train": "-training"}
_BATCH = 1000  # metrics that a store takes in one request
_LONGEST_PARAMETER = 6000
_LONGEST_NOTE = 7900


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
            experiment = self._experiment("sweep", self.opened)
            run = self.opened.create_run(experiment, tags={"kind": "sweep"}, run_name=name)
            self.opened.log_batch(run.info.run_id, params=_params(parameters))
        return str(run.info.run_id)

    def end_sweep(
        self, sweep: str, status: str, files: Sequence[Path] = (), note: str = ""
    ) -> None:
        """Close a sweep, and store its files and folders; the note becomes its description."""
        log_files(self.client, sweep, files)
        if note:
            shown = f"```text\n{note[:_LONGEST_NOTE]}\n```"  # as it is, in a fixed width
            self.client.set_tag(sweep, MLFLOW_RUN_NOTE, shown)
        self.client.set_terminated(sweep, status)

    @contextmanager
    def job(self, name: str, sweep: str | None, parameters: Mapping[str, Any]) -> Iterator[Run]:
        """Open a job under a sweep; it ends FINISHED, FAILED with its error, or KILLED."""
        tags = {"kind": "job", "sweep": sweep or ""}
        if sweep:
            tags[MLFLOW_PARENT_RUN_ID] = sweep
        run = self._create("sweep", name, tags)
        try:
            self._log(run, parameters=parameters)
            yield Run(run, sweep or "")
        except Exception as error:
            self.client.set_tag(run, "error", f"{type(error).__name__}: {error}"[:4000])
            self.client.set_terminated(run, "FAILED")
            raise
        except BaseException:
            self.client.set_terminated(run, "KILLED")
            raise
        self.client.set_terminated(run, "FINISHED")

    def log_metrics(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Note figures of a job."""
        self._log(run.id, metrics=[(name, value, 0) for name, value in metrics.items()])

    def set_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Add tags to a job."""
        for name, value in tags.items():
            key = re.sub(r"[^\w.\-/: ]", "-", name)  # MLflow allows no other characters
            self.client.set_tag(run.id, key, value[:_LONGEST_PARAMETER])

    def log_files(self, run: Run, folder: Path) -> None:
        """Store a job's files; folders inside it are left out."""
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            self.client.log_artifact(run.id, str(file))

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
        tags = {"kind": "pair", "sweep": run.sweep, "job": run.id, **tags}
        pair = self._create("pair", name, tags)
        points = [
            (metric, value, int(eps))
            for metric, curve in curves.items()
            for eps, value in curve
            if float(eps).is_integer()
        ]
        points += [(metric, value, 0) for metric, value in metrics.items()]
        status = "FAILED"
        try:
            self._log(pair, parameters=parameters, metrics=points)
            status = "FINISHED"
        finally:
            self.client.set_terminated(pair, status)

    def training_logger(
        self, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any], work: Path
    ) -> Logger:
        """Return a logger whose run id is kept in `work`, so that a resumed training goes on."""
        memory = work / "mlflow_run_id"
        run = memory.read_text() if memory.exists() else ""
        if not self._knows(run):
            run = self._create("train", name, {"kind": "training", **tags})
            self._log(run, parameters=parameters)
            write_text(memory, run)
        return _TrainingLogger(self, run)

    def links(self, sweep: str, attacks: Sequence[str], shown: str = "") -> dict[str, str]:
        """Return the command that serves the UI and where to look there.

        The curves of each attack have a link, since the UI draws ten runs at first.
        """
        if self.client.lost:
            return {}
        served, uri = self.uri.startswith("http"), without_password(self.uri)
        server = uri.rstrip("/") if served else "http://127.0.0.1:5000"
        opened = "?workflowType=machine_learning"  # else new experiments open on an empty overview
        links = {}
        for attack in attacks:
            pairs = f"{server}/#/experiments/{self._experiment('pair', self.client)}/runs{opened}"
            wanted = quote(f"tags.sweep = '{sweep}' and tags.attack = '{attack}'")
            links[f"{attack} curves"] = f"{pairs}&compareRunsMode=CHART&searchFilter={wanted}"
        run = f"{server}/#/experiments/{self._experiment('sweep', self.client)}/runs/{sweep}"
        links["sweep"] = f"{run}{opened}"
        links["artifacts"] = f"{run}/artifacts/{quote(shown)}{opened}"
        if served:
            return links
        command = f"mlflow ui --backend-store-uri {uri}"
        return {"serve": f"make ui, or: {command}" if self.local else command, **links}

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
            location = (self.directory / ARTIFACTS / name).as_uri() if self.local else None
            self.experiments[kind] = client.experiment(name, location)
        return self.experiments[kind]

    def _create(self, kind: str, name: str, tags: Mapping[str, str]) -> str:
        experiment = self._experiment(kind, self.client)
        run = self.client.create_run(experiment, tags=dict(tags), run_name=name)
        return str(run.info.run_id) if run else ""

    def _log(
        self,
        run: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Sequence[tuple[str, float, int]] = (),
    ) -> None:
        """Write in as few requests as the store allows."""
        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, step) for name, value, step in metrics]
        self.client.log_batch(run, metrics=points[:_BATCH], params=_params(parameters or {}))
        for start in range(_BATCH, len(points), _BATCH):
            self.client.log_batch(run, metrics=points[start : start + _BATCH])


class _TrainingLogger(Logger):
    """Notes a training's figures with its run."""

    def __init__(self, tracker: MlflowTracker, run: str) -> None:
        super().__init__()
        self.tracker, self.run = tracker, run

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
        figures = [(name, value, step or 0) for name, value in metrics.items()]
        self.tracker._log(self.run, metrics=figures)

    def finalize(self, status: str) -> None:
        """Close the run; of an interrupt Lightning says that the training failed."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        ended = "FINISHED" if status in ("success", "finished") else "FAILED"
        ended = "KILLED" if interrupted else ended
        self.tracker.client.set_terminated(self.run, ended)


def _params(parameters: Mapping[str, Any]) -> list[Param]:
    return [Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in parameters.items()]
