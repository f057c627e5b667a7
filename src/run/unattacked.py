"""Rows that need no attack: clean images, noise, low-passed images, similarity of gradients."""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from src.artifacts.tables import with_cost
from src.cache.rows import Keep, computed_once
from src.images.adversarial_source import Probe, clean_images
from src.images.variants import Variants
from src.measure.band_filters import BOUNDS, CUTOFFS, low_passed_images, noise_parts
from src.measure.gradient_similarity import Similarity
from src.run.evaluate import evaluate, score_clean, with_names
from src.run.lightning_module import Transfer
from src.run.stages import Job
from src.utils.defended_names import Evaluated
from src.utils.processes import from_first_process, is_first_process


def clean_rows(job: Job) -> pa.Table:
    """Return the models' predictions for the clean images, the same in all processes."""
    rows = _scored(job, "clean images", list(job.networks), job.images.indices)
    return from_first_process(None if rows is None else with_cost(rows, 0, 0))


def unattacked_tables(job: Job) -> dict[str, pa.Table]:
    """Return the tables of the diagnostics that need no attack; only the first process has them.

    They are `filtered`, here the rows of the noise; `low_passed`, with a row per image, target and
    `cutoff`; and `similarity`, with a row per image and target, whose `cosine` is that of its
    gradient with the source's. Tables that are not asked for are left out.
    """
    settings, tables = job.settings, {}
    index, targets = job.diagnosed.indices, list(map(Evaluated, settings.targets))
    if settings.diagnostics.filters:
        at, seed = settings.reference, settings.seed
        what = (at, [*BOUNDS.values()], seed)
        tables["filtered"] = _scored(job, "noise", targets, index, noise_parts(at, seed), *what)
        low = low_passed_images()
        tables["low_passed"] = _scored(job, "low-passed images", targets, index, low, CUTOFFS)
    if settings.diagnostics.similarity:
        tables["similarity"] = _similarity(job)
    return tables if is_first_process() else {}


def _scored(
    job: Job,
    table: str,
    pairs: Sequence[Evaluated],
    index: np.ndarray,
    probe: Probe | None = None,
    *what: Any,
) -> pa.Table | None:
    """Return some models' predictions for clean images, or those that a `probe` makes of them.

    Where processes share the job, the others than the first get None.
    """

    def compute(
        missing: Mapping[Evaluated, np.ndarray], todo: np.ndarray, keep: Keep[Evaluated]
    ) -> dict[Evaluated, pa.Table]:
        def split(rows: pa.Table) -> dict[Evaluated, pa.Table]:
            return {pair: rows.filter(pc.equal(rows["target"], str(pair))) for pair in missing}

        return split(
            score_clean(
                job.images,
                {str(pair): network for pair, network in job.networks.items() if pair in missing},
                job.settings.trainer,
                probe=probe,
                label=table,
                only=todo.tolist(),
                keep=lambda rows: keep(split(rows)),
            )
        )

    keys = {pair: job.rows_key(table, [pair], *what) for pair in pairs}
    wanted = dict.fromkeys(pairs, index)
    found = computed_once(job.rows, keys, wanted, compute, refresh=job.settings.rerun)
    if not found:
        return None
    rows = pa.concat_tables(with_names(found[pair], pair) for pair in pairs)
    return rows if probe is None else rows.drop_columns(["target_label", "draws", "draws_correct"])


def _similarity(job: Job) -> pa.Table | None:
    """Return the rows of source and targets, see `_scored`; those of all pairs are kept."""
    source, trainer = job.settings.source_name, job.settings.trainer
    names = sorted({source, *job.settings.targets})
    pairs = {" ".join(pair): pair for pair in combinations_with_replacement(names, 2)}

    def compute(
        missing: Mapping[str, np.ndarray], todo: np.ndarray, keep: Keep[str]
    ) -> dict[str, pa.Table]:
        wanted = {name: pairs[name] for name in missing}
        needed = {name for pair in wanted.values() for name in pair}
        module = Transfer(
            {name: model.classifier for name, model in job.models.items() if name in needed},
            clean_images(),
            Variants(wanted=()),
            [Similarity(wanted, trainer.max_gradient_batch)],
        )
        tables = evaluate(job.images, module, trainer, "gradients", todo.tolist()).tables
        rows = tables["similarity"]
        return {name: rows.filter(pc.equal(rows["target"], name)) for name in missing}

    keys = {
        name: job.rows_key("similarity", list(map(Evaluated, pair))) for name, pair in pairs.items()
    }
    wanted = dict.fromkeys(pairs, job.diagnosed.indices)
    found = computed_once(job.rows, keys, wanted, compute, refresh=job.settings.rerun)
    own = {target: " ".join(sorted([source, target])) for target in job.settings.targets}
    if not found:
        return None
    return pa.concat_tables(with_names(found[own[name]], Evaluated(name)) for name in own)
