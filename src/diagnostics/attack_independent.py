"""Diagnostics of models and images without attack: computed once, kept for later jobs."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from src.config.settings import Settings
from src.data import ImageDataset
from src.diagnostics.band_filters import (
    BOUNDS,
    CUTOFFS,
    LowPassedImages,
    NoiseParts,
    filtered_table,
)
from src.diagnostics.gradient_similarity import Similarity
from src.evaluation import AdversarialSource, computed_once, pass_over, renamed, score_clean

Place = Callable[..., Path]
"""(images, table, names of models, settings) to the path of the rows, which depends on all four."""


def attack_independent_tables(
    settings: Settings, images: ImageDataset, models: Mapping[str, nn.Module], place: Place
) -> dict[str, pa.Table]:
    """Return the tables of the diagnostics that need no attack, computed once and kept.

    They are `filtered`, here the rows of the noise; `low_passed`, with a row per image, target and
    `cutoff`; and `similarity`, with a row per image and target, whose `cosine` is that of its
    gradient with the source's. Tables that are not asked for are left out.
    """
    chosen, tables = settings.diagnostics, {}

    def score(table: str, source: AdversarialSource, *what: object) -> pa.Table:
        return score_clean(
            images,
            {name: models[name] for name in settings.targets},
            settings.trainer,
            {name: place(images, table, [name], *what) for name in settings.targets},
            refresh=settings.trainer.distributed,
            source=source,
            label=table,
        )

    if chosen.filters:
        at, seed = settings.reference, settings.seed
        rows = score("filtered", NoiseParts(at, seed), at, [*BOUNDS.values()], seed)
        tables["filtered"] = filtered_table(rows, at, "noise")
        rows = score("low_passed", LowPassedImages(), CUTOFFS)
        names = ["cutoff" if name == "eps_255" else name for name in rows.column_names]
        tables["low_passed"] = rows.rename_columns(names).drop_columns("target_label")
    if chosen.similarity:
        tables["similarity"] = _similarity(settings, images, models, place)
    return tables


def _similarity(
    settings: Settings, images: ImageDataset, models: Mapping[str, nn.Module], place: Place
) -> pa.Table:
    """Return the rows of source and targets; those of all pairs among them are kept."""
    source, trainer = settings.source_name, settings.trainer
    most = trainer.max_gradient_batch
    names = sorted({source, *settings.targets})
    pairs = {" ".join(pair): pair for pair in combinations_with_replacement(names, 2)}

    def compute(missing: Sequence[str]) -> pa.Table:
        wanted = {name: pairs[name] for name in missing}
        module = Similarity(models, wanted, most)
        pass_over(images, module, trainer, "gradients")
        return module.table

    cache = {name: place(images, "similarity", pair, most) for name, pair in pairs.items()}
    rows = computed_once(compute, cache, refresh=trainer.distributed)
    own = {target: " ".join(sorted([source, target])) for target in settings.targets}
    return pa.concat_tables(
        renamed(rows.filter(pc.equal(rows["target"], pair)), target) for target, pair in own.items()
    )
