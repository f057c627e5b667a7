"""Settings of one job, and checks of combinations of keys."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from ..utils.model_names import NO_DEFENCE, ModelRef, behind_each
from ..utils.vocabulary import Protocol
from .attack_settings import AttackSettings
from .fields import Distinct, ModelNames, Name, Preset, Variant, check_among
from .sections import (
    CacheSettings,
    CheckSettings,
    DatasetSettings,
    DefenceSettings,
    DiagnosticSettings,
    EpsilonSettings,
    MeasurementSettings,
    ModelSettings,
    PlanSettings,
    ReportSettings,
    Section,
    TrackingSettings,
    TrainerSettings,
    TrainingSettings,
    job_name,
    network_settings,
    reference_budget,
)


class Settings(Section):
    """Settings of one job; the keys of `conf/config.yaml`.

    Attributes:
        source: Models whose gradients make the adversarial images; several form an ensemble.
        defences: Defences that targets are evaluated behind, in addition to none.
        source_defence: Defence that the source is attacked behind.
        source_draws: Number of draws of `source_defence` that each gradient averages over.
        storage: Format of the primary variant; None: as stored in a saved set.
        model: The models that the job names.
        defence: The defences that the job names.
        measurements: Measurements of the user's, by the name of their table.
        beside: Preset of stored attacks that each attack is ranked among at the end.
        base: Attack that `experiment=paper` compares the attack with; None: no such sweep.
        question: What the job answers in such a sweep; behind a semicolon, what it leaves out.
    """

    attack: AttackSettings
    source: ModelNames
    targets: Annotated[ModelNames, Field(min_length=1)]
    ensemble: Literal["logits", "probabilities", "loss"] = "logits"
    defences: Distinct[Name] = ()
    source_defence: Name = NO_DEFENCE
    source_draws: PositiveInt = 1
    epsilon: EpsilonSettings
    protocol: Protocol | None = "joint"
    storage: Literal["float32", "uint8"] | None = "float32"
    variants: Distinct[Variant] = ()
    controls: bool = False
    save_adversarial: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    n_images: PositiveInt | None = None
    dataset: DatasetSettings
    model: dict[str, ModelSettings]
    defence: dict[str, DefenceSettings] = Field(default_factory=dict)
    trainer: TrainerSettings = TrainerSettings()
    training: TrainingSettings = TrainingSettings()
    tracking: TrackingSettings = TrackingSettings()
    diagnostics: DiagnosticSettings = DiagnosticSettings()
    measurements: Annotated[
        dict[str, MeasurementSettings], BeforeValidator(lambda value: value or {})
    ] = Field(default_factory=dict)
    clean_accuracy_check: CheckSettings = CheckSettings()
    report: ReportSettings = ReportSettings()
    beside: Preset | None = None
    base: Name | None = None
    question: str | None = None
    cache: CacheSettings = CacheSettings()
    plan: PlanSettings = PlanSettings()
    rerun: bool = False
    sweep: str | None = None

    @model_validator(mode="after")
    def _check_defences(self) -> Self:
        if self.protocol == "common" and not self.defences:
            raise ValueError("protocol=common needs defences, e.g. defences=[none,jpeg]")
        if self.source_draws > 1 and self.source_defence == NO_DEFENCE:
            raise ValueError(f"source_draws={self.source_draws} needs a random source_defence")
        if self.source_draws > 1 and self.layers:
            raise ValueError(
                f"source_draws={self.source_draws}: attack={self.attack.name} reads a layer, whose "
                "output would differ between draws. Set source_draws=1"
            )
        return self

    @model_validator(mode="after")
    def _check_trainings(self) -> Self:
        built = {name: network_settings(model.model_dump()) for name, model in self.model.items()}
        for name, model in self.model.items():
            if (of := model.training_of) in built and built[name] != built[of]:
                raise ValueError(
                    f"model.{name}.training_of={of}: network, mean, std, input_size and channels "
                    f"must be equal to those of {of}"
                )
        return self

    @model_validator(mode="after")
    def _check_attack(self) -> Self:
        """Refuse settings that the attack does not support; a saved set has its own budgets."""
        attack, about, rule = self.attack, self.attack.about, self.attack.target_label
        if attack.kind != "crafted":
            return self
        check_among("epsilon.reference", self.epsilon.reference or 0, self.epsilon.grid)
        who = f"attack={attack.name}"
        if rule is not None and not about.targeted:
            raise ValueError(f"attack.target_label={rule}: {who} is untargeted only")
        if rule is None and about.targeted == "only":
            raise ValueError(
                f"attack.target_label=null: {who} is targeted only. Use data, least_likely, random "
                "or next"
            )
        if attack.norm not in about.norms:
            norms = " or ".join(about.norms)
            raise ValueError(f"attack.norm={attack.norm}: {who} supports only {norms}")
        if len(self.source) < about.members:
            raise ValueError(
                f"source={self.source_name}: {who} needs an ensemble of at least {about.members} "
                "models, e.g. source=[a,b]"
            )
        return self

    @property
    def source_name(self) -> str:
        """The source's name, `a+b` for an ensemble; empty without an attack."""
        return "+".join(self.source) or self.attack.source

    @property
    def source_model(self) -> ModelRef:
        """The source behind its `source_defence`."""
        return ModelRef.parse(self.source_name, self.source_defence)

    @property
    def evaluated(self) -> tuple[ModelRef, ...]:
        """Targets as they are, then each behind every defence."""
        return behind_each(self.targets, self.defences)

    @property
    def attacked(self) -> str:
        """The source's name with its `source_defence`."""
        return str(self.source_model)

    @property
    def layers(self) -> tuple[str | None, ...]:
        """Layers that the attack reads, one per member of the source; empty if it reads none."""
        if "layers" not in self.attack.about.needs and "objective" not in self.attack.settings:
            return ()
        layer = self.attack.settings.get("layer")
        if isinstance(layer, list):
            return tuple(layer)
        return tuple(layer or self.model[name].feature_layer for name in self.source)

    @property
    def models(self) -> tuple[str, ...]:
        """All models that the job builds, the sources first."""
        return (*self.source, *(name for name in self.targets if name not in self.source))

    @property
    def budgets(self) -> tuple[float, ...]:
        """Budgets in units of 1/255, ascending, without 0; none without an attack."""
        return () if self.attack.kind == "none" else self.epsilon.grid

    @property
    def reference(self) -> float:
        """The reference budget in units of 1/255; 0 without an attack."""
        if self.epsilon.reference is None or not self.budgets:
            return reference_budget(self.budgets)
        return self.epsilon.reference

    def gradient_batch(self, device: str, image_size: int) -> int:
        """Return the maximum number of images per gradient batch, all budgets together.

        By default it shrinks with the pixels of the largest network: at 224 pixels there are 32
        images on a CPU, which need less than 4 GB with a ResNet-50, and 81 on a GPU.

        Args:
            device: Type of the device.
            image_size: Side of the images in pixels.
        """
        if self.trainer.gradient_batch is not None:
            return self.trainer.gradient_batch
        side = max(self.model[name].input_size or image_size for name in self.models)
        largest = 32 * 224**2 // side**2 if device == "cpu" else 1000 * 64**2 // max(64, side) ** 2
        size = self.trainer.batch_size
        return max(1, largest if size == "auto" else min(size, largest))

    def gradients(self, budgets: int) -> float | None:
        """Return the gradients per image that the attack states for a number of budgets.

        They are those of all members of the source, and of all draws of its defence.
        """
        members = len(self.source)
        each = self.attack.gradients(budgets, members)
        return None if each is None else each * members * self.source_draws

    @property
    def job(self) -> str:
        """Short name of the job, such as `bim vgg16`."""
        return job_name(self.attack.label, self.attacked)
