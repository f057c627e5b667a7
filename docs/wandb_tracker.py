"""Publish runs to Weights & Biases: tracking=wandb, with wandb.yaml in mine/tracking/."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from src.tracking import Point


def publish(
    kind: str,
    name: str,
    parameters: Mapping[str, object],
    metrics: Sequence[Point],
    tags: Mapping[str, str],
    files: Sequence[Path],
    **options: Any,
) -> None:
    """Write a run; one that exists under its key gets the tags that are new.

    `options` are keywords of `wandb.init`, such as `project`, `entity` and `mode`.
    """
    run = wandb.init(
        id=tags["run_key"],
        resume="allow",
        name=name,
        job_type=kind,
        group=tags.get("job", tags["run_key"]),  # a job with its pairs
        **options,
    )
    new = run.config.get("run_key") is None
    run.config.update({**parameters, **tags, **dict(run.config)}, allow_val_change=True)
    if new:
        run.define_metric("*", step_metric="step")
        for metric, value, step in metrics:  # steps: whole budgets in 1/255, or training steps
            run.log({metric: value, "step": step})
        for path in files:
            parts = [file for file in path.rglob("*") if file.is_file()] or [path]
            for file in parts:
                run.save(str(file), base_path=str(path.parent), policy="now")
    run.finish(exit_code="error" in tags)  # W&B shows another exit code than 0 as failed
