"""The job of `python -m src.score`: a stored set takes the place of an attack."""

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from src.analysis import Alarm, over_budget
from src.config.attack import AttackConfig
from src.config.read import Job, check_models, check_settings, reference_budget
from src.data import Batch, ImageDataset, LabelledImages
from src.evaluation import STORED, AdversarialBatch, AdversarialSource, Variants
from src.sets import UNKNOWN, AdversarialSet, Origin, open_set, with_measured_budgets
from src.utils.checks import (
    check_choice,
    check_name,
    check_number,
    check_units,
    check_whole_number,
    names_of,
    plain,
)

log = logging.getLogger(__name__)


def read_score(config: DictConfig) -> Job:
    """Check a composed score config and return its job.

    Raises:
        ValueError: The set cannot be read or the config cannot work, in one sentence.
    """
    if config.set is None:
        raise ValueError("set is not given; set=PATH names the adversarial images to show.")
    sources = [] if config.source is None else names_of(config.source)
    targets = [] if config.targets is None else names_of(config.targets)
    if config.targets is None:
        raise ValueError(
            f"targets is not given; name one or more of {', '.join(sorted(config.model))}."
        )
    check_models(config, sources, targets)
    stored = _open(config)
    _check_belongs(config, stored, "+".join(map(str, sources)))
    protocol = config.protocol
    if protocol is None:
        protocol = "all" if stored.clean is None else "joint" if sources else "target_correct"
    if stored.clean is None and (protocol != "all" or config.controls):
        what = "controls=true" if config.controls else f"protocol={protocol}"
        raise ValueError(f"{what} needs the clean images of {config.set}; clean=PATH names them.")
    if protocol in ("joint", "source_correct") and not sources:
        raise ValueError(
            f"protocol={protocol} needs the clean answers of the model that the images were made "
            "on; source=NAME names it."
        )
    config = config.copy()
    config.protocol = protocol
    attack = _attack(stored, config.set)
    check_name(f"the attack of {config.set}", attack.name)
    for name in stored.source.split("+"):
        check_name(f"the source of {config.set}", name)
    if config.dataset.get("_target_") is None:
        config.dataset.name = stored.dataset
    check_settings(config)
    budgets = tuple(sorted(float(eps) for eps in stored.budgets_255))
    measured = {breach.told: breach.measured for breach in stored.breaches}
    reference = measured.get(config.reference, config.reference)
    return Job(
        attack=attack,
        sources=tuple(map(str, sources)),
        ensemble=stored.ensemble,
        targets=tuple(map(str, targets)),
        budgets=budgets,
        reference=reference_budget(reference, budgets, "reference"),
        protocol=protocol,
        seed=config.seed,
        forms=Variants(headline=STORED, controls=config.controls, seed=config.seed),
        save=False,
        config=config,
        stored=stored,
    )


class StoredImages(AdversarialSource):
    """What looks a batch's adversarial images up in a set, in the place of an attacker.

    Args:
        stored: The set.
        budgets: In which order its budgets are returned.
    """

    def __init__(self, stored: AdversarialSet, budgets: tuple[float, ...]) -> None:
        super().__init__(budgets, stored.norm)
        self._stored = stored
        self._rows = {int(number): row for row, number in enumerate(stored.index)}

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the stored versions of the batch's images, as they are."""
        rows = [self._rows[number] for number in batch.index.tolist()]
        by_budget = self._stored.by_budget()
        levels = np.stack([by_budget[eps][rows] for eps in self.budgets])
        found = torch.from_numpy(levels).to(images.device).to(images.dtype) / 255
        aims = self._stored.target_labels
        if aims is None:
            return AdversarialBatch(found)
        return AdversarialBatch(found, torch.from_numpy(aims[rows]).to(images.device))


def stored_dataset(job: Job) -> ImageDataset:
    """Return the clean images of a job's set, or where there are none its first adversarial ones.

    Raises:
        ValueError: Nothing says how many classes there are.
    """
    stored = job.stored
    assert stored is not None
    images = stored.adversarial[0] if stored.clean is None else stored.clean
    names = stored.class_names
    if names is None:
        total = stored.num_classes or job.config.dataset.num_classes
        if total is None:
            raise ValueError(
                f"{job.config.set} does not say how many classes there are; give "
                "origin.num_classes, or the data set as dataset=NAME."
            )
        names = tuple(map(str, range(total)))
    data = LabelledImages(np.moveaxis(images, 1, 3), stored.labels, names, stored.target_labels)
    return ImageDataset(data, n_images=job.config.n_images, seed=job.seed, numbers=stored.index)


def breach_alarms(job: Job) -> list[Alarm]:
    """Return an alarm for each budget that the images of a job's set break."""
    if job.stored is None:
        return []
    total, norm = len(job.stored), job.stored.norm
    return [over_budget(job.attack.label, *one, total, norm) for one in job.stored.breaches]


def report_breaches(stored: AdversarialSet) -> dict[str, float]:
    """Say whether the stored images keep their budget; how many do not, for a tracker."""
    if stored.clean is None:
        log.info("Whether the images keep their budget cannot be told without the clean ones.")
        return {}
    if not stored.breaches:
        log.info("All %d images keep their budget at every eps.", len(stored))
    return {"budget_breaches": float(sum(breach.images for breach in stored.breaches))}


def check_weights(stored: AdversarialSet, digests: Mapping[str, str]) -> None:
    """Refuse a model that has other weights than the source of its name.

    It would be taken for the white box.

    Args:
        stored: The set.
        digests: Of the weights of the models at hand, by name.

    Raises:
        ValueError: There is one.
    """
    for name, digest in stored.weights.items():
        if digests.get(name, digest) != digest:
            raise ValueError(
                f"model {name} has other weights here than when the images were made on it; give "
                f"model.{name}.weights=PATH, or name this model otherwise."
            )


def _open(config: DictConfig) -> AdversarialSet:
    """Read the set that a config names.

    Raises:
        ValueError: It cannot be read, or a key is not of the right kind.
    """
    for key in ("set", "clean", "labels"):
        if not isinstance(config[key], str | None):
            raise ValueError(f"{key}={config[key]} is not a path.")
    if config.eps_255 is not None:
        check_number("eps_255", config.eps_255, 0, 255, open_low=True)
        check_units("eps_255", [config.eps_255])
    check_choice("resize_clean", config.resize_clean, (True, False))
    origin = plain(config, "origin")
    for key in ("source", "attack", "norm", "dataset"):
        if not isinstance(origin[key], str):
            raise ValueError(f"origin.{key}={origin[key]} is not a name.")
    if origin["num_classes"] is not None:
        check_whole_number("origin.num_classes", origin["num_classes"], 2)
    words = ("clean", "labels", "eps_255", "resize_clean")
    given = tuple(config[word] for word in words)
    stored: AdversarialSet = _opened(config.set, given, tuple(sorted(origin.items())))
    return stored


def _check_belongs(config: DictConfig, stored: AdversarialSet, source: str) -> None:
    """Refuse a source or a data set that the set says is not its own."""
    if source and stored.source not in (UNKNOWN, source):
        raise ValueError(
            f"source={source}, but {config.set} says that its images were made on {stored.source}."
        )
    name = config.dataset.name
    if config.dataset.get("_target_") is not None and stored.dataset not in (UNKNOWN, name):
        raise ValueError(
            f"dataset={name}, but {config.set} says that its images are of {stored.dataset}."
        )


def _attack(stored: AdversarialSet, path: str) -> AttackConfig:
    """Return what is known of a set's attack; one without a name is called by its folder."""
    settings: dict[str, Any] = (
        {"name": stored.attack} if isinstance(stored.attack, str) else dict(stored.attack)
    )
    settings.setdefault("target_label", None if stored.target_labels is None else "data")
    if settings.get("name", UNKNOWN) == UNKNOWN:
        settings["name"] = re.sub(
            r"[^A-Za-z0-9_.+-]+", "-", Path(path).resolve().name.removesuffix(".npy")
        )[:100]
    name = str(settings["name"])
    label = str(settings.pop("label", name))
    return AttackConfig(name, {**settings, "norm": stored.norm}, label)


@lru_cache(maxsize=2)  # checked before the run, and again in it
def _opened(path: str, words: tuple[Any, ...], origin: tuple[tuple[str, Any], ...]) -> Any:
    clean, labels, eps_255, resize_clean = words
    stored = open_set(
        path,
        clean=clean,
        labels=labels,
        eps_255=eps_255,
        resize_clean=resize_clean,
        origin=Origin(**dict(origin)),
    )
    try:
        return with_measured_budgets(stored)
    except ValueError as error:
        raise ValueError(f"{path}, as its images are measured: {error}") from error
