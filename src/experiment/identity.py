"""What determines the numbers of a job: content, the code that a config names, arithmetic."""

import hashlib
import inspect
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from hydra.utils import get_object

from src.config.settings import Settings
from src.data import Batch, ImageDataset
from src.evaluation import SavedImages
from src.utils.cache import sha256_of

_COLUMNS = 3  # version of the table of predictions, in the names of cached ones
_HERE = Path(__file__).resolve().parents[1]
_DECIDING = ("attacks", "data", "diagnostics", "evaluation", "models", "utils")
_INSTALLED = {"site-packages", "dist-packages"}


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
    """Return where rows of a table that needs no attack are kept.

    Args:
        settings: Of the job.
        model_keys: Of its models, by name.
        device: `cpu`, `cuda` or another.
        images: What the table is of.
        table: Name of the table.
        names: Of the models that the rows are of, in any order.
        *what: What else decides the numbers.
    """
    keys = sorted(model_keys[name] for name in names)
    key = content_key(_COLUMNS, table, keys, what, images.digest(), _numerics(settings, device))
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
    """Return the identity of a job whatever its targets.

    Jobs with equal ones have the same adversarial images, variants of them and diagnostics, and
    so the same rows for every target that they share.
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
        _own_code(),
        *(images.digest(), mixed, attack, crafted, how, settings.budgets),
        [model_keys[name] for name in settings.source],
        (chosen.model_dump(), at_reference),
        (settings.trainer.gradient_batch, settings.trainer.attack_precision),
        _numerics(settings, device),
    )


def job_key(crafting: str, target_keys: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the job's identity: equal keys mean equal tables.

    Args:
        crafting: See `crafting_key`.
        target_keys: Of the models that the targets are, by name.
        names: Of source and targets, as they stand in the tables.
    """
    return content_key(crafting, target_keys, names)


def _digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def _numerics(settings: Settings, device: str) -> list[str]:
    """Return what can change the last digits of a logit."""
    trainer = settings.trainer
    how = (trainer.precision, trainer.fold_batch_norms, trainer.channels_last, trainer.batch_size)
    return [*map(str, how), device, torch.__version__]


def code_of(settings: Any) -> dict[str, str]:
    """Tell the code of every callable that a section of a config names as `_target_`.

    Args:
        settings: Plain data, of any depth.

    Returns:
        By name: of a file of the user's own its SHA-256, of an installed package its version.
        Callables of this package are left out; a change of theirs is a change of version.
    """
    found = {name: _code(name) for name in sorted(set(_targets(settings)))}
    return {name: code for name, code in found.items() if code is not None}


@lru_cache(maxsize=1)
def _own_code() -> str:
    """Return a hash of those packages of this program that decide a job's rows."""
    files = [path for name in _DECIDING for path in sorted((_HERE / name).rglob("*.py"))]
    return content_key([[path.name, sha256_of(path)] for path in files])


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _targets(entry)


def _code(name: str) -> str | None:
    """Tell the code of a callable, and of the module that a config names it in."""
    target = get_object(name)
    target = getattr(target, "func", target)  # of a functools.partial
    parents = [name[: dot.start()] for dot in re.finditer(r"\.", name)]
    named = sys.modules[[parent for parent in parents if parent in sys.modules][-1]]
    modules = {named, inspect.getmodule(inspect.unwrap(target)) or named}
    codes = map(_code_of_module, modules)
    return ", ".join(sorted({code for code in codes if code is not None})) or None


def _code_of_module(module: ModuleType) -> str | None:
    package = module.__name__.partition(".")[0]
    if package == __name__.partition(".")[0]:
        return None
    file = Path(getattr(module, "__file__", None) or sysconfig.get_path("stdlib"))
    standard = file.is_relative_to(sysconfig.get_path("stdlib"))
    if standard or _INSTALLED & set(file.parts):
        version = getattr(sys.modules[package], "__version__", platform.python_version())
        return f"{package} {version}"
    return sha256_of(file)
