"""JobTables of a job: compute the rows missing in the cache, then read all tables."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts.tables import named
from ..cache.rows import Rows
from ..data import to_unit
from ..defences import Defended
from ..images.storage import TOLERANCE_255
from ..measure.attack_cost import AttackCost
from ..measure.predictions import Clean, Predictions
from ..measure.protocol import ALL, Measurement, RowRequest
from ..utils.model_names import ModelRef
from ..utils.processes import from_first_process, is_first_process
from .clean_accuracy import check_clean_accuracies
from .compute import compute
from .stages import JobContext
from .work import ask_for

log = logging.getLogger(__name__)

IDLE = 0.5
"""Mean change of clean images, in 1/255, below which a defence is called idle."""
_IMAGES = 100


@dataclass(frozen=True)
class JobTables:
    """Rows of a job; only the first process has them.

    Attributes:
        clean: Predictions for the clean images.
        predictions: Predictions for adversarial images by variant, the primary one first.
        diagnostics: The other tables, by name.
        gradients: Number of gradients computed in this run.
        zero_gradients: Share of the attack's gradients that were zero in every pixel; NaN if there
            were no gradients.
        gradients_per_image: Number of gradients that the attack has taken per image, for all
            budgets; NaN without an attack.
        not_finite: Number of images with NaN or infinity in a gradient.
        clipped: By how much clipping to a budget moved a pixel, at most, in 1/255, for each image
            that it moved, float64 (n,).
        seconds: Duration of the attacked pass; NaN if some of its rows were stored.
        batch_size: Images per batch; smaller than in the settings if memory did not suffice.
        kernels: Names of kernels in this run that are not deterministic.
        idle: Defences that hardly change clean images, with the mean change in 1/255.
        unsteady: Models that return different logits for equal images.
        probabilities: Models whose outputs are in [0, 1].
    """

    clean: pa.Table
    predictions: Mapping[str, pa.Table]
    diagnostics: Mapping[str, pa.Table]
    gradients: int
    zero_gradients: float
    gradients_per_image: float
    not_finite: int
    clipped: np.ndarray
    seconds: float
    batch_size: int
    kernels: Sequence[str]
    idle: Mapping[str, float]
    unsteady: Sequence[ModelRef]
    probabilities: Sequence[ModelRef]


def compute_tables(job: JobContext, cache: Rows) -> JobTables | None:
    """Compute the rows that are not stored: first those without an attack, then the rest.

    If several processes share the job, only the first one gets the results.
    """
    requests = ask_for(job, None)
    rerun = job.settings.rerun
    first = compute(job, requests, cache, attacked=False, rerun=rerun)
    tables = finish(job, requests, first.rows)
    clean = from_first_process(tables.get(Clean.name))
    check_clean_accuracies(job, clean)
    later = ask_for(job, clean)
    attacked = compute(job, later, cache, attacked=True, rerun=rerun)
    if not is_first_process():
        return None
    asked = later | requests
    tables = finish(job, asked, attacked.rows | first.rows)
    measurements = {request.table: measurement for request, measurement in asked.items()}
    cost = tables.get(AttackCost.name, AttackCost.schema.empty_table())
    sums = {name: pc.sum(cost[name]).as_py() or 0 for name in cost.column_names}
    gradients = sums["gradients"]
    networks = job.networks.items()
    variants = [name for name, its in measurements.items() if isinstance(its, Predictions)]
    # A measurement without rows has no table, e.g. bisection if no image is counted. A user's table
    # has the key of its code behind its name.
    diagnosed = [
        name
        for name, measurement in measurements.items()
        if measurement.switched_by and name in tables
    ]
    return JobTables(
        clean=clean,
        predictions={name: tables[name] for name in variants},
        diagnostics={name.partition("-")[0]: tables[name] for name in diagnosed},
        gradients=attacked.gradients,
        zero_gradients=sums["zero_gradients"] / gradients if gradients else math.nan,
        gradients_per_image=gradients / len(cost) if len(cost) else math.nan,
        not_finite=int(sums["not_finite"]),
        clipped=cost["clipped"].filter(pc.greater(cost["clipped"], TOLERANCE_255)).to_numpy(),
        seconds=attacked.seconds,
        batch_size=attacked.batch_size,
        kernels=sorted(first.kernels | attacked.kernels),
        idle=_idle_defences(job),
        unsteady=[pair for pair, network in networks if not getattr(network, "steady", True)],
        probabilities=[pair for pair, network in networks if _gives_probabilities(job, network)],
    )


def _gives_probabilities(job: JobContext, network: Any) -> bool:
    """Return True if a model's outputs are in [0, 1] in its trial and on images of the job."""
    spread = slice(None, None, -(-len(job.images) // _IMAGES))
    suspect = getattr(network, "probabilities", False)
    return suspect and bool(network.returns_probabilities(to_unit(job.images[spread].images)))


def _idle_defences(job: JobContext) -> dict[str, float]:
    """Return the mean change, in 1/255, of defences that hardly change the first clean images."""
    batch = job.images[:_IMAGES]
    images = batch.images.to(job.data.device) / 255
    each = {pair.defence: net for pair, net in job.networks.items() if isinstance(net, Defended)}
    changes = {name: 255 * net.mean_change(images, batch.index) for name, net in each.items()}
    return {name: change for name, change in changes.items() if change < IDLE}


def finish(
    job: JobContext, requests: Mapping[RowRequest, Measurement], rows: Mapping[RowRequest, pa.Table]
) -> dict[str, pa.Table]:
    """Return the tables by name, each with columns for the target."""
    parts: dict[str, list[pa.Table]] = {}
    measurements: dict[str, Measurement] = {}
    for request, measurement in requests.items():
        if request in rows and not request.streamed:
            measurements.setdefault(request.table, measurement)
            table = rows[request].filter(pc.is_in(rows[request]["index"], pa.array(request.index)))
            part = _sort(table, measurement)
            part = part if request.target == ALL else named(part, request.target)
            parts.setdefault(request.table, []).append(part)
    tables = {name: pa.concat_tables(part) for name, part in parts.items()}
    return {name: measurements[name].finish(name, tables, job) for name in tables}


def _sort(table: pa.Table, measurement: Measurement) -> pa.Table:
    """Sort rows in the order that their measurement declares."""
    keys = [
        (name.removeprefix("-"), "descending" if name.startswith("-") else "ascending")
        for name in measurement.order
    ]
    return table.sort_by(keys)
