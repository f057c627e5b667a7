"""The job: what one run computes, checked before any image is read or any weight is loaded."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, open_dict

from src.analysis import PROTOCOLS
from src.config.attack import AttackConfig, read_attack
from src.config.attack_file import AttackFile
from src.config.settings import TrainingSettings
from src.diagnostics import DiagnosticSettings
from src.evaluation import Variants
from src.models import AVERAGES
from src.sets import UNKNOWN, AdversarialSet, parse_storage
from src.utils.checks import (
    PRECISIONS,
    check_choice,
    check_name,
    check_number,
    check_report,
    check_units,
    check_whole_number,
    first_line,
    names_of,
    plain,
)

STRATEGIES = ("auto", "ddp")
STUDY = ("vgg16", "resnet50", "inception")
"""The targets where none are named, with the source, as far as the catalogue holds them."""


@dataclass(frozen=True)
class Job:
    """One (dataset, attack, source): attack once per budget, show every target the same images.

    Attributes:
        attack: The attack, its settings and its aim.
        sources: Names of the models whose gradients are used; several form an ensemble.
        ensemble: What is averaged over them: `logits`, `probabilities` or `loss`.
        targets: Names of the models that the adversarial images are shown to.
        budgets: Budgets in units of 1/255, ascending, without 0.
        reference: The budget of the headline figures, one of `budgets`.
        protocol: Which images form the headline's denominator.
        seed: Of the subset and of random attacks.
        forms: In which forms the targets are shown the adversarial images.
        save: Whether the adversarial images are saved.
        config: The whole composed config that the fields were read from.
        stored: A set of adversarial images that takes the attack's place.
        diagnostics: What is computed beside the predictions, which do not depend on it.
    """

    attack: AttackConfig
    sources: tuple[str, ...]
    ensemble: str
    targets: tuple[str, ...]
    budgets: tuple[float, ...]
    reference: float
    protocol: str
    seed: int
    forms: Variants
    save: bool
    config: DictConfig
    stored: AdversarialSet | None = None
    diagnostics: DiagnosticSettings = field(default_factory=DiagnosticSettings)

    @property
    def name(self) -> str:
        """Return a short name for people, such as `bim vgg16`."""
        if not self.budgets:
            return "clean images"
        source = "" if self.source == UNKNOWN else f" {self.source}"
        return f"{self.attack.label}{source}"

    @property
    def source(self) -> str:
        """Return the source's name, of an ensemble `a+b`."""
        if self.stored is not None and not self.sources:
            return self.stored.source
        return "+".join(self.sources)

    @property
    def models(self) -> tuple[str, ...]:
        """Return every model that the job builds, the sources first."""
        return (*self.sources, *(name for name in self.targets if name not in self.sources))

    @property
    def distributed(self) -> bool:
        """Tell whether several processes share this job's images."""
        trainer = self.config.trainer
        devices = trainer.devices
        one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
        return not one or trainer.num_nodes > 1 or str(trainer.strategy).startswith("ddp")

    def section(self, key: str) -> dict[str, Any]:
        """Return one resolved section of the config as a plain dictionary."""
        return plain(self.config, key)

    def stored_config(self) -> DictConfig:
        """Return the config with the values that this job took where it left a choice."""
        config = self.config.copy()
        with open_dict(config):
            config.source = list(self.sources) if len(self.sources) > 1 else self.source
            config.targets = list(self.targets)
            config.storage = self.forms.headline
            config.attack = self.attack.stored()
            config.epsilon = {"grid": [0.0, *self.budgets], "reference": self.reference}
        return config

    def with_data(self, num_classes: int, image_size: int) -> "Job":
        """Return the job with what only the data could tell filled into its config."""
        config = self.config.copy()
        config.dataset.num_classes = num_classes
        config.dataset.image_size = image_size
        return Job(**{**vars(self), "config": config})


def read_job(config: DictConfig, file: AttackFile | None = None) -> Job:
    """Check a composed config and return its job.

    Args:
        config: What Hydra composed.
        file: Of its attack; None where that is not known.

    Raises:
        ValueError: Something in the config cannot work; the message names the key, the value and
            what is allowed.
    """
    sources = names_of(config.source)
    targets = _targets(config, sources)
    if not sources:
        raise ValueError(f"source is empty; name one of {', '.join(sorted(config.model))}.")
    check_models(config, sources, targets)
    check_settings(config)
    check_choice("ensemble", config.ensemble, AVERAGES)
    check_choice("save_adversarial", config.save_adversarial, (True, False))
    budgets = _budgets(config.epsilon.grid)
    for eps in plain(config, "report")["budgets"] or []:
        if eps not in budgets:
            listed = ", ".join(f"{budget:g}" for budget in budgets)
            raise ValueError(f"report.budgets names {eps}, which is not among {listed}.")
    return Job(
        attack=read_attack(plain(config, "attack"), budgets, file),
        sources=tuple(map(str, sources)),
        ensemble=config.ensemble,
        targets=tuple(map(str, targets)),
        budgets=budgets,
        reference=reference_budget(config.epsilon.reference, budgets, "epsilon.reference"),
        protocol=config.protocol,
        seed=config.seed,
        forms=_forms(config),
        save=config.save_adversarial,
        config=config,
        diagnostics=_diagnostics(config),
    )


def check_models(config: DictConfig, sources: Sequence[Any], targets: Sequence[Any]) -> None:
    """Refuse models that are not in the catalogue, named twice, or whose files cannot work.

    Raises:
        ValueError: There is one, or no target.
    """
    catalogue = sorted(config.model)
    if not targets:
        raise ValueError(f"targets is empty; name one or more of {', '.join(catalogue)}.")
    for key, names in (("source", sources), ("targets", targets)):
        _refuse_duplicates(key, names)
        for name in names:
            if name not in catalogue:
                raise ValueError(
                    f"{key} names {name!r}, which is not among the models: {', '.join(catalogue)}."
                )
            check_name(key, name)
    for name in dict.fromkeys((*sources, *targets)):
        _check_model(name, plain(config, f"model.{name}"))


def _targets(config: DictConfig, sources: Sequence[Any]) -> list[Any]:
    """Return the targets; where none are named, the study's and the sources."""
    if config.targets is not None:
        return names_of(config.targets)
    study = [name for name in STUDY if name in config.model]
    return [*study, *(name for name in sources if name not in study)]


def _forms(config: DictConfig) -> Variants:
    """Return the forms that targets are shown; null storage is uint8 for saved images."""
    storage = config.storage or ("uint8" if config.save_adversarial else "float32")
    check_choice("storage", storage, ("float32", "uint8"))
    also = names_of(config.variants) if config.variants is not None else []
    _refuse_duplicates("variants", also)
    for form in also:
        parse_storage(form)
    if "float32" not in (storage, *also):  # what rounding does can only be seen beside it
        also = ["float32", *also]
    return Variants(headline=storage, also=tuple(also), controls=config.controls, seed=config.seed)


def _diagnostics(config: DictConfig) -> DiagnosticSettings:
    """Return what is computed beside the predictions."""
    try:
        return DiagnosticSettings(**plain(config, "diagnostics"))
    except TypeError as error:
        raise ValueError(f"diagnostics in the config: {first_line(error)}") from error


def check_settings(config: DictConfig) -> None:
    """Refuse values that no job can have.

    Raises:
        ValueError: There is one.
    """
    if config.protocol not in PROTOCOLS:
        raise ValueError(f"protocol={config.protocol} is not one of {', '.join(PROTOCOLS)}.")
    check_name("dataset.name", config.dataset.name)
    check_whole_number("seed", config.seed, 0)
    if config.dataset.n_images is not None:
        check_whole_number("n_images", config.dataset.n_images, 1)
    check_report(plain(config, "report"))
    if config.clean_accuracy_check.action not in ("stop", "warn"):
        raise ValueError(
            f"clean_accuracy_check.action={config.clean_accuracy_check.action} is neither stop nor warn."
        )
    check_number("clean_accuracy_check.tolerance", config.clean_accuracy_check.tolerance, 0, 1)
    check_choice("controls", config.controls, (True, False))
    trainer = config.trainer
    check_whole_number("trainer.batch_size", trainer.batch_size, 1)
    if trainer.gradient_batch is not None:
        check_whole_number("trainer.gradient_batch", trainer.gradient_batch, 1)
    check_whole_number("trainer.num_workers", trainer.num_workers, 0)
    check_whole_number("trainer.num_nodes", trainer.num_nodes, 1)
    for key, allowed in (("precision", PRECISIONS), ("strategy", STRATEGIES)):
        if trainer[key] not in allowed:
            raise ValueError(f"trainer.{key}={trainer[key]} is not one of {', '.join(allowed)}.")
    try:
        TrainingSettings(**plain(config, "training"))
    except ValueError as error:
        raise ValueError(f"training in the config: {first_line(error)}") from error


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
    check_units("epsilon.grid", positive)
    return tuple(positive)


def reference_budget(value: Any, budgets: tuple[float, ...], key: str) -> float:
    """Return the budget of the headline: null means 8/255 where it is run, else the largest."""
    if value is None:
        return 8.0 if 8.0 in budgets else budgets[-1]
    if value not in budgets:
        listed = ", ".join(f"{budget:g}" for budget in budgets)
        raise ValueError(f"{key}={value} is not among the budgets {listed}.")
    return float(value)


def _refuse_duplicates(key: str, values: Sequence[Any]) -> None:
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"{key} names {', '.join(twice)} more than once.")
