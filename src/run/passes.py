"""The pass over a job's images: what the cache lacks is computed, and its tables are read."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from src.artifacts.tables import named
from src.cache.rows import Rows
from src.data import to_unit
from src.images.attacker import AdversarialSource
from src.images.saved import SavedImagesSource
from src.images.storage import AttackedImages
from src.measure.adversarial_images import AdversarialImages
from src.measure.attack_cost import AttackCost
from src.measure.clean import Clean
from src.measure.predictions import Predictions
from src.measure.protocol import ALL, Cell, Measurement
from src.measure.registry import MEASUREMENTS
from src.run.attack import make_attacker
from src.run.clean_accuracy import check_clean_accuracies
from src.run.evaluate import evaluate
from src.run.lightning_module import CacheWriter, MeasuringModule
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
        gradients: Number of gradients taken, of which `zero_gradients` were zero in every pixel.
        seconds: Duration of the attacked pass; NaN where some of its rows were stored.
        batch_size: Images in one batch; fewer than the settings say where memory did not suffice.
        unsteady: Models that give equal images unequal logits.
        softmax: Models that give probabilities.
    """

    clean: pa.Table
    predictions: Mapping[str, pa.Table]
    diagnostics: Mapping[str, pa.Table]
    gradients: int
    zero_gradients: int
    seconds: float
    batch_size: int
    unsteady: Sequence[Evaluated]
    softmax: Sequence[Evaluated]


def run_pass(job: Pass, cache: Rows) -> Results | None:
    """Compute what is not stored: first what needs no attack, then the rest.

    Where processes share the job, the first one alone gets the results.
    """
    cells = _ask(job, None)
    rows, *_ = _compute(job, cells, cache, attacked=False)
    tables = _finish(job, cells, rows)
    clean = from_first_process(tables.get(Clean.name))
    check_clean_accuracies(job, clean)
    later = _ask(job, clean)
    attacked_rows, seconds, batch_size = _compute(job, later, cache, attacked=True)
    if not is_first_process():
        return None
    crafting = [table for cell, table in attacked_rows.items() if cell.table == AttackCost.name]
    tables = _finish(job, later | cells, attacked_rows | rows)
    kinds = {cell.table: measurement for cell, measurement in (later | cells).items()}
    networks = job.networks.items()
    variants = [name for name, kind in kinds.items() if isinstance(kind, Predictions)]
    return Results(
        clean=clean,
        predictions={name: tables[name] for name in variants},
        diagnostics={name: tables[name] for name, kind in kinds.items() if kind.has_file},
        gradients=_total(crafting, "gradients"),
        zero_gradients=_total(crafting, "zero_gradients"),
        seconds=seconds,
        batch_size=batch_size,
        unsteady=[pair for pair, network in networks if not getattr(network, "steady", True)],
        softmax=[pair for pair, network in networks if getattr(network, "softmax", False)],
    )


def _ask(job: Pass, clean: pa.Table | None) -> dict[Cell, Measurement]:
    """Return the cells that need no attack or, once there are clean predictions, the others."""
    return {
        cell: measurement
        for measurement in MEASUREMENTS
        for cell in measurement.cells(job, clean)
        if cell.attacked == (clean is not None) and (job.settings.budgets or not cell.attacked)
    }


def _compute(
    job: Pass, cells: Mapping[Cell, Measurement], cache: Rows, *, attacked: bool
) -> tuple[dict[Cell, pa.Table], float, int]:
    """Return the rows of cells, the seconds that all took if none was stored, and the batch size.

    Only the first process gets rows.
    """
    keys, rows, seconds = {cell: job.key(cell) for cell in cells}, dict[Cell, pa.Table](), math.nan
    size = int(job.settings.trainer.batch_size)
    with ExitStack() as locks:
        if is_first_process():
            if job.settings.rerun:
                cache.discard(keys.values())
            rows = _read(cells, keys, cache)
            if incomplete := [keys[cell] for cell in _find_missing(cells, rows)]:
                locks.enter_context(cache.locked(incomplete))
                rows = _read(cells, keys, cache)
        missing = _share(cells, _find_missing(cells, rows))
        if not missing:
            return rows, seconds, 0
        whole = all(len(missing.get(cell, ())) == len(cell.index) for cell in cells)
        start, source = time.perf_counter(), None
        if attacked:
            source = _adversarial_source(job, missing, cache)
            size = min(size, source.max_images or size)
        while missing:
            try:
                _predict(job, source, cells, missing, CacheWriter(cache, keys), size)
            except torch.OutOfMemoryError as error:
                size = _halve(size, source, job.settings.trainer.distributed, error)
                succeeded = False
            else:
                succeeded = True
            if is_first_process():
                rows |= _read({cell: cells[cell] for cell in missing}, keys, cache)
                for cell in missing:
                    if not cell.large and cell in rows:
                        cache.replace(keys[cell], rows[cell])
            missing = _share(cells, _find_missing(cells, rows))
            if succeeded and missing:
                raise ValueError(
                    f"cache_dir={job.settings.cache_dir}: rows of {len(missing)} tables are lost; "
                    "all processes of a job need one folder."
                )
        return rows, time.perf_counter() - start if whole else math.nan, size


def _predict(
    job: Pass,
    source: AdversarialSource | None,
    cells: Mapping[Cell, Measurement],
    missing: Mapping[Cell, np.ndarray],
    writer: CacheWriter,
    size: int,
) -> None:
    """Compute missing rows, and add them to the cache."""
    settings = job.settings
    models = dict.fromkeys(model for cell in missing for model in cell.models)
    places: dict[Measurement, list[Cell]] = {}
    for cell in cells:
        if cell in missing or cell.kept is not None:
            places.setdefault(cells[cell], []).append(cell)
    networks = {model: job.networks[model] for model in models}
    module = MeasuringModule(settings, networks, source, missing, places)
    todo = np.unique(np.concatenate(list(missing.values())))
    # Named without its targets: in 80 columns they leave no room for the bar itself.
    label = settings.job if source else "clean images"
    pairs = settings.seed if source and settings.controls else None
    evaluate(job.images, module, writer, settings.trainer, size, label, todo, pairs)


def _halve(
    size: int, source: AdversarialSource | None, distributed: bool, error: BaseException
) -> int:
    """Return half a batch size that needs more memory than there is."""
    if size == 1 or distributed:
        text = f"trainer.batch_size={size} needs more memory than the device has."
        raise ValueError(text) from error
    log.warning("Out of memory: going on with batches of %d images, not %d.", size // 2, size)
    if source is not None and source.max_batch:
        source.max_batch = max(1, source.max_batch // 2)
    return size // 2


def _adversarial_source(
    job: Pass, missing: Mapping[Cell, np.ndarray], cache: Rows
) -> AdversarialSource:
    """Return the producer of adversarial images: a saved set, the cache, or the attack."""
    if job.planned.saved is not None:
        return SavedImagesSource(job.planned.saved)
    todo = np.unique(np.concatenate(list(missing.values())))
    new = [index for cell, index in missing.items() if cell.table == AttackCost.name]
    attacked = np.setdiff1d(todo, new[0] if new else [])
    stored = stored_images(job, cache, attacked.tolist())
    if lacking := len(attacked) - len(stored):
        text = "%s: the adversarial versions of %d images are made again: store.images_mb=%g."
        log.info(text, job.settings.job, lacking, job.settings.store.images_mb)
    return make_attacker(job, stored)


def stored_images(job: Pass, cache: Rows, index: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the stored ones of some adversarial images, float32 (K, 3, H, W), by index."""
    (cell,) = AdversarialImages().cells(job, None)
    table = cache.select(job.key(cell), index) if len(index) else None
    if not table:
        return {}
    side, budgets = job.images.image_size, len(job.settings.budgets)
    flat = table["adversarial"].combine_chunks().flatten().to_numpy()
    images = flat.reshape(len(table), budgets, 3, side, side)
    return dict(zip(table["index"].to_pylist(), images, strict=True))


def adversarial_images(job: Pass, cache: Rows, index: Sequence[int]) -> list[AttackedImages]:
    """Return some images of a job with their adversarial versions, a batch for each budget."""
    batch = job.images[np.searchsorted(job.images.indices, index)]
    clean = to_unit(batch.images)
    if job.planned.saved is not None:
        versions = SavedImagesSource(job.planned.saved)(clean, batch).images
    else:
        known = stored_images(job, cache, index)
        versions = torch.from_numpy(np.stack([known[number] for number in index], axis=1))
    norm = job.settings.attack.norm
    return [
        AttackedImages(clean, images, batch, eps, norm)
        for eps, images in zip(job.settings.budgets, versions, strict=True)
    ]


def _read(
    cells: Mapping[Cell, Measurement], keys: Mapping[Cell, str], cache: Rows
) -> dict[Cell, pa.Table]:
    """Return the rows of cells that have some, of large ones the index alone."""
    tables = {cell: cache.read(keys[cell], ["index"] if cell.large else None) for cell in cells}
    return {cell: table for cell, table in tables.items() if table is not None}


def _find_missing(cells: Iterable[Cell], rows: Mapping[Cell, pa.Table]) -> dict[Cell, np.ndarray]:
    """Return the index of the images without rows by cell, where there are any."""
    missing = {
        cell: np.setdiff1d(cell.index, rows[cell]["index"].to_numpy() if cell in rows else [])
        for cell in cells
    }
    return {cell: index for cell, index in missing.items() if len(index)}


def _share(cells: Iterable[Cell], missing: Mapping[Cell, np.ndarray]) -> dict[Cell, np.ndarray]:
    """Return what the first process misses: a cell has the same place in all processes."""
    every = list(cells)
    places = {every.index(cell): index for cell, index in missing.items()}
    return {every[place]: index for place, index in from_first_process(places).items()}


def _finish(
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


def _total(tables: Sequence[pa.Table], name: str) -> int:
    """Return the sum of a column of what attacks took; 0 where nothing was attacked."""
    return round(sum(pc.sum(table[name]).as_py() or 0 for table in tables))
