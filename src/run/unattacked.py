"""Rows that need no attack: clean images, noise, low-passed images, similarity of gradients."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from src.artifacts.tables import with_cost
from src.cache.rows import Keep, compute_once
from src.images.adversarial_source import Probe, clean_images
from src.images.variants import Variants
from src.measure.band_filters import BOUNDS, CUTOFFS, low_passed_images, noise_parts
from src.measure.gradient_similarity import Similarity
from src.run.evaluate import evaluate, score_clean, with_names
from src.run.lightning_module import Transfer
from src.run.stages import Job
from src.utils.defended_names import Evaluated
from src.utils.processes import from_first_process, is_first_process

K = TypeVar("K")


def clean_rows(job: Job) -> pa.Table:
    """Return the models' predictions for the clean images, the same in all processes."""
    rows = _scored(job, "clean images", list(job.networks), job.images.indices)
    return from_first_process(None if rows is None else with_cost(rows, 0, 0))


def unattacked_tables(job: Job) -> dict[str, pa.Table]:
    """Return the tables of the diagnostics that need no attack; only the first process has them.

    They are `filtered` (the rows of the noise), `low_passed` and `similarity`, as far as asked for.
    """
    settings, tables = job.settings, {}
    index, targets = job.diagnosed.indices, list(map(Evaluated, settings.targets))
    if settings.diagnostics.filters:
        noise = (settings.reference, settings.seed)
        parts = (noise_parts(*noise), *noise, [*BOUNDS.values()])
        tables["filtered"] = _scored(job, "noise", targets, index, *parts)
        low = (low_passed_images(), CUTOFFS)
        tables["low_passed"] = _scored(job, "low-passed images", targets, index, *low)
    if settings.diagnostics.similarity:
        tables["similarity"] = _similarity(job)
    return tables if is_first_process() else {}


def _scored(
    job: Job,
    table: str,
    pairs: Sequence[Evaluated],
    index: np.ndarray,
    probe: Probe | None = None,
    *parts: Any,
) -> pa.Table | None:
    """Return some models' predictions for clean images, or those that a `probe` makes of them.

    `parts` are what decides the probe's images. Only the first process gets the rows.
    """

    def compute(
        missing: Mapping[Evaluated, np.ndarray], todo: np.ndarray, keep: Keep[Evaluated]
    ) -> dict[Evaluated, pa.Table]:
        rows = score_clean(
            job.images,
            {str(pair): network for pair, network in job.networks.items() if pair in missing},
            job.settings.trainer,
            probe=probe,
            label=table,
            only=todo.tolist(),
            keep=lambda rows: keep(_split(rows, missing)),
        )
        return _split(rows, missing)

    keys = {pair: job.rows_key(table, [pair], *parts) for pair in pairs}
    wanted = dict.fromkeys(pairs, index)
    tables = compute_once(job.rows, keys, wanted, compute, refresh=job.settings.rerun)
    if not tables:
        return None
    rows = pa.concat_tables(with_names(tables[pair], pair) for pair in pairs)
    return rows if probe is None else rows.drop_columns(["target_label", "draws", "draws_correct"])


def _similarity(job: Job) -> pa.Table | None:
    """Return the rows of source and targets, see `_scored`; those of all pairs are kept."""
    source, trainer = job.settings.source_name, job.settings.trainer
    names = sorted({source, *job.settings.targets})
    pairs = {" ".join(pair): pair for pair in combinations_with_replacement(names, 2)}

    def compute(
        missing: Mapping[str, np.ndarray], todo: np.ndarray, keep: Keep[str]
    ) -> dict[str, pa.Table]:
        missing_pairs = {name: pairs[name] for name in missing}
        members = {name for pair in missing_pairs.values() for name in pair}
        module = Transfer(
            {name: model.classifier for name, model in job.models.items() if name in members},
            clean_images(),
            Variants(wanted=()),
            [Similarity(missing_pairs, trainer.max_gradient_batch)],
        )
        tables = evaluate(job.images, module, trainer, "gradients", todo.tolist()).tables
        return _split(tables["similarity"], missing)

    keys = {
        name: job.rows_key("similarity", list(map(Evaluated, pair))) for name, pair in pairs.items()
    }
    wanted = dict.fromkeys(pairs, job.diagnosed.indices)
    tables = compute_once(job.rows, keys, wanted, compute, refresh=job.settings.rerun)
    if not tables:
        return None
    return pa.concat_tables(
        with_names(tables[" ".join(sorted([source, target]))], Evaluated(target))
        for target in job.settings.targets
    )


def _split(rows: pa.Table, names: Iterable[K]) -> dict[K, pa.Table]:
    """Return the rows of some targets by name."""
    return {name: rows.filter(pc.equal(rows["target"], str(name))) for name in names}
