"""Lightning logger that writes the metrics of a training to a tracking store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from .tracker import Tracker


class TrainingLogger(Logger):
    """Logger for the metrics of a training; its run is opened and closed outside."""

    def __init__(self, tracker: Tracker, run: str) -> None:
        super().__init__()
        self.tracker, self.run = tracker, run

    @property
    def name(self) -> str:
        """Name of a folder, as Lightning requires."""
        return "tracking"

    @property
    def version(self) -> str:
        """Id of the run."""
        return self.run

    def log_hyperparams(self, *parameters: Any, **more: Any) -> None:
        """Do nothing: the recipe was logged when the run started."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        points = [(name, value, step or 0) for name, value in metrics.items()]
        self.tracker._ask("log", self.run, points, {})

    def log_weights(self, file: Path, digest: str) -> None:
        """Log the file of the trained weights, and the digest that pairs state for them."""
        self.tracker._ask("keep", self.run, file)
        self.tracker._ask("log", self.run, [], {"weights": digest})
