"""Sections of the config: frozen, typed, and checked before anything is read or built.

A field's name is the key in the config. Its type defines the allowed values. The files in `conf/`
explain the keys.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..utils.about import listed
from ..utils.package import CLONE, INSTALLED, find_asset
from .fields import Budget, Budgets, Distinct, Name, Place, check_units

TargetLabelRule = Literal["data", "least_likely", "random", "next", "next_image"]
PROGRAM_KEYWORDS = ("targeted", "true_labels", "seeds", "pool", "max_batch", "training_images")
"""Keyword arguments of attacks that the program sets."""
DEFAULT_TARGETS = ("vgg16", "resnet50", "inception")
"""Default targets in addition to the source."""
ONNX = "src.models.onnx_network"
"""`_target_` of a network in an ONNX file."""
Side = Annotated[int, Field(gt=0, le=4096)]
"""Side of images in pixels."""


class Section(BaseModel):
    """Section of the config: frozen, and other keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class CallSettings(Section):
    """Section with keys for a callable: `_target_` and its arguments."""

    model_config = ConfigDict(extra="allow")

    @property
    def call(self) -> dict[str, Any]:
        """The keys for the callable."""
        return dict(self.model_extra or {})


class ModelSettings(Section):
    """Model of the catalogue; the keys of `conf/model/`.

    Attributes:
        network: `_target_`, a callable that returns a module from normalised images to logits,
            and its arguments; `num_classes` and `image_size` are set from the data if null.
        url: Address of the weights' file for download.
        weights: A file in the current folder or the program's; `included`; or None.
        averaged: Take averaged weights if the file has others, too; False: take the others.
        training_of: Network that this model is another training of, with equal settings; None: by
            its name, which ends in `_seedN`.
    """

    network: dict[str, Any]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)] | None = None
    input_size: Side | None = None
    channels: Literal["RGB", "BGR"] = "RGB"
    url: str | None = None
    weights: str | None = None
    averaged: bool = True
    expected_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    feature_layer: str | None = None
    training_of: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _include_weights(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Use the weights in an ONNX file, which is complete."""
        included = {"weights": "included"} if ONNX in str(values.get("network")) else {}
        return included | values

    @field_validator("weights")
    @classmethod
    def _exist(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Return the file's path; without a `url`, refuse a file that does not exist."""
        if value in (None, "included"):
            return value
        path = Path(str(value)).expanduser()
        if not path.is_file() and path.parts[:1] in ((CLONE,), (INSTALLED,)):
            path = find_asset("/".join(path.parts[1:]))  # such as src/assets/...
        if not path.is_file() and not info.data.get("url"):
            raise ValueError(
                f"{value} is not a file. Use a file, null (train here) or included (the network is "
                "already trained)"
            )
        return str(path)

    @property
    def missing(self) -> str | None:
        """The weights' file if it has a `url` and does not exist yet."""
        named = self.url and self.weights not in (None, "included")
        return self.weights if named and not Path(str(self.weights)).is_file() else None


def network_settings(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model that decide what it computes, without its weights.

    `channels` are left out if they are RGB: earlier records, and keys of weights, lack them.
    """
    names = ("network", "mean", "std", "input_size", "channels")
    return {name: model[name] for name in names if name in model and model[name] != "RGB"}


class DatasetSettings(CallSettings):
    """Images; the keys of `conf/dataset/`, plus further keys for the loader."""

    name: Name
    seed: NonNegativeInt = 0
    image_size: Side | None = None
    resize: Side | None = None
    num_classes: PositiveInt | None = None
    class_names: list[str | int] | str | None = None
    images: str | None = None

    @property
    def has_loader(self) -> bool:
        """True if the data set loads images; False for the images of a saved set."""
        return "_target_" in self.call


class DefenceSettings(CallSettings):
    """Defence; the keys of `conf/defence/`, plus further keys for `_target_`.

    Attributes:
        repeats: Number of draws of a randomised defence; the majority decides.
    """

    repeats: PositiveInt = 1


class EpsilonSettings(Section):
    """Budgets in units of 1/255, ascending, without 0, which is always evaluated.

    Attributes:
        below_one: Take a grid whose budgets are all below 1/255.
    """

    below_one: bool = False
    grid: Budgets
    reference: Annotated[Budget, Field(gt=0)] | None = None

    @field_validator("grid")
    @classmethod
    def _ascend(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if not (positive := tuple(sorted(float(value) for value in values if value > 0))):
            raise ValueError(f"{list(values)} has no budget above 0")
        if not info.data.get("below_one"):
            check_units(positive, otherwise=" If not, set epsilon.below_one=true")
        return positive


def reference_budget(budgets: Sequence[float]) -> float:
    """Return the default reference budget: 8/255 if the budgets include it, else the largest."""
    return 8.0 if 8.0 in budgets else max(budgets, default=0.0)


def job_name(label: str, source: str) -> str:
    """Return a short name of a job, such as `bim vgg16`."""
    return f"{label} {'' if source == 'unknown' else source}".strip()


class DiagnosticSettings(Section):
    """Diagnostics computed together with the predictions.

    Attributes:
        tables: Names of tables of `src.measure`, or `all`.
    """

    tables: Distinct[Name] = ()
    n_images: PositiveInt | None = None


class ChartSettings(Section):
    """Chart of a table: a column of values by two other columns.

    Attributes:
        y: Column of numbers.
        x: Column of the other axis; a number makes curves, a text makes points.
        colour: Column that tells the curves or points apart; empty: none.
        dash: Column that tells curves of one colour apart.
        marks: `points` or `lines`; or `rows`, `ticks` or `bars`, which run to the right, below each
            other for each `x`. Empty: lines if `x` is a number, else points.
        names: True: the names of `colour` are beside the points, and there is no legend.
        percent: True: the values are shares, shown in percent.
        y_scale: Scale of the values.
        x_scale: Scale of `x`, if it is a number.
        titles: Titles of axes and of the legend, by column; empty: none.
    """

    y: str
    x: str = "source"
    colour: str = "source"
    dash: str = ""
    marks: Literal["", "points", "lines", "rows", "ticks", "bars"] = ""
    names: bool = False
    percent: bool = False
    y_scale: Literal["linear", "sqrt", "log"] = "linear"
    x_scale: Literal["linear", "sqrt", "log"] = "linear"
    titles: dict[str, str] = {}

    def title(self, column: str) -> str | None:
        """Return the title of a column, or None if it has none."""
        return self.titles.get(column, column) or None

    def check(self, columns: Collection[str]) -> None:
        """Refuse columns that a table does not have; `source` is the job's."""
        for key in ("y", "x", "colour", "dash"):
            available = (*columns, "source", *[""] * (key in ("colour", "dash")))
            if (column := getattr(self, key)) not in available:
                raise ValueError(f"chart.{key}={column}: the table has no such column")


class MeasurementSettings(CallSettings):
    """Measurement of a user's: `_target_` and its arguments, and an optional chart."""

    chart: ChartSettings | None = None


class CheckSettings(Section):
    """Check of clean accuracies against `expected_accuracy`, and the action on a miss."""

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02
    action: Literal["stop", "warn"] = "stop"


class TrainerSettings(Section):
    """Device and batches; the keys of `conf/trainer/`.

    The device decides values of `auto`, see `src.run.trainer.for_device`.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: PositiveInt | Literal[-1, "auto"] | Annotated[list[int], Field(min_length=1)] = 1
    num_nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["32-true", "tf32", "bf16-mixed"] = "32-true"
    attack_precision: Literal["32-true", "tf32", "bf16"] = "32-true"
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


class TrainingSettings(Section):
    """Recipe for models without weights; keys and defaults of `conf/training/quick`."""

    device: Literal["cpu", "gpu"] | None = None
    n_images: PositiveInt | None = None
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
    attack: str | None = None
    eps: Annotated[float, Field(gt=0, le=255)] = 8
    steps: PositiveInt | None = None
    clean_share: Annotated[float, Field(ge=0, lt=1)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    evaluate_on: PositiveInt | None = 1000

    @model_validator(mode="after")
    def _check_attack(self) -> Self:
        """Refuse settings of an attack if there is none."""
        set_ = self.model_dump(include={"eps", "steps", "clean_share"}, exclude_defaults=True)
        if set_ and self.attack is None:
            raise ValueError(f"{', '.join(set_)}: adversarial training needs training.attack=NAME")
        return self


def _pairs(value: Any) -> Any:
    """Return a mapping as pairs of strings, which are hashable; None: no pairs."""
    return (
        tuple((str(key), str(item)) for key, item in value.items())
        if isinstance(value, Mapping)
        else value or ()
    )


class TrackingSettings(CallSettings):
    """Tracking store: `_target_` and its arguments; without it nothing is tracked."""

    name: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    tables: bool | None = None
    tags: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_pairs)] = ()


class ReportSettings(Section):
    """Report of a sweep; the keys of `conf/report/`."""

    name: str = "default"
    examples: NonNegativeInt = 60
    images: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(listed)] = ()
    confidence_groups: Annotated[int, Field(ge=2, le=10)] = 3
    tries: bool = False


class CacheSettings(Section):
    """Cache of rows and trained weights; the keys of `cache`."""

    dir: Annotated[Place, Field(min_length=1)] = "cache"
    images_mb: Annotated[float, Field(ge=0)] = 300
    total_gb: Annotated[float, Field(ge=0)] = 20


class PlanSettings(Section):
    """Plan of a sweep; the keys of `conf/plan/`.

    Attributes:
        only: Print the cost of the sweep, and compute nothing.
    """

    only: bool = False


class ReportCommand(Section):
    """Settings of `python -m src.report`; the keys of `conf/report.yaml`."""

    folder: dict[str, str] | Annotated[tuple[str, ...] | None, BeforeValidator(listed)]
    out: str | None
    report: ReportSettings
    cache: CacheSettings
