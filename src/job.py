"""The job: what one run computes, checked before any image is read or any weight is loaded."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from src.analysis import PROTOCOLS
from src.checks import PRECISIONS, check_number, check_whole_number
from src.training import Recipe

STRATEGIES = ("auto", "ddp")
STUDY = ("vgg16", "resnet50", "inception")
"""The targets where none are named, with the source, as far as the catalogue holds them."""

Attack = Any
"""A callable (model, images, labels, eps) -> adversarial images; see `src.attacks`."""


@dataclass(frozen=True)
class Job:
    """One (dataset, attack, source): attack once per budget, show every target the same images.

    Attributes:
        attack: Name of the attack and its settings, as in `conf/attack/`.
        source: Name of the model whose gradients are used.
        targets: Names of the models that the adversarial images are shown to.
        budgets: L-infinity budgets in units of 1/255, ascending, without 0.
        standard: The budget of the headline figures, one of `budgets`.
        protocol: Which images form the headline's denominator.
        seed: Of the subset, of training and of random attacks.
        config: The whole composed config that the fields were read from.
    """

    attack: Mapping[str, Any]
    source: str
    targets: tuple[str, ...]
    budgets: tuple[float, ...]
    standard: float
    protocol: str
    seed: int
    config: DictConfig

    @property
    def name(self) -> str:
        """Return a short name for people, such as `bim vgg16`."""
        return f"{self.attack['name']} {self.source}"

    @property
    def models(self) -> tuple[str, ...]:
        """Return every model that the job builds, the source first."""
        return (self.source, *(name for name in self.targets if name != self.source))

    @property
    def distributed(self) -> bool:
        """Tell whether several processes share this job's images."""
        trainer = self.config.trainer
        devices = trainer.devices
        one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
        return not one or trainer.num_nodes > 1 or str(trainer.strategy).startswith("ddp")

    def section(self, key: str) -> dict[str, Any]:
        """Return one resolved section of the config as a plain dictionary."""
        return _plain(self.config, key)

    def stored_config(self) -> DictConfig:
        """Return the config with the values that this job took where it left a choice."""
        config = self.config.copy()
        config.source = self.source
        config.targets = list(self.targets)
        config.epsilon = {"grid": [0.0, *self.budgets], "standard": self.standard}
        return config

    def with_data(self, num_classes: int, image_size: int) -> "Job":
        """Return the job with what only the data could tell filled into its config."""
        config = self.config.copy()
        config.dataset.num_classes = num_classes
        config.dataset.image_size = image_size
        return Job(**{**vars(self), "config": config})


def read_job(config: DictConfig) -> Job:
    """Check a composed config and return its job.

    Raises:
        ValueError: Something in the config cannot work; the message names the key, the value and
            what is allowed.
    """
    catalogue = sorted(config.model)
    source = config.source
    if isinstance(source, ListConfig):
        if len(source) != 1:
            raise ValueError(
                f"source={_plain(config, 'source')} names {len(source)} models, but attacks on "
                "an ensemble are not implemented; name one model, or sweep over them with "
                f"-m source={','.join(map(str, source))}."
            )
        source = source[0]
    targets = config.targets
    if targets is None:
        study = [name for name in STUDY if name in catalogue]
        targets = study if source in study else [*study, source]
    elif not isinstance(targets, ListConfig):
        targets = [targets]
    if not targets:
        raise ValueError(f"targets is empty; name one or more of {', '.join(catalogue)}.")
    _refuse_duplicates("targets", targets)
    for key, name in [("source", source), *(("targets", name) for name in targets)]:
        if name not in catalogue:
            raise ValueError(
                f"{key} names {name!r}, which is not among the models: {', '.join(catalogue)}."
            )
    _check_settings(config)
    budgets = _budgets(config.epsilon.grid)
    job = Job(
        attack=_plain(config, "attack"),
        source=str(source),
        targets=tuple(str(name) for name in targets),
        budgets=budgets,
        standard=_standard(config.epsilon.standard, budgets),
        protocol=config.protocol,
        seed=config.seed,
        config=config,
    )
    for name in job.models:
        _check_model(name, job.section(f"model.{name}"))
    _try_attack(job)
    return job


def _check_settings(config: DictConfig) -> None:
    """Refuse values that no job can have."""
    if config.protocol not in PROTOCOLS:
        raise ValueError(f"protocol={config.protocol} is not one of {', '.join(PROTOCOLS)}.")
    check_whole_number("seed", config.seed, 0)
    if config.dataset.n_images is not None:
        check_whole_number("n_images", config.dataset.n_images, 1)
    check_whole_number("report.examples", config.report.examples, 0)
    if config.gate.action not in ("stop", "warn"):
        raise ValueError(f"gate.action={config.gate.action} is neither stop nor warn.")
    check_number("gate.tolerance", config.gate.tolerance, 0, 1)
    trainer = config.trainer
    check_whole_number("trainer.batch_size", trainer.batch_size, 1)
    check_whole_number("trainer.num_workers", trainer.num_workers, 0)
    check_whole_number("trainer.num_nodes", trainer.num_nodes, 1)
    for key, allowed in (("precision", PRECISIONS), ("strategy", STRATEGIES)):
        if trainer[key] not in allowed:
            raise ValueError(f"trainer.{key}={trainer[key]} is not one of {', '.join(allowed)}.")
    try:
        Recipe(**_plain(config, "training"))
    except TypeError as error:
        raise ValueError(f"training in the config: {_first_line(error)}") from error


def build_attack(job: Job) -> Attack:
    """Return the attack as a function of (model, images, labels, eps)."""
    settings = {key: value for key, value in job.attack.items() if key != "name"}
    try:
        return instantiate(settings, _partial_=True)
    except InstantiationException as error:
        raise ValueError(
            f"attack={job.attack['name']}: its _target_ {settings.get('_target_')} cannot be "
            f"imported: {_first_line(error)}"
        ) from error


def content_key(*parts: Any) -> str:
    """Return a short hash of plain values: equal content, equal key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_model(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse weights that are not there and accuracies that are none."""
    weights, expected = settings.get("weights"), settings.get("expected_accuracy")
    if weights not in (None, "included") and not Path(str(weights)).is_file():
        raise ValueError(
            f"model.{name}.weights={weights} is not a file; give one, or null (train here), or "
            "included (the network comes trained)."
        )
    if expected is not None:
        check_number(f"model.{name}.expected_accuracy", expected, 0, 1)


def _try_attack(job: Job) -> None:
    """Run the attack once on two tiny images, so that its own checks speak before any work."""
    images = torch.full((2, 3, 32, 32), 0.5)
    attack = build_attack(job)
    eps = torch.tensor(job.budgets) / 255
    try:
        with torch.random.fork_rng(devices=[]):
            model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)).requires_grad_(False)
            result = attack(model, images, torch.tensor([0, 1]), eps)
    except Exception as error:  # an attack of the user's own may raise anything
        raise ValueError(f"attack={job.attack['name']}: {_first_line(error)}") from error
    expected = (len(job.budgets), *images.shape)
    if not isinstance(result, torch.Tensor) or result.shape != expected:
        shape = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(
            f"attack={job.attack['name']} returns {shape} for {len(job.budgets)} budgets and "
            f"images of shape {tuple(images.shape)}; it must return a tensor {expected}."
        )


def _budgets(grid: Any) -> tuple[float, ...]:
    """Check the grid of budgets and return it ascending, without 0."""
    values = list(grid) if isinstance(grid, ListConfig) else [grid]
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= 255:
            raise ValueError(
                f"epsilon.grid holds {value}; budgets are numbers from 0 to 255, in 1/255."
            )
    _refuse_duplicates("epsilon.grid", values)
    positive = sorted(float(value) for value in values if value > 0)
    if not positive:
        raise ValueError(f"epsilon.grid={values} holds no budget above 0.")
    return tuple(positive)


def _standard(value: Any, budgets: tuple[float, ...]) -> float:
    """Return the budget of the headline: null means 8/255 where it is run, else the largest."""
    if value is None:
        return 8.0 if 8.0 in budgets else budgets[-1]
    if value not in budgets:
        listed = ", ".join(f"{budget:g}" for budget in budgets)
        raise ValueError(f"epsilon.standard={value} is not among the budgets {listed}.")
    return float(value)


def _refuse_duplicates(key: str, values: Sequence[Any]) -> None:
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"{key} names {', '.join(twice)} more than once.")


def _plain(config: DictConfig, key: str) -> Any:
    try:
        value = OmegaConf.select(config, key, throw_on_missing=True)
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{key} in the config: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Return an error's first line, without the paths that libraries add below it."""
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0])
