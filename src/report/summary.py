"""Groups of comparable jobs, and in what they differ."""

import json
from collections.abc import Iterable

import pandas as pd

from ..artifacts.jobs import FinishedJob
from ..artifacts.likeness import model_digest


def differences(groups: Iterable[str]) -> str:
    """Name the facts in which groups of jobs differ, with their values; empty for one group."""
    facts = pd.DataFrame([json.loads(group) for group in dict.fromkeys(groups)]).fillna("another")
    unlike = {name: its.astype(str).unique() for name, its in facts.items()}
    return ", ".join(f"{name} ({', '.join(its)})" for name, its in unlike.items() if len(its) > 1)


def group_of(job: FinishedJob, names: dict[str, str]) -> str:
    """Return a job's group: facts as JSON, and models whose name was another in earlier jobs."""
    record, trainer = job.record, job.record.config["trainer"]
    facts = {
        "images": f"{record.images} of digest {record.data}",
        **{"norm": record.norm, "epsilon.reference": f"{record.reference!r}".removesuffix(".0")},
        **{"protocol": record.protocol, "storage": record.storage, "seed": record.seed},
        **{"trainer.precision": record.precision, "program's code": record.code.get("program", "")},
        **{f"trainer.{key}": trainer[key] for key in ("attack_precision", "fold_batch_norms")},
    }
    changed = {
        f"model.{name}": digest
        for name in record.weights
        if names.setdefault(f"{record.data} {name}", digest := model_digest(record, name)) != digest
    }
    return json.dumps(facts | changed)
