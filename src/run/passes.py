"""The long step of a job: attack its images and evaluate targets on them, each once."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from src.artifacts.tables import with_cost
from src.cache.keys import content_key
from src.cache.rows import Keep, compute_once
from src.config.settings import CONTROLS
from src.data import to_unit
from src.images.adversarial_source import AdversarialSource
from src.images.attacker import Attacker
from src.images.saved_images import SavedImagesSource
from src.images.variants import AttackedBatch
from src.measure.diagnostic import Diagnostic
from src.measure.diagnostics import make_diagnostics
from src.measure.spectra import mean_spectra
from src.run.attack import make_attacker
from src.run.evaluate import Evaluation, evaluate, with_names
from src.run.lightning_module import CRAFTING, IMAGES, Transfer, total
from src.run.stages import Job, Results
from src.utils.defended_names import PLAIN, Evaluated
from src.utils.processes import is_first_process

log = logging.getLogger(__name__)

Cell = tuple[str, Evaluated | None]
"""A table's name and what was evaluated; None where all share the rows."""


def attacked_rows(job: Job) -> Results:
    """Return the rows of a job's adversarial images; what is not stored is computed.

    Where processes share the job, the first one alone gets them.
    """
    keys, wanted = _cells(job)
    evaluation = Evaluation()

    def compute(
        missing: Mapping[Cell, np.ndarray], todo: np.ndarray, keep: Keep[Cell]
    ) -> Mapping[Cell, pa.Table]:
        nonlocal evaluation
        settings = job.settings
        asked = {pair for _, pair in missing}
        targets = [pair for pair in settings.evaluated if pair in asked]

        def split(tables: Mapping[str, pa.Table]) -> dict[Cell, pa.Table]:
            """Return the rows of each target."""
            cells = [cell for cell in (*missing, (IMAGES, None)) if cell[0] in tables]
            return {(name, target): _of(tables[name], target) for name, target in cells}

        module = _transfer(job, missing, targets, todo, lambda parts: keep(split(parts)))
        # Named without its targets: in 80 columns they leave no room for the bar itself.
        evaluation = evaluate(job.images, module, settings.trainer, settings.job, todo.tolist())
        if any(len(missing.get(cell, ())) < len(index) for cell, index in wanted.items()):
            evaluation = replace(evaluation, seconds=math.nan)  # of a part nobody can tell
        return split(evaluation.tables)

    cells = compute_once(
        job.rows, keys, wanted, compute, large=[(IMAGES, None)], refresh=job.settings.rerun
    )
    return _make_results(job, cells, evaluation) if is_first_process() else Results()


def _make_results(job: Job, cells: Mapping[Cell, pa.Table], evaluation: Evaluation) -> Results:
    """Return tables of all targets."""
    crafting, names = cells.get((CRAFTING, None)), [name for name, target in cells if target]
    tables = {
        name: pa.concat_tables(
            with_names(cells[name, target], target)
            for target in job.settings.evaluated
            if (name, target) in cells
        )
        for name in dict.fromkeys(names)
    }
    variants = {
        name: with_cost(table, **_counts(table, crafting, name))
        for name in job.variants.names
        if (table := tables.pop(name, None)) is not None
    }
    if ("spectra", None) in cells:
        side, reference = job.images.image_size, job.settings.reference
        tables["spectra"] = mean_spectra(cells["spectra", None], side, reference)
    if ("stealth", None) in cells:
        tables["stealth"] = cells["stealth", None]
    return Results(
        variants,
        tables,
        gradients=total(crafting, "gradients"),
        zero_gradients=total(crafting, "zero_gradients"),
        seconds=evaluation.seconds,
        batch_size=evaluation.batch_size,
    )


def _counts(table: pa.Table, crafting: pa.Table | None, variant: str) -> dict[str, Any]:
    """Return what the images of each row took, where that is known; noise takes nothing."""
    if variant == "noise":
        return dict.fromkeys(("gradients", "forwards"), 0)
    if crafting is None:
        return {}
    places = pc.index_in(table["index"], crafting["index"])
    return {name: crafting[name].take(places) for name in ("gradients", "forwards")}


def _cells(job: Job) -> tuple[dict[Cell, str], dict[Cell, np.ndarray]]:
    """Return the keys of a job's rows, and the index of the images that are asked for."""
    settings, diagnostics = job.settings, job.settings.diagnostics
    every, diagnosed = job.images.indices, job.diagnosed.indices
    cells: dict[Cell, tuple[Any, np.ndarray]] = {}  # what else decides the rows, and the index
    for target in settings.evaluated:
        if target.defence != PLAIN:
            cells[job.variants.primary, target] = (None, every)
            continue
        for variant in job.variants.names:
            primary = job.variants.primary if variant in CONTROLS else None
            cells[variant, target] = (primary, every)
        if diagnostics.bisection:
            correct = np.intersect1d(diagnosed, _correct(job.clean, target))
            cells["flips", target] = (diagnostics.bisection, correct)
        if diagnostics.iterations:
            cells["iterations", target] = ((settings.reference, diagnostics.iterations), diagnosed)
        if diagnostics.filters:
            cells["filtered", target] = (settings.reference, diagnosed)
    if diagnostics.spectra:
        cells["spectra", None] = (settings.reference, diagnosed)
    if diagnostics.stealth:
        cells["stealth", None] = (None, diagnosed)
    if job.saved is None:
        cells[CRAFTING, None] = (None, every)
        examples = np.array(job.examples, np.int64)
        cells[IMAGES, None] = (None, every if settings.save_adversarial else examples)
    keys = {
        (name, target): content_key(job.crafting, name, part, target and job.model_key(target))
        for (name, target), (part, _) in cells.items()
    }
    return keys, {cell: index for cell, (_, index) in cells.items()}


def _plain(clean: pa.Table) -> pa.Table:
    """Return the rows behind no defence, of which the diagnostics are."""
    return clean.filter(pc.equal(clean["defence"], PLAIN))


def _correct(clean: pa.Table, target: Evaluated) -> np.ndarray:
    """Return the index of the clean images that a target behind no defence classifies correctly."""
    rows = _of(_plain(clean), target)
    index: np.ndarray = rows.filter(pc.equal(rows["label"], rows["predicted"]))["index"].to_numpy()
    return index


def _of(table: pa.Table, target: Evaluated | None) -> pa.Table:
    """Return the rows that a pass has under a target's label."""
    return table.filter(pc.equal(table["target"], str(target))) if target else table


def _transfer(
    job: Job,
    missing: Mapping[Cell, np.ndarray],
    targets: Sequence[Evaluated],
    todo: np.ndarray,
    keep: Callable[[Mapping[str, pa.Table]], None],
) -> Transfer:
    """Return the module that computes missing rows."""
    settings, names = job.settings, {name for name, _ in missing}
    source, diagnostics = _adversarial_source(job, missing, todo), list[Diagnostic]()
    if isinstance(source, Attacker):
        diagnostics = make_diagnostics(
            settings.diagnostics,
            settings.reference,
            _plain(job.clean),
            source,
            seed=settings.seed,
            step_255=settings.step_255,
        )
    if names & {"flips", "filtered"}:  # which need the logits of the unrounded images
        names.add("float32")
    size = 4 * job.images.image_size**2 * 3 * len(settings.budgets) * len(job.images)
    small = size <= settings.store.images_mb * 1e6
    return Transfer(
        {str(pair): network for pair, network in job.networks.items() if pair in targets},
        source,
        replace(job.variants, wanted=names),
        [diagnostic for diagnostic in diagnostics if diagnostic.table in names],
        job.diagnosed.indices.tolist(),
        keep,
        None if settings.save_adversarial or small else job.examples,
        settings.seed,
    )


def _adversarial_source(
    job: Job, missing: Mapping[Cell, np.ndarray], todo: np.ndarray
) -> AdversarialSource:
    """Return the producer of adversarial images: a saved set, the store, or the attack."""
    if job.saved is not None:
        return SavedImagesSource(job.saved)
    settings = job.settings
    attacked = np.setdiff1d(todo, missing.get((CRAFTING, None), []))
    stored = stored_images(job, attacked.tolist())
    if lacking := len(attacked) - len(stored):
        text = "%s: the adversarial versions of %d images are made again: store.images_mb=%g."
        log.info(text, settings.job, lacking, settings.store.images_mb)
    return make_attacker(job, stored)


def stored_images(job: Job, index: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the stored ones of some adversarial images, float32 (K, 3, H, W), by index."""
    side, key = job.images.image_size, _cells(job)[0][IMAGES, None]
    table = job.rows.select(key, index) if len(index) else None
    if not table:
        return {}
    flat = table["adversarial"].combine_chunks().flatten().to_numpy()
    images = flat.reshape(len(table), len(job.settings.budgets), 3, side, side)
    return dict(zip(table["index"].to_pylist(), images, strict=True))


def adversarial_images(job: Job, index: Sequence[int]) -> list[AttackedBatch]:
    """Return some images of a job with their adversarial versions, a batch for each budget."""
    batch = job.images[np.searchsorted(job.images.indices, index)]
    clean = to_unit(batch.images)
    if job.saved is not None:
        levels = SavedImagesSource(job.saved)(clean, batch).images
    else:
        known = stored_images(job, index)
        levels = torch.from_numpy(np.stack([known[number] for number in index], axis=1))
    norm = job.settings.attack.norm
    return [
        AttackedBatch(clean, level, batch, eps, norm)
        for eps, level in zip(job.settings.budgets, levels, strict=True)
    ]
