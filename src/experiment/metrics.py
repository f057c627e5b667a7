"""Metrics of tracked runs: curves of a job's pairs, means of a sweep's attacks."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from src.analysis import is_white_box
from src.analysis.summary import JobSummary, Summary
from src.config.settings import job_name
from src.store.record import JobRecord
from src.tracking import Point, Run, Tracker

CURVES = ("robust_accuracy", "success_rate", "confidence", "true_confidence")


def track_pairs(
    summary: JobSummary, targets: Sequence[str], delivery: str, tracker: Tracker, run: Run
) -> None:
    """Log a run for each of some targets, from the rates of a job's primary variant."""
    record = summary.job.record
    attack, own = record.config["attack"], summary.own
    for target in targets:
        rows = own[own["target"] == target]
        points, intervals = pair_points(rows, record.reference)
        points += [(f"cost/{name}", value, 0) for name, value in summary.cost.items()]
        if record.norm == "l2" and record.values:
            radius = record.reference / 255 * math.sqrt(record.values)
            points.append(("reference/l2_radius", radius, 0))
        parameters = {
            **{f"attack.{key}": value for key, value in attack["settings"].items()},
            **({"ensemble": record.config["ensemble"]} if "+" in record.source else {}),
            **_arithmetic(record, target),
            "norm": record.norm,
            "source": record.source,
            "target": target,
            "dataset": record.dataset,
            "n_images": record.images,
            "seed": record.seed,
            "reference_eps_255": record.reference,
            "denominator": int(rows["denominator"].iloc[0]),
        }
        both = ("attack_precision", "source", "target", "dataset", "seed")
        tracker.log_pair(
            run,
            named(f"{job_name(record.label, record.source)} -> {target}", record),
            tags={
                "job_key": record.key,
                "delivery": delivery,
                **{name: str(parameters[name]) for name in both},
                "attack": record.label,
                "target_label": attack["target_label"] or "none",
                "precision": record.precision,
                "protocol": record.protocol,
                "storage": record.storage,
                "source_weights": record.weights.get(record.source, "unknown"),
                "target_weights": record.weights[target],
                "data_digest": record.data,
                "git_commit": record.commit,
                **intervals,
            },
            parameters=parameters,
            points=points,
        )


def named(name: str, record: JobRecord) -> str:
    """Return a run's name, with its arithmetic where that is not float32."""
    return name if record.arithmetic == "float32" else f"{name} ({record.arithmetic})"


def pair_points(rows: pd.DataFrame, reference: float) -> tuple[list[Point], dict[str, str]]:
    """Return one pair's metrics and tags, from its target's rows of `JobSummary.own`.

    `robust_accuracy` is the share still classified correctly, of targeted attacks too;
    `success_rate` the share predicted as any wrong class or, if targeted, as the target label.
    Metrics `curves/...` have whole budgets as steps, since MLflow takes no fractions; metrics
    `reference/...` and tags (95 % intervals) are those at `reference`, in units of 1/255.
    Unknown rates, as of an empty denominator, are left out.
    """
    here = rows.set_index("eps_255").loc[reference].dropna().to_dict()
    points, intervals = list[Point](), {}
    for name in CURVES:
        known = rows[["eps_255", name]].dropna().astype(float).to_numpy()
        curve = [(f"curves/{name}", y, int(eps)) for eps, y in known if eps.is_integer()]
        if any(step > 0 for *_, step in curve):  # else clean images alone would stand for it
            points += curve
        if name in here:
            points.append((f"reference/{name}", here[name], 0))
        if f"{name}_low" in here:
            ends = (here[f"{name}_{end}"] for end in ("low", "high"))
            intervals[f"{name}_interval"] = "[{:.3f}, {:.3f}]".format(*ends)
    return points, intervals


def sweep_points(summary: Summary) -> list[Point]:
    """Average each attack's success rates over its pairs, white boxes and others apart.

    Metrics are `transfer_success/ATTACK` and `white_box_success/ATTACK` by whole budget above 0.
    """
    names: dict[str, str] = {}
    for label in dict.fromkeys(one.job.attack for one in summary.attacked):
        plain = re.sub(r"[^\w.-]+", " ", label).strip()[:200]  # as MLflow takes it, and no `/`
        names[label] = f"{plain}:{len(names)}" if plain in names.values() else plain
    found = defaultdict[tuple[str, int], list[float]](list)
    for one in summary.attacked:
        rates = one.own
        attacked = rates.loc[rates["eps_255"] > 0, ["target", "eps_255", "success_rate"]]
        for target, eps, rate in attacked.dropna().itertuples(index=False):
            kind = "white_box" if is_white_box(one.job.record.source, target) else "transfer"
            if eps.is_integer():
                found[f"{kind}_success/{names[one.job.attack]}", int(eps)].append(rate)
    return [(name, fmean(values), eps) for (name, eps), values in found.items()]


def _arithmetic(record: JobRecord, target: str) -> dict[str, Any]:
    """Return the settings of the arithmetic, and the preprocessing of source and target."""
    trainer = {"attack_precision": "32-true", **record.config.get("trainer", {})}
    models = record.config.get("model", {})
    found = {
        key: trainer.get(key) for key in ("attack_precision", "batch_size", "fold_batch_norms")
    }
    for role, name in (("source", record.source), ("target", target)):
        members = [models.get(member, {}) for member in name.split("+")]
        for key in ("mean", "std", "input_size"):
            found[f"{role}_{key}"] = " + ".join(str(member.get(key)) for member in members)
    return found
