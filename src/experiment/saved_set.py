"""Saved set in the place of an attack: facts stored with it become the job's settings."""

from functools import lru_cache
from typing import Any

from src.config.fields import check_among, check_model, check_name
from src.config.settings import (
    EpsilonSettings,
    SavedSettings,
    Settings,
    reference_budget,
)
from src.evaluation import UNKNOWN, SavedImages, open_saved_images, with_measured_budgets


def open_set(settings: Settings) -> SavedImages | None:
    """Return the saved set that takes the attack's place, its budgets measured; else None."""
    saved = settings.attack.saved
    return None if saved is None else _opened(saved)


def with_set(settings: Settings, saved: SavedImages) -> Settings:
    """Return a job's settings with attack, budgets and protocol of its saved set.

    A set of another source or data set, or one that lacks what the job needs, is refused.
    """
    path = settings.attack.saved.path if settings.attack.saved else ""
    given, own = settings.source_name, settings.dataset.name
    source, dataset = saved.facts.source, saved.facts.dataset
    if given and source not in (UNKNOWN, given):
        raise ValueError(
            f"source={given}, but {path} says that its images were crafted on {source}."
        )
    if settings.dataset.has_loader and dataset not in (UNKNOWN, own):
        raise ValueError(f"dataset={own}, but {path} says that its images are of {dataset}.")
    budgets = tuple(sorted(float(eps) for eps in saved.facts.budgets_255))
    measured = {breach.stated: breach.measured for breach in saved.breaches}
    reference = settings.epsilon.reference
    reference = reference_budget(budgets) if reference is None else reference
    reference = measured.get(reference, reference)
    check_among(f"epsilon.reference of {path}", [reference], budgets)
    for member in source.split("+"):
        check_model("the source of the saved set", member)
        check_name("the source of the saved set", member)
    changes: dict[str, Any] = {
        "attack": saved.facts.attack.model_copy(
            update={"kind": "saved", "saved": settings.attack.saved, "source": source}
        ),
        "protocol": _protocol(settings, saved, path or ""),
        "epsilon": EpsilonSettings.model_construct(grid=budgets, reference=reference),
    }
    if saved.facts.ensemble != UNKNOWN:
        changes["ensemble"] = saved.facts.ensemble
    if not settings.dataset.has_loader:
        name = check_name(f"the data set of {path}", dataset)
        changes["dataset"] = settings.dataset.model_copy(update={"name": name})
    return settings.model_copy(update=changes)


def check_weights(saved: SavedImages, digests: dict[str, str]) -> None:
    """Refuse a model that has other weights than the saved set's source of its name.

    It would be taken for the white box.
    """
    for name, digest in saved.facts.weights.items():
        if digests.get(name, digest) != digest:
            raise ValueError(
                f"model {name} has other weights here than when the images were crafted on it; "
                f"give model.{name}.weights=PATH, or name this model otherwise."
            )


def _protocol(settings: Settings, saved: SavedImages, path: str) -> str:
    protocol: str | None = settings.protocol
    if protocol is None:
        known = "joint" if settings.source else "target_correct"
        protocol = known if saved.read_clean is not None else "all"
    if saved.read_clean is None and (protocol != "all" or settings.controls):
        what = "controls=true" if settings.controls else f"protocol={protocol}"
        raise ValueError(f"{what} needs the clean images of {path}; attack.clean=PATH names them.")
    if protocol in ("joint", "source_correct") and not settings.source:
        raise ValueError(
            f"protocol={protocol} needs the clean predictions of the model that the images were "
            "crafted on; source=NAME names it."
        )
    return protocol


@lru_cache(maxsize=2)  # checked before the sweep, and again in the job
def _opened(settings: SavedSettings) -> SavedImages:
    try:
        return with_measured_budgets(open_saved_images(settings))
    except ValueError as error:
        raise ValueError(f"attack.path={settings.path}: {error}") from error
