"""Work needed for rows: gradients of the attack and forward passes of networks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..artifacts.tables import named
from ..measure.attack_cost import AttackCost
from ..measure.protocol import ALL, Measurement, RowRequest
from ..measure.registry import MEASUREMENTS
from ..utils.model_names import ModelRef
from .stages import JobContext

GRADIENT = 3
"""Cost of a gradient in forward passes, for a convolutional network."""


@dataclass(frozen=True)
class Work:
    """Gradients and predictions needed for missing rows.

    Attributes:
        images: Number of images that lack a row.
        gradients: Number of gradients, counted per member of an ensemble; None if the attack
            states no number.
        predictions: Number of images that each classifier gets, including a defence's draws.
    """

    images: int
    gradients: float | None
    predictions: Counter[ModelRef]


def ask_for(job: JobContext, clean: pa.Table | None) -> dict[RowRequest, Measurement]:
    """Return the requests without an attack or, given the clean predictions, with one."""
    return {
        request: measurement
        for measurement in (*MEASUREMENTS, *job.planned.measurements)
        if measurement.switched_by != "tables"
        or _is_wanted(measurement, job.settings.diagnostics.tables)
        for request in measurement.requests(job, clean)
        if request.attacked == (clean is not None)
        and (job.settings.budgets or not request.attacked)
    }


def _is_wanted(measurement: Measurement, tables: Sequence[str]) -> bool:
    """Return True if `diagnostics.tables` asks for a measurement's table."""
    return measurement.name in tables or (measurement.in_all and "all" in tables)


def all_requests(job: JobContext) -> dict[RowRequest, Measurement]:
    """Return all requests of a job if every target classifies every clean image correctly."""
    same = pa.table({name: job.images.indices for name in ("index", "label", "predicted")})
    clean = pa.concat_tables(named(same, target) for target in job.settings.evaluated)
    return ask_for(job, None) | ask_for(job, clean)


def work_of(job: JobContext, missing: Mapping[RowRequest, np.ndarray]) -> Work:
    """Return the work for the missing images, from what the attack and the requests state."""
    predictions = Counter[ModelRef]()
    lacking, again = Counter[int](), 0
    for request, index in missing.items():
        if request.table == AttackCost.name:
            lacking.update(index.tolist())
        again += len(index) * request.attacks
        if request.target != ALL:
            predictions[request.target] += (
                len(index) * request.passes * _passes_of(job, request.target)
            )
    images = np.unique(np.concatenate([*missing.values(), []]))
    runs = Counter(lacking.values())
    runs[1] += again
    return Work(len(images), _count_gradients(job, runs), predictions)


def _passes_of(job: JobContext, target: ModelRef) -> int:
    """Return the number of forward passes per image that a target classifies."""
    members = len(target.members)
    if not target.is_defended:
        return members
    copies = int(getattr(job.planned.defences[target.defence], "copies", 1))
    return members * copies * job.settings.defence[target.defence].repeats


def _count_gradients(job: JobContext, runs: Mapping[int, int]) -> float | None:
    """Return the number of gradients; `runs` maps budgets per run to runs on a single image."""
    settings, members = job.settings, len(job.settings.source)
    total = 0.0
    for budgets, count in runs.items():
        stated = settings.attack.gradients(budgets, members)
        if count and stated is None:
            return None
        total += count * (stated or 0) * members * settings.source_draws
    return total
