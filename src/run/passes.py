"""The pass over a job's images: what the cache lacks is computed, and its tables are read."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from src.artifacts.tables import named
from src.cache.rows import Rows
from src.measure.attack_cost import AttackCost
from src.measure.clean import Clean
from src.measure.predictions import Predictions
from src.measure.protocol import ALL, Cell, Measurement
from src.measure.registry import MEASUREMENTS
from src.run.clean_accuracy import check_clean_accuracies
from src.run.compute import compute
from src.run.stages import Pass
from src.utils.defended_names import Evaluated
from src.utils.processes import from_first_process, is_first_process

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """Rows of a job, which the first process alone has.

    Attributes:
        clean: Predictions for the clean images.
        predictions: Predictions for adversarial images by variant, the primary one first.
        diagnostics: The other tables, by name.
        gradients: Number of gradients taken now.
        zero_gradients: Share of the attack's gradients that were zero in every pixel; NaN: none.
        seconds: Duration of the attacked pass; NaN where some of its rows were stored.
        batch_size: Images in one batch; fewer than the settings say where memory did not suffice.
        unsteady: Models that give equal images unequal logits.
        softmax: Models that give probabilities.
    """

    clean: pa.Table
    predictions: Mapping[str, pa.Table]
    diagnostics: Mapping[str, pa.Table]
    gradients: int
    zero_gradients: float
    seconds: float
    batch_size: int
    unsteady: Sequence[Evaluated]
    softmax: Sequence[Evaluated]


def run_pass(job: Pass, cache: Rows) -> Results | None:
    """Compute what is not stored: first what needs no attack, then the rest.

    Where processes share the job, the first one alone gets the results.
    """
    cells = ask_for(job, None)
    first = compute(job, cells, cache, attacked=False)
    tables = finish(job, cells, first.rows)
    clean = from_first_process(tables.get(Clean.name))
    check_clean_accuracies(job, clean)
    later = ask_for(job, clean)
    attacked = compute(job, later, cache, attacked=True)
    if not is_first_process():
        return None
    crafting = [table for cell, table in attacked.rows.items() if cell.table == AttackCost.name]
    tables = finish(job, later | cells, attacked.rows | first.rows)
    kinds = {cell.table: measurement for cell, measurement in (later | cells).items()}
    networks = job.networks.items()
    variants = [name for name, kind in kinds.items() if isinstance(kind, Predictions)]
    # One without a row has no table: bisection, where no image counts.
    diagnosed = [name for name, kind in kinds.items() if kind.key and name in tables]
    return Results(
        clean=clean,
        predictions={name: tables[name] for name in variants},
        diagnostics={name: tables[name] for name in diagnosed},
        gradients=attacked.gradients,
        zero_gradients=_share_of_zeros(crafting),
        seconds=attacked.seconds,
        batch_size=attacked.batch_size,
        unsteady=[pair for pair, network in networks if not getattr(network, "steady", True)],
        softmax=[pair for pair, network in networks if getattr(network, "softmax", False)],
    )


def ask_for(job: Pass, clean: pa.Table | None) -> dict[Cell, Measurement]:
    """Return the cells that need no attack or, once there are clean predictions, the others."""
    return {
        cell: measurement
        for measurement in MEASUREMENTS
        if measurement.key != "tables" or _is_wanted(measurement, job.settings.diagnostics.tables)
        for cell in measurement.cells(job, clean)
        if cell.attacked == (clean is not None) and (job.settings.budgets or not cell.attacked)
    }


def _is_wanted(measurement: Measurement, tables: Sequence[str]) -> bool:
    """Return True if tables that are asked for have a measurement's among them."""
    return measurement.name in tables or (measurement.in_all and "all" in tables)


def finish(
    job: Pass, cells: Mapping[Cell, Measurement], rows: Mapping[Cell, pa.Table]
) -> dict[str, pa.Table]:
    """Return the tables of cells by name, with columns of the targets."""
    parts: dict[str, list[pa.Table]] = {}
    kinds: dict[str, Measurement] = {}
    for cell, kind in cells.items():
        if cell in rows and not cell.large:
            kinds.setdefault(cell.table, kind)
            table = rows[cell].filter(pc.is_in(rows[cell]["index"], pa.array(cell.index)))
            part = _sort(table, kind)
            part = part if cell.target == ALL else named(part, cell.target)
            parts.setdefault(cell.table, []).append(part)
    tables = {name: pa.concat_tables(part) for name, part in parts.items()}
    return {name: kinds[name].finish(name, tables, job) for name in tables}


def _sort(table: pa.Table, kind: Measurement) -> pa.Table:
    """Return rows in the order of their measurement."""
    keys = [
        (name.removeprefix("-"), "descending" if name.startswith("-") else "ascending")
        for name in kind.order
    ]
    return table.sort_by(keys)


def _share_of_zeros(tables: Sequence[pa.Table]) -> float:
    """Return the share of an attack's gradients that were zero in every pixel; NaN: none."""
    zeros, total = (
        sum(pc.sum(table[name]).as_py() or 0 for table in tables)
        for name in ("zero_gradients", "gradients")
    )
    return zeros / total if total else math.nan
