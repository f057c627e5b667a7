"""A job of modules that a test makes, with nothing composed or written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.attacks import fgsm
from src.cache.rows import Rows
from src.config.attack_settings import AttackSettings
from src.config.sections import (
    DatasetSettings,
    DefenceSettings,
    DiagnosticSettings,
    EpsilonSettings,
    ModelSettings,
    TrainerSettings,
)
from src.config.settings import Settings
from src.data import ImageDataset
from src.measure.own_measurement import own_measurements
from src.run.check_job import build_job, make_planned
from src.run.data import mixing_pool
from src.run.evaluate import Evaluation
from src.run.stages import JobContext, Model, Planned
from src.utils.about import About

TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)


def plan_modules(
    networks: Mapping[str, nn.Module],
    attack: Callable[..., Tensor] = fgsm,
    budgets: Sequence[float] = (2.0, 16.0),
    *,
    source: nn.Module | None = None,
    trainer: TrainerSettings = TRAINER,
    diagnostics: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    norm: str = "linf",
    target_label: str | None = None,
    name: str = "mine",
    reference: float | None = None,
    defences: Mapping[str, Callable[..., Tensor]] | None = None,
    **settings: Any,
) -> Planned:
    """Return the plan of one source, by default the first network, against all networks."""
    models = dict(networks)
    source = next(iter(networks.values())) if source is None else source
    origin = next((key for key, network in models.items() if network is source), "source")
    models.setdefault(origin, source)
    rules = {"norm": norm, "target_label": target_label, "about": About(**about or {})}
    crafted = AttackSettings(name=name, label=name, settings=dict(keys or {}), **rules)
    chosen = Settings(
        attack=crafted,
        source=[origin],
        targets=list(networks),
        epsilon=EpsilonSettings(grid=list(budgets), reference=reference),
        dataset=DatasetSettings(name="images"),
        model={
            key: ModelSettings(
                network={},
                weights="included",
                feature_layer=getattr(network, "feature_layer", None),
            )
            for key, network in models.items()
        },
        trainer=trainer,
        diagnostics=DiagnosticSettings(**diagnostics or {}),
        defences=tuple(defences or ()),
        defence={name: DefenceSettings(repeats=2) for name in defences or ()},
        **settings,
    )
    own = own_measurements(chosen.measurements)
    return make_planned(chosen, attack, defences or {}, measurements=own)


def make_context(
    dataset: ImageDataset,
    networks: Mapping[str, nn.Module],
    *arguments: Any,
    source: nn.Module | None = None,
    device: str = "cpu",
    **keywords: Any,
) -> JobContext:
    """Return the job of `plan_modules` on some images."""
    planned = plan_modules(networks, *arguments, source=source, **keywords)
    modules = {"source": source, **networks}
    built = {name: Model(modules[name], name, {"name": name}) for name in planned.settings.model}
    pool = mixing_pool(dataset, 0)
    return build_job(planned, dataset, torch.device(device), built, pool)


def evaluate(job: JobContext, rows: Rows) -> Evaluation:
    """Compute a job's tables."""
    evaluation = Evaluation(job, rows)
    evaluation.clean()
    evaluation.craft_first()
    evaluation.rest()
    return evaluation


def run_modules(
    dataset: ImageDataset, *arguments: Any, cache: Path | None = None, **keywords: Any
) -> SimpleNamespace:
    """Run the job of `make_context`; return results, tables by name and images by index."""
    planned = plan_modules(*arguments, **keywords)
    job = make_context(dataset, *arguments, **keywords)
    with TemporaryDirectory() as temporary:
        rows = Rows(Path(temporary) if cache is None else cache)
        evaluation = evaluate(job, rows)
        results, index = evaluation.tables, job.images.indices.tolist()
        versions = [evaluation.stored.images(index, eps) for eps in job.budgets]
        there = set.intersection(*({*found} for found in versions)) if versions else set()
        images = {number: np.stack([found[number] for found in versions]) for number in there}
    tables = {**results.predictions, **results.diagnostics, "clean": results.clean}
    return SimpleNamespace(planned=planned, job=job, results=results, tables=tables, images=images)
