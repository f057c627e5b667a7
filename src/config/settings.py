"""Settings of one job: frozen and typed, checked before anything is read or built.

A field's name is the key of the config; its type, range and choices are what the key allows. What
keys mean stands beside them in `conf/`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from src.config.fields import (
    Budget,
    Budgets,
    ModelNames,
    Name,
    Variant,
    check_among,
    check_units,
    distinct,
    listed,
)
from src.utils.defended_names import PLAIN, Evaluated, behind_each

Protocol = Literal["all", "source_correct", "target_correct", "joint", "common"]
Norm = Literal["linf", "l2"]
Need = Literal["layers", "skip connections", "skip connections or ReLUs", "attention", "ReLUs"]
TargetLabelRule = Literal["data", "least_likely", "random", "next"]
GIVEN = ("targeted", "true_labels", "seeds", "pool", "max_batch", "iterates")
"""Keyword arguments of attacks that the program fills in."""
STUDY = ("vgg16", "resnet50", "inception")
"""Default targets beside the source, as far as the catalogue holds them."""
CONTROLS = {"noise": "random-sign noise", "shuffled": "shuffled perturbations"}
"""Controls by the name of their table, `predictions-NAME`, in the order of their evaluation."""


_PROGRAM = Path(__file__).parents[2]
"""Folder of `src`, from where the weights in the package have names such as `src/assets/...`."""


class Section(BaseModel):
    """A section of the config: frozen, and without other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSettings(Section):
    """A model of the catalogue; the keys of `conf/model/`.

    Attributes:
        network: `_target_`, a callable that returns a module from normalised images to logits,
            and its arguments; null `num_classes` and `image_size` are filled from the data.
        weights: A file, of the current folder or the program's; `included`; or None.
        url: Address that the file can be fetched from, for the refusal where it is missing.
    """

    network: dict[str, Any]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)] | None = None
    input_size: PositiveInt | None = None
    weights: str | None = None
    expected_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    feature_layer: str | None = None
    url: str | None = None

    @field_validator("weights")
    @classmethod
    def _exist(cls, value: str | None) -> str | None:
        if value in (None, "included"):
            return value
        path = Path(str(value)).expanduser()
        packaged = _PROGRAM / path
        path = packaged if packaged.is_file() and not path.is_file() else path
        if not path.is_file():
            raise ValueError(
                f"{value} is not a file; give one, or null (train here), or included (the network "
                "comes trained)"
            )
        return str(path)


class DatasetSettings(Section):
    """The images; the keys of `conf/dataset/`, of which a loader may have more of its own."""

    model_config = ConfigDict(extra="allow")
    name: Name
    n_images: PositiveInt | None = None
    seed: NonNegativeInt = 0
    image_size: PositiveInt | None = None
    num_classes: PositiveInt | None = None
    class_names: list[str] | str | None = None
    images: str | None = None

    @property
    def has_loader(self) -> bool:
        """True if the data set brings images of its own; that of a saved set has none."""
        return "_target_" in (self.model_extra or {})


class SavedOrigin(Section):
    """Facts that the files of a foreign set lack."""

    source: Name = "unknown"
    attack: Name = "unknown"
    norm: Norm = "linf"
    targeted: bool = False
    dataset: Name = "unknown"


class SavedSettings(Section):
    """A saved set of adversarial images; the keys of `conf/attack/saved.yaml`."""

    path: str
    clean: str | None = None
    labels: str | None = None
    eps_255: Annotated[float, Field(gt=0, le=255)] | None = None
    origin: SavedOrigin = SavedOrigin()

    @field_validator("eps_255")
    @classmethod
    def _in_levels(cls, value: float | None) -> float | None:
        check_units([value or 0])
        return value


class About(Section):
    """Statements of an attack's file: what the attack is, and what it works with.

    Attributes:
        category: Its kind, by what it changes.
        does: Its rule in some words.
        paper: The paper's number at arXiv, or its address.
        gradients: Number of gradients per image, an expression of the attack's settings and of the
            number K of budgets; those of an ensemble count once for each of its M members. Of a
            library's attack it is only counted.
        forwards: Number of passes an image besides, likewise.
        targeted: True if the attack may have target labels, or `only` if it must.
        norms: Norms of its balls.
        members: Least number of the source's members.
        needs: Parts that the source's network must have.
    """

    category: Literal[
        "gradient", "input", "backward", "feature", "ensemble", "targeted", "library", "own"
    ] = "own"
    does: str = ""
    paper: str = ""
    gradients: str | int = ""
    forwards: str | int = 0
    targeted: bool | Literal["only"] = True
    norms: Annotated[tuple[Norm, ...], BeforeValidator(listed)] = ("linf", "l2")
    members: PositiveInt = 1
    needs: Annotated[tuple[Need, ...], BeforeValidator(listed)] = ()


class AttackSettings(Section):
    """The producer of adversarial images.

    Attributes:
        about: Statements of the attack's file.
        kind: `crafted` by an attack on the source, `saved` in files, or `none`.
        label: Name in runs, tables and headings, see `attack_label`.
        settings: All keys of the attack's file, resolved.
        source: Model that a saved set says it was crafted on.
    """

    kind: Literal["crafted", "saved", "none"] = "crafted"
    name: Name
    label: str
    norm: Norm = "linf"
    target_label: TargetLabelRule | None = None
    about: About = About()
    settings: dict[str, Any] = Field(default_factory=dict)
    saved: SavedSettings | None = None
    source: str = ""

    def gradients(self, budgets: int, members: int) -> float | None:
        """Return the number of gradients per image of each member of the source, if it is stated.

        A library's attack states none (`counted`), nor does a file without `about`.
        """
        names = {"K": budgets, "M": members, **self.settings}
        try:
            return float(eval(str(self.about.gradients), {"__builtins__": {}}, names))
        except Exception:  # of any kind, as a user's formula may raise it
            return None


class DefenceSettings(Section):
    """A defence; the keys of `conf/defence/`, of which `_target_` may have more of its own.

    Attributes:
        repeats: Draws of a randomised defence, whose majority decides.
    """

    model_config = ConfigDict(extra="allow")
    repeats: PositiveInt = 1

    @property
    def call(self) -> dict[str, Any]:
        """Keys that build the defence: `_target_` and its arguments."""
        return dict(self.model_extra or {})


class EpsilonSettings(Section):
    """The budgets in units of 1/255, ascending, without 0, which is always evaluated."""

    grid: Budgets
    reference: Annotated[Budget, Field(gt=0)] | None = None

    @field_validator("grid")
    @classmethod
    def _ascend(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        positive = tuple(sorted(float(value) for value in values if value > 0))
        if not positive:
            raise ValueError(f"{list(values)} holds no budget above 0")
        check_units(positive)
        return positive


def reference_budget(budgets: Sequence[float]) -> float:
    """Return the reference budget where none is named: 8/255 if it is there, else the largest."""
    return 8.0 if 8.0 in budgets else max(budgets, default=0.0)


def job_name(label: str, source: str) -> str:
    """Return a short name of a job, such as `bim vgg16`."""
    return f"{label} {'' if source == 'unknown' else source}".strip()


class DiagnosticSettings(Section):
    """Diagnostics beside the predictions, while models and perturbations are at hand.

    Attributes:
        tables: Names of tables of `src.measure`, or `all` that need no number of their own.
    """

    bisection: Annotated[int, Field(ge=0, le=20)] = 0  # more is finer than float32 pixels
    iterations: Annotated[
        tuple[PositiveInt, ...], BeforeValidator(listed), AfterValidator(distinct)
    ] = ()
    tables: Annotated[tuple[Name, ...], BeforeValidator(listed), AfterValidator(distinct)] = ()
    n_images: PositiveInt | None = None

    def ask_for(self, table: str) -> bool:
        """Tell whether a table is asked for by its name."""
        return bool({table, "all"} & {*self.tables})


class CheckSettings(Section):
    """Check of clean accuracies against `expected_accuracy`, and the effect of a miss."""

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    action: Literal["stop", "warn"] = "stop"


class TrainerSettings(Section):
    """The device and the batches; the keys of `conf/trainer/`.

    `auto` stands for what the device decides, see `src.run.trainer.for_device`.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: PositiveInt | Literal[-1, "auto"] | Annotated[list[int], Field(min_length=1)] = 1
    num_nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    attack_precision: Literal["32-true", "bf16"] = "32-true"
    batch_size: PositiveInt | Literal["auto"] = "auto"
    gradient_batch: PositiveInt | None = None
    gradients_per_batch: PositiveInt | None = None
    num_workers: NonNegativeInt = 0
    fold_batch_norms: bool = True
    progress_bar: bool = True

    @property
    def distributed(self) -> bool:
        """True if several processes share a job's images."""
        single = self.devices == 1 or (isinstance(self.devices, list) and len(self.devices) == 1)
        return not single or self.num_nodes > 1 or self.strategy == "ddp"

    @property
    def max_gradient_batch(self) -> int:
        """Most images in one gradient batch, all budgets together; known with the device."""
        return self.gradient_batch or int(self.batch_size)


class TrainingSettings(Section):
    """Recipe that fine-tunes models without weights; keys and defaults of `conf/training/quick`."""

    device: Literal["cpu", "gpu"] | None = None
    epochs: PositiveInt = 5
    batch_size: PositiveInt = 64
    optimizer: Literal["adamw", "sgd"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 5e-4
    gradient_clip: Annotated[float, Field(ge=0, le=1000)] = 0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = 0
    crop_padding: NonNegativeInt = 2
    flip: bool = True
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class TrackingSettings(Section):
    """Tracking store; without `uri` a SQLite file in `directory`."""

    name: Literal["mlflow", "none"]
    uri: str | None = None
    directory: str = "mlruns"
    tables: bool | None = None


class ReportSettings(Section):
    """The page of a sweep; the keys of `conf/report/`."""

    name: str = "default"
    examples: NonNegativeInt = 4
    figures: bool = False


class StoreSettings(Section):
    """Store of rows; the keys of `store`."""

    images_mb: Annotated[float, Field(ge=0)] = 300


class ReportCommand(Section):
    """Settings of `python -m src.report`; the keys of `conf/report.yaml`."""

    folder: Annotated[tuple[str, ...] | None, BeforeValidator(listed)]
    out: str | None
    report: ReportSettings
    cache_dir: str


class Settings(Section):
    """One job; the keys of `conf/config.yaml`.

    Attributes:
        source: Models whose gradients make the adversarial images; several form an ensemble.
        defences: Defences that targets are evaluated behind, beside none.
        source_defence: Defence that the source is attacked behind.
        source_draws: Draws of it that each gradient is the mean over.
        storage: Format of the primary variant; None: as a saved set holds them.
        model: The models that the job names.
        defence: The defences that it names.
    """

    attack: AttackSettings
    source: ModelNames
    targets: Annotated[ModelNames, Field(min_length=1)]
    ensemble: Literal["logits", "probabilities", "loss"] = "logits"
    defences: Annotated[tuple[Name, ...], AfterValidator(distinct)] = ()
    source_defence: Name = PLAIN
    source_draws: PositiveInt = 1
    epsilon: EpsilonSettings
    protocol: Protocol | None = "joint"
    storage: Literal["float32", "uint8"] | None = "float32"
    variants: Annotated[tuple[Variant, ...], BeforeValidator(listed), AfterValidator(distinct)] = ()
    controls: bool = False
    save_adversarial: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    n_images: PositiveInt | None = None
    dataset: DatasetSettings
    model: dict[str, ModelSettings]
    defence: dict[str, DefenceSettings] = Field(default_factory=dict)
    trainer: TrainerSettings = TrainerSettings()
    training: TrainingSettings = TrainingSettings()
    tracking: TrackingSettings = TrackingSettings(name="none")
    diagnostics: DiagnosticSettings = DiagnosticSettings()
    clean_accuracy_check: CheckSettings = CheckSettings()
    report: ReportSettings = ReportSettings()
    store: StoreSettings = StoreSettings()
    rerun: bool = False
    cache_dir: str = "cache"
    sweep: str | None = None

    @model_validator(mode="after")
    def _check_defences(self) -> Self:
        if self.protocol == "common" and not self.defences:
            raise ValueError("protocol=common compares defences; defences=[none,jpeg] names some")
        if self.source_draws > 1 and self.source_defence == PLAIN:
            raise ValueError(f"source_draws={self.source_draws} needs a source_defence that draws")
        if self.source_draws > 1 and self.layers:
            raise ValueError(
                f"source_draws={self.source_draws}: attack={self.attack.name} reads a layer, whose "
                "output would differ from draw to draw; source_draws=1"
            )
        return self

    @model_validator(mode="after")
    def _check_attack(self) -> Self:
        """Refuse what the attack's file does not state; a saved set has budgets of its own."""
        attack, about, rule = self.attack, self.attack.about, self.attack.target_label
        if attack.kind != "crafted":
            return self
        check_among("epsilon.reference", self.epsilon.reference or 0, self.epsilon.grid)
        who, steps = f"attack={attack.name}", attack.settings.get("steps", 1)
        last = max(self.diagnostics.iterations, default=0)
        if isinstance(steps, int) and last > steps:
            raise ValueError(
                f"diagnostics.iterations={last}: {who} ends after {steps} steps; set attack.steps "
                "to at least the largest iteration"
            )
        if rule is not None and not about.targeted:
            raise ValueError(f"attack.target_label={rule}: {who} takes no target labels")
        if rule is None and about.targeted == "only":
            raise ValueError(
                f"attack.target_label=null: {who} needs target labels: data, least_likely, random "
                "or next"
            )
        if attack.norm not in about.norms:
            norms = " or ".join(about.norms)
            raise ValueError(f"attack.norm={attack.norm}: the balls of {who} are of norm={norms}")
        if len(self.source) < about.members:
            raise ValueError(
                f"source={self.source_name}: {who} is for ensembles of {about.members} models or "
                "more; source=[a,b] is one"
            )
        return self

    @property
    def source_name(self) -> str:
        """The source's name, of an ensemble `a+b`; empty where nothing is attacked."""
        return "+".join(self.source) or self.attack.source

    @property
    def evaluated(self) -> tuple[Evaluated, ...]:
        """Targets, and each behind every defence."""
        return behind_each(self.targets, self.defences)

    @property
    def attacked(self) -> str:
        """The source's name with the defence that it is attacked behind, see `split_source`."""
        return str(Evaluated(self.source_name, self.source_defence))

    @property
    def layers(self) -> tuple[str | None, ...]:
        """Layers of the source that the attack reads, one a member; empty if it reads none."""
        if "layers" not in self.attack.about.needs and "objective" not in self.attack.settings:
            return ()
        layer = self.attack.settings.get("layer")
        if isinstance(layer, list):
            return tuple(layer)
        return tuple(layer or self.model[name].feature_layer for name in self.source)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that the job builds, the sources first."""
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

    @property
    def step_255(self) -> float:
        """Length of the attack's steps at the reference budget, in units of 1/255."""
        stated = self.attack.settings
        relative = stated.get("relative_step_size") or 1 / stated.get("steps", 1)
        return float(stated.get("step_size_255") or relative * self.reference)

    @property
    def job(self) -> str:
        """A short name of the job, such as `bim vgg16`."""
        return job_name(self.attack.label, self.attacked)
