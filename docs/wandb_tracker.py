"""Track sweeps in Weights & Biases: tracking=wandb, with wandb.yaml in mine/tracking/."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from src.tracking import Point


class WandbTracker:
    """A project with a run per sweep, job, pair and training, and a group per sweep.

    `options` are further keywords of `wandb.init`, such as `entity` and `mode`.
    """

    def __init__(self, dataset: str, project: str | None = None, **options: Any) -> None:
        self.project, self.options = project or dataset, options
        self.runs: dict[str, Any] = {}

    def start(
        self,
        kind: str,
        name: str,
        parameters: Mapping[str, object],
        tags: Mapping[str, str],
        points: Sequence[Point],
    ) -> str:
        """Open a run, and return its id."""
        run = wandb.init(
            project=self.project,
            name=name,
            job_type=kind,
            group=tags.get("sweep") or None,
            config={**parameters, **tags},
            reinit="create_new",  # runs of a sweep, its jobs and pairs are open together
            **self.options,
        )
        run.define_metric("*", step_metric="step")
        self.runs[run.id] = run
        self.log(run.id, points, {})
        return str(run.id)

    def log(self, run: str, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Log metrics by step (whole budgets in 1/255, or training steps), and tags."""
        for name, value, step in points:
            self.runs[run].log({name: value, "step": step})
        self.runs[run].config.update(dict(tags), allow_val_change=True)

    def keep(self, run: str, path: Path) -> None:
        """Upload a file, or a folder's files."""
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        for file in files:
            self.runs[run].save(str(file), base_path=str(path.parent), policy="now")

    def end(self, run: str, status: str) -> None:
        """Close a run; W&B shows another exit code than 0 as failed."""
        self.runs.pop(run).finish(exit_code=0 if status == "FINISHED" else 1)
