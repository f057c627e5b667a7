"""Cache keys: hashes of all that determines a job's numbers, code and arithmetic included."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from src.config.settings import Settings
from src.data import Batch, ImageDataset
from src.evaluation import SavedImages
from src.experiment.code_identity import code_of, own_code


def content_key(*parts: Any) -> str:
    """Return a short hash of plain values: equal content, equal key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def table_path(
    settings: Settings,
    model_keys: Mapping[str, str],
    device: str,
    images: ImageDataset,
    table: str,
    names: Sequence[str],
    *what: Any,
) -> Path:
    """Return the cache file for rows that need no attack.

    `names` are the models of the rows, in any order; `what` is all else that decides numbers.
    """
    keys = sorted(model_keys[name] for name in names)
    key = content_key(own_code(), table, keys, what, images.digest(), _numerics(settings, device))
    name = "-".join([table, *sorted(names)])
    return Path(settings.cache_dir) / "clean" / f"{name[:100]}-{key}.parquet"


def crafting_key(
    settings: Settings,
    saved: SavedImages | None,
    model_keys: Mapping[str, str],
    images: ImageDataset,
    pool: Batch | None,
    device: str,
) -> str:
    """Return the key of a job's adversarial images, their variants and its diagnostics.

    Jobs with equal keys have the same rows for every target that they share.
    """
    attack = settings.attack.settings
    crafted = code_of(attack) if saved is None else saved.digest
    mixed = [] if pool is None else [pool.labels.tolist(), _digest(pool.images)]
    chosen = settings.diagnostics
    at_reference = settings.reference if chosen.spectra or chosen.filters else None
    how = settings.model_dump(
        include={"storage", "variants", "controls", "ensemble", "seed", "save_adversarial"}
    )
    return content_key(
        own_code(),
        *(images.digest(), mixed, attack, crafted, how, settings.budgets),
        [model_keys[name] for name in settings.source],
        (chosen.model_dump(), at_reference),
        (settings.trainer.gradient_batch, settings.trainer.attack_precision),
        _numerics(settings, device),
    )


def job_key(crafting: str, target_keys: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the job's key: equal keys mean equal tables, the models' names included."""
    return content_key(crafting, target_keys, names)


def code_keys(settings: Settings) -> dict[str, str]:
    """Return digests of the code behind a job: `program`, `attack`, and each model by its name."""
    parts = {"attack": settings.attack.settings} | {
        name: settings.model[name].network for name in settings.models
    }
    return {"program": own_code()} | {
        name: content_key(code_of(part)) for name, part in parts.items()
    }


def _digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def _numerics(settings: Settings, device: str) -> list[str]:
    """Return settings that change a logit's last digits."""
    trainer = settings.trainer
    decisive = {"precision", "fold_batch_norms", "channels_last", "batch_size", "cudnn_benchmark"}
    how = trainer.model_dump(include=decisive)
    versions = [f"{name}={version(name)}" for name in ("torch", "torchvision", "pillow", "numpy")]
    return [*(f"{key}={how[key]}" for key in sorted(how)), device, *versions]
