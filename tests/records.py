"""Records of made-up jobs, and results of frames that tests make up or change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from src.artifacts.finished_job import FinishedJob
from src.artifacts.jobs import name_jobs
from src.artifacts.layout import PREDICTIONS
from src.artifacts.record import JobRecord
from src.artifacts.tables import NAMES, PREDICTION_SCHEMA
from src.report import Results, results_of

JOBS = "jobs"
"""Key in the `attrs` of a frame: its jobs' records as plain data."""


def make_record(**facts: Any) -> JobRecord:
    """Return the record of a made-up job; every model is a target and has weights.

    As in a job's own record, an ensemble has weights, and no settings of a model.
    """
    none: dict[str, Any] = {}
    config = {
        "attack": {"kind": "crafted", "target_label": None, "norm": "linf", "settings": none},
        "dataset": {"name": "made-up"},
        "ensemble": "logits",
        "model": {
            name: {"network": {"name": name}} for name in facts["weights"] if "+" not in name
        },
        "source": [facts["source"]],
        "sweep": None,
        "trainer": {"batch_size": 50, "fold_batch_norms": True},
    }
    values = {
        **{"crafting": "", "target_keys": none, "gradients": 0, "zero_gradients": 0},
        **{"seconds": None, "code": none, "data": "data", "values": 192, "device": "cpu"},
        **{"layer": "", "targets": list(facts["weights"]), "defences": ()},
        **{"label": facts["attack"], "norm": "linf", "protocol": "joint"},
        **{"storage": "float32", "dataset": "made-up", "seed": 0},
        **{"overrides": (), "flags": (), "created": "", "commit": "", "versions": none},
    }
    return JobRecord(**values | facts | {"config": config | facts.get("config", {})})


def predictions_of(results: Results) -> pd.DataFrame:
    """Return the predictions of results, whose `attrs` have the jobs' records, to be changed."""
    frame = results.predictions.copy()
    frame.attrs[JOBS] = [job.record.model_dump(mode="json") for job in results.jobs]
    return frame


def results_of_frame(frame: pd.DataFrame) -> Results:
    """Return the results of a frame of predictions, whose `attrs` have its jobs' records."""
    return results_of(name_jobs(jobs_of_frame(frame)))


def jobs_of_frame(frame: pd.DataFrame) -> list[FinishedJob]:
    """Return the jobs of a frame of predictions, whose `attrs` have their records."""
    columns = [field.name for field in (*PREDICTION_SCHEMA, *NAMES) if field.name in frame]
    rows = frame.copy(deep=False)
    rows.attrs = {}
    parts, jobs = dict(iter(rows.groupby(["attack", "source"], sort=False))), []
    for record in map(JobRecord.model_validate, frame.attrs[JOBS]):
        job = FinishedJob(record, Path(), {}, raised=())
        if (part := parts.get((job.attack, record.source))) is None:
            continue
        there = set(part.loc[part["eps_255"] > 0, "target"])
        targets = [name for name in record.targets if name in there]
        table = pa.Table.from_pandas(part[columns], preserve_index=False)
        record = record.model_copy(update={"targets": targets})
        jobs.append(replace(job, record=record, tables={PREDICTIONS: table}))
    return jobs
