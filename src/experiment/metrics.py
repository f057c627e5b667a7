"""What a tracked run for each target of a job says: curves, metrics at the reference budget."""

import math
from typing import Any

import pandas as pd

from src.analysis import rates
from src.config.settings import job_name
from src.experiment.provenance import JobRecord
from src.tracking import Run, Tracker

CURVES = ("robust_accuracy", "success_rate", "confidence", "true_confidence")


def track_pairs(
    predictions: pd.DataFrame, record: JobRecord, delivery: str, tracker: Tracker, run: Run
) -> None:
    """Log a run for each target of a job.

    Args:
        predictions: Of the primary variant.
        record: What the job was.
        delivery: Tells it from all other jobs.
        tracker: Where they are logged.
        run: The job's.
    """
    found = rates(predictions, record.source, record.targets, record.protocol)
    attack = record.config["attack"]
    for target in record.targets:
        rows = found[found["target"] == target]
        curves, metrics = pair_metrics(rows, record.reference)
        if record.norm == "l2" and record.values:
            metrics["reference_l2_radius"] = record.reference / 255 * math.sqrt(record.values)
        tracker.log_pair(
            run,
            f"{job_name(record.label, record.source)} -> {target}",
            key=record.key,
            delivery=delivery,
            again=bool(record.config.get("rerun")),
            tags=_tags(attack, record, target),
            parameters={
                **{f"attack.{key}": value for key, value in attack["settings"].items()},
                **({"ensemble": record.config["ensemble"]} if "+" in record.source else {}),
                "norm": record.norm,
                "source": record.source,
                "target": target,
                "dataset": record.dataset,
                "n_images": record.images,
                "seed": record.seed,
                "reference_eps_255": record.reference,
                "denominator": int(rows["denominator"].iloc[0]),
            },
            curves=curves,
            metrics=metrics,
        )


def pair_metrics(
    rows: pd.DataFrame, reference: float
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, float]]:
    """Turn one pair's rates into the curves and scalar metrics of a tracked run.

    `robust_accuracy` is the share still classified correctly, of targeted attacks too;
    `success_rate` the share predicted as any wrong class or, of those, as the target label.

    Args:
        rows: Those of `src.analysis.rates` of one target.
        reference: The budget, in units of 1/255, of the metrics named `reference_...`.

    Returns:
        Curves and metrics as `Tracker.log_pair` takes them, without what is not known, such as
        rates of an empty denominator.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    metrics: dict[str, float] = {}
    for name in CURVES:
        known = rows[["eps_255", name]].dropna().astype(float)
        if len(known):
            curves[name] = list(known.itertuples(index=False, name=None))
        for column in (name, f"{name}_low", f"{name}_high"):
            if column in rows:
                metrics[f"reference_{column}"] = float(rows.set_index("eps_255")[column][reference])
    return curves, {name: value for name, value in metrics.items() if not math.isnan(value)}


def _tags(attack: dict[str, Any], record: JobRecord, target: str) -> dict[str, str]:
    return {
        "dataset": record.dataset,
        "source": record.source,
        "target": target,
        "attack": record.label,
        "target_label": attack["target_label"] or "none",
        "seed": str(record.seed),
        "precision": record.precision,
        "protocol": record.protocol,
        "storage": record.storage,
        "source_weights": record.weights.get(record.source, "unknown"),
        "target_weights": record.weights[target],
        "data_digest": record.data,
        "git_commit": record.commit,
    }
