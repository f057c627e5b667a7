"""Stages of a job: its plan, data and models, and the context that combines them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from inspect import signature, unwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from ..artifacts.tables import IMAGE
from ..attacks.training_images import in_levels
from ..cache.code_digest import code_of
from ..cache.keys import content_key, lasting_key
from ..cache.rows import Rows
from ..config.sections import CheckSettings, TargetLabelRule, TrainerSettings
from ..config.settings import Settings
from ..data import Batch, ImageDataset
from ..defences import Defence, Defended
from ..images.attacker import Attack, keeps_images_apart
from ..images.saved import SavedImages
from ..measure.attack_cost import AdversarialImages, AttackCost
from ..measure.protocol import Job, Measurement, Needs
from ..utils.model_names import TARGET_COLUMNS, ModelRef
from ..utils.processes import command_key
from .trainer import read_notes

FITTING = 4
"""Version of the fits; it rises if the same key would give another fit."""


@dataclass(frozen=True, eq=False)
class JobAttack:
    """The maker of a job's adversarial images: an attack, or files.

    Attributes:
        function: The attack; None: the images are those of a saved set, or there are none.
        name: Name of the attack.
        target_label: Rule of the target labels; None: an untargeted attack.
        mixes: True if it may use other images of the data set.
        draws: Number of draws of the source's defence per gradient.
        stated: See `Settings.gradients`.
        seed: Seed of all random numbers.
        precision: Precision of the gradients.
        augmentation: Padding of crops, and flips, of training images in a fit.
        make_parts: Makes `parts` when they are first needed, because files may change until then.
    """

    function: Attack | None
    name: str
    target_label: TargetLabelRule | None
    mixes: bool
    draws: int
    stated: Callable[[int], float | None]
    seed: int
    precision: str
    augmentation: tuple[int, bool]
    make_parts: Callable[[], Mapping[str, Any]]

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """Parts of the key that do not depend on images and models."""
        return self.make_parts()

    @cached_property
    def keywords(self) -> Mapping[str, Any]:
        """The attack's keywords with their values, or defaults."""
        parameters = {} if self.function is None else signature(self.function).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    @property
    def is_fitted(self) -> bool:
        """True if the attack needs training images; one that reads a file instead needs none."""
        from_file = self._stated("fitted") and self.keywords.get("file") is not None
        return "training_images" in self.keywords and not from_file

    @property
    def as_built(self) -> bool:
        """True if the attack trains weights, and so needs the source's layers as built."""
        return self.is_fitted and bool(self._stated("as_built"))

    def _stated(self, name: str) -> Any:
        """Return an attribute of the attack's function; None without it."""
        function: Any = getattr(self.function, "func", self.function)
        return getattr(unwrap(function, stop=lambda inner: hasattr(inner, name)), name, None)

    @property
    def fit_rule(self) -> TargetLabelRule | None:
        """Rule of the target labels in the attack's fit; None: the fit uses the true classes."""
        return None if self.as_built else self.target_label

    @cached_property
    def fit_settings(self) -> Any:
        """Settings that decide a fit: those of the part that is fitted, or else all."""
        if (part_class := self._stated("fitted")) is None:
            return self.parts["attack"]
        names = signature(part_class).parameters
        return repr(part_class(**{name: self.keywords[name] for name in names}))

    @property
    def keeps_images_apart(self) -> bool:
        """True if an image's perturbation does not depend on the other images in its batch."""
        return self.function is None or keeps_images_apart(self.function)


@dataclass(frozen=True)
class JobDefence:
    """A defence of a job.

    Attributes:
        function: The defence.
        repeats: Number of draws of a randomised defence.
        make_parts: As of an attack.
    """

    function: Defence
    repeats: int
    make_parts: Callable[[], Mapping[str, Any]]

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """Parts of its key, with the seed."""
        return self.make_parts()

    @cached_property
    def key(self) -> str:
        """Key of everything that decides its output."""
        return lasting_key(self.parts)

    @property
    def passes(self) -> int:
        """Number of forward passes for an image that a network classifies behind it."""
        return int(getattr(self.function, "copies", 1)) * self.repeats


@dataclass(frozen=True)
class Planned:
    """A job whose settings are valid, with the objects that need neither images nor models.

    Attributes:
        settings: Settings, completed from the saved set if there is one.
        defences: The job's defences by name.
        code: Digests of the code that the settings name.
        saved: Saved set that replaces the attack, if any.
        call: Identity of a call from Python, because keys cannot identify its functions and
            modules.
        measurements: Measurements that the config names.
        on_first_batch: Called after the first attacked batch with the seconds per gradient and the
            number of gradients that the job's pass still needs.
    """

    settings: Settings
    attack: JobAttack
    defences: Mapping[str, JobDefence]
    code: Mapping[str, str]
    saved: SavedImages | None = None
    call: str = ""
    measurements: Sequence[Measurement] = ()
    on_first_batch: Callable[[float, float], None] | None = None


@dataclass(frozen=True)
class Model:
    """A classifier, frozen and in evaluation mode.

    Attributes:
        digest: Digest of its weights.
        parts: Named parts of its key: everything that decides its logits, except the trainer's
            settings. None stands for a part without a digest.
        expected_accuracy: Expected share of correctly classified clean images, from its settings
            or else from its weights.
        is_stated: True if the expected share is from its settings.
        as_built: The classifier with its layers as built, without folded batch norms; kept for
            attacks that train it.
        trained_on: The images that it was trained on here; None for given weights.
    """

    classifier: nn.Module
    digest: str
    parts: Mapping[str, Any]
    expected_accuracy: float | None = None
    is_stated: bool = False
    as_built: nn.Module | None = None
    trained_on: ImageDataset | None = None

    @property
    def key_parts(self) -> dict[str, Any]:
        """The parts, with this command's key for one without a digest."""
        return {name: command_key() if part is None else part for name, part in self.parts.items()}

    @cached_property
    def key(self) -> str:
        """Key of everything that decides its logits, except the trainer's settings."""
        return lasting_key(self.key_parts)


@dataclass(frozen=True, eq=False)
class JobContext(Job):
    """Everything that decides the rows of a job, and the keys; no settings.

    Attributes:
        name: Name of the job.
        pool: Images that attacks may mix in; None without an attack.
        fit_images: Training images that the attack is fitted on; None for an attack without a fit.
        device: Device that processes the images.
        models: Source and targets by name, plus the ensemble if there are several sources.
        members: Names of the sources.
        attacked: The source behind its defence.
        attack: How its adversarial images are made.
        saved: Saved set that replaces the attack, if any.
        defences: Its defences by name.
        measurements: All tables, in the order in which a batch is measured.
        max_batch: Largest number of images in a gradient batch of the attack.
        trainer: Device and batches.
        arithmetic: Parts of all rows' keys: code and arithmetic.
        check: Check of the clean accuracies.
        cache_dir: Folder of fits and speeds.
        rerun: True: stored rows are computed again.
        speed_key: Name of its speed, see `note`.
        named: Images that the report names.
        examples: Further images of the report, spread over the classes.
        stores_all: True if the adversarial versions of all images are stored.
        call: As in `Planned`, as is `on_first_batch`.
    """

    name: str
    pool: Batch | None
    fit_images: ImageDataset | None
    device: torch.device
    models: Mapping[str, Model]
    members: Sequence[str]
    attacked: ModelRef
    attack: JobAttack
    saved: SavedImages | None
    defences: Mapping[str, JobDefence]
    measurements: Sequence[Measurement]
    max_batch: int
    trainer: TrainerSettings
    arithmetic: Mapping[str, Any]
    check: CheckSettings
    cache_dir: Path
    rerun: bool
    speed_key: str
    named: Sequence[int]
    examples: Sequence[int]
    stores_all: bool
    call: str
    on_first_batch: Callable[[float, float], None] | None

    @property
    def cost_key(self) -> str:
        """Name of the attack's counted gradients per image and budget, see `note`."""
        keys = ("attack", "code", "norm", "target_label")
        parts = [self.attack.parts[key] for key in keys]
        return f"{self.attack.name} ({content_key([*parts, len(self.members), self.attack.draws])})"

    def gradients(self, budgets: int) -> float | None:
        """Return the gradients per image that the attack states, or else took in earlier jobs."""
        stated = self.attack.stated(budgets)
        counted = read_notes(self.cache_dir).get(self.cost_key) if stated is None else None
        return stated if counted is None else budgets * counted

    @property
    def classifiers(self) -> Sequence[ModelRef]:
        """Models, then targets behind defences, then the source behind its defence."""
        pairs = [*map(ModelRef.parse, self.models), *self.evaluated]
        if self.members:  # a saved set may have none
            pairs.append(self.attacked)
        return [pair for pair in dict.fromkeys(pairs) if pair.model in self.models]

    @cached_property
    def networks(self) -> dict[ModelRef, nn.Module]:
        """The classifiers by name."""
        return {pair: self._network(pair) for pair in self.classifiers}

    def _network(self, pair: ModelRef) -> nn.Module:
        network, name = self.models[pair.model].classifier, pair.defence
        if not pair.is_defended:
            return network
        defence = self.defences[name]
        return Defended(network, defence.function, defence.repeats, self.attack.seed, name)

    def model_key(self, pair: ModelRef) -> str:
        """Return the key of everything that decides the logits of a model behind a defence."""
        key = self.models[pair.model].key
        return content_key([key, self.defences[pair.defence].key]) if pair.is_defended else key

    @property
    def target_keys(self) -> dict[str, str]:
        """Keys of everything that decides the targets' logits, by name, e.g. `resnet50@jpeg`."""
        return {str(pair): self.model_key(pair) for pair in self.evaluated}

    @property
    def _source_keys(self) -> list[str]:
        return [self.models[name].key for name in self.members]

    @cached_property
    def attack_key(self) -> str:
        """Key of everything that decides an adversarial image, except the image and its budget."""
        return content_key(self._attack_parts)

    @cached_property
    def _attack_parts(self) -> dict[str, Any]:
        """Parts of the attack's key.

        For an attack without the keyword `seeds` they include the batches, because an image's
        result may depend on the other images in its batch.
        """
        attack, images, mixed, batches = self.attack, self.images, self.pool, None
        if not attack.keeps_images_apart:
            dealt = [images.digest(), images.dealt.tolist()]
            batches = [dealt, self.budgets, self.attack_batch, self.max_batch]
        return {
            **self.arithmetic,
            **attack.parts,
            "source": self._source_keys,
            "num_classes": images.num_classes,
            "image_size": images.image_size,
            "call": self.call,
            "mixed_images": mixed and _digest(mixed) if attack.mixes else None,
            "batches": batches,
            "fit": self.fit_key(0.0) if attack.is_fitted else None,
        }

    def fit_key(self, eps: float) -> str:
        """Return the key of everything that decides a fit for a budget in [0, 1] units.

        A budget of 0 stands for a state that serves all budgets.
        """
        return lasting_key(self._fit_parts(eps))

    def _fit_parts(self, eps: float) -> dict[str, Any]:
        """Return the parts of a fit's key.

        As for trained weights, this program's code and library versions do not count.
        """
        attack, images, parts = self.attack, self.fit_images, self.attack.parts
        assert images is not None
        return {
            "settings": [FITTING, in_levels(eps), self.call, attack.fit_settings, parts["norm"]],
            "code": code_of(parts["attack"], upgrades=False),
            "images": [attack.fit_rule, images.digest(), parts["ensemble"], parts["seed"]],
            "source": self._source_keys,
            "source_defence": parts["source_defence"],
            "passes": [parts["attack_precision"], *attack.augmentation],
        }

    @property
    def key(self) -> str:
        """Key of the job, of its names and its rows' keys: equal keys mean equal tables."""
        images, measured = self.images, self.measurements
        parts = [*parts_of(self, [one for one in measured if not isinstance(one, AttackCost)])]
        keys = [[part.measurement.name, str(part.target), *part.place] for part in parts]
        chosen = {id(part.index): part.index.tolist() for part in parts}
        chosen.pop(id(images.indices), None)  # their digest stands for them
        pairs = any(part.measurement.paired for part in parts) and images.partners.tolist()
        facts = images.digest(), str(self.attacked), keys, [*chosen.values()], pairs
        return content_key([self.attack.name, *facts])

    @property
    def key_parts(self) -> dict[str, str]:
        """Parts of the rows' keys that settings, weights and code do not tell, by name."""
        parts = {f"layers.{name}": model.parts.get("layers") for name, model in self.models.items()}
        parts["mixed_images"] = self._attack_parts["mixed_images"]
        if self.saved is not None:
            parts["saved"] = self.saved.digest
        if self.fit_images is not None:
            parts["fit.images"] = self.fit_images.digest()
            parts["fit.passes"] = self._fit_parts(0.0)["passes"]
        return {name: content_key([part]) for name, part in parts.items()}

    @cached_property
    def attack_batch(self) -> int:
        """Images that are attacked at once: a batch, unless they need too many gradients.

        A killed job loses at most one batch. The limit does not depend on measured time, because a
        different batch size may change the rows.
        """
        gradients, size = self.attack.stated(len(self.budgets)), int(self.trainer.batch_size)
        if not gradients:
            return size
        limit = self.trainer.gradients_per_batch
        if limit is None:
            pixels = max(64, self.images.image_size) ** 2
            limit = (20_000 if self.device.type == "cpu" else 1_000_000) * 64**2 // pixels
        return max(1, min(size, int(limit / gradients)))


def _digest(batch: Batch) -> str:
    """Return a digest of some images and their labels."""
    images = sha256(batch.images.numpy().tobytes()).hexdigest()
    return content_key([batch.labels.tolist(), images])


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a table that share one key in the cache, whatever their images.

    Attributes:
        index: Images that have rows, int64 (n,), ascending.
        target: Target that the rows belong to; None: no single target.
        budgets: Budgets of the adversarial images that the rows need, in units of 1/255.
    """

    job: JobContext
    measurement: Measurement
    needs: Needs
    index: np.ndarray
    target: ModelRef | None
    budgets: tuple[float, ...]

    @property
    def models(self) -> list[ModelRef]:
        """The models that the rows depend on."""
        return [*self.needs.others, *filter(None, [self.target])]

    @cached_property
    def place(self) -> tuple[str, str]:
        """Folder of the rows in the cache, and their key in it.

        The folder stands for the attack or, without an attack, for the models. The key covers
        everything else.
        """
        job, measurement = self.job, self.measurement
        attack = job.attack_key if measurement.attacked else None
        models = sorted(map(job.model_key, self.models))
        others = {"budgets": self.budgets, "parts": measurement.key_parts, "models": models}
        folder = attack or content_key({**job.arithmetic, "models": models})
        return folder, content_key({"table": measurement.stored_as, **others})


def parts_of(
    job: JobContext, measurements: Iterable[Measurement], clean: pa.Table | None = None
) -> Iterator[Part]:
    """Yield the parts of measurements.

    `clean` are the predictions for the clean images; None: all are correct.
    """
    for measurement in measurements:
        needs = measurement.needs(job)
        single = [(eps_255,) for eps_255 in needs.budgets]
        for target in needs.targets:
            index = needs.images
            if measurement.correct_only and clean is not None and target is not None:
                of_target = map(pc.equal, [clean[key] for key in TARGET_COLUMNS], target.columns)
                correct = pc.equal(clean["predicted"], clean["label"])
                rows = clean.filter(pc.and_(pc.and_(*of_target), correct))
                index = np.intersect1d(index, rows["index"].to_numpy())
            for budgets in single if measurement.each_budget else [needs.budgets]:
                yield Part(job, measurement, needs, index, target, budgets)


class StoredRows:
    """The rows of a job in the cache: the one place that reads and writes them."""

    def __init__(self, job: JobContext, cache: Rows) -> None:
        self.job, self.cache = job, cache

    def read(self, parts: Iterable[Part]) -> dict[Part, pa.Table]:
        """Return the stored rows by part, without empty ones; images only with columns of keys."""
        rows = dict[Part, pa.Table]()
        for (origin, name), keys in _places(parts).items():
            measurement = keys[0].measurement
            columns = ["key", "index", "image"]
            only = columns if isinstance(measurement, AdversarialImages) else None
            if (table := self.cache.read(origin, name, only)) is None:
                continue
            paired = measurement.paired
            held = self.job.images.holds(table["index"], table["image"], paired)
            table = table.filter(pa.array(held))
            if paired:
                digests = pc.utf8_slice_codeunits(table["image"], 0, 16)
                table = table.set_column(table.column_names.index("image"), "image", digests)
            for part in keys:
                of_part = table.filter(pc.equal(table["key"], part.place[1]))
                of_part = of_part.filter(pc.is_in(of_part["index"], pa.array(part.index)))
                if len(of_part):
                    rows[part] = of_part.drop_columns("key")
        return rows

    def add(self, tables: Mapping[Part, pa.Table]) -> None:
        """Add the rows of a batch, one file per table, so that a kill loses only one batch."""
        images = self.job.images
        for (origin, name), keys in _places(tables).items():
            by_key = dict[str, pa.Table]()  # two names of a model share a key
            for part in keys:
                rows, (_, key) = tables[part], part.place
                places = np.searchsorted(images.indices, rows["index"].to_numpy())
                digests = images.row_digests(places, part.measurement.paired)
                rows = rows.append_column("key", pa.repeat(key, len(rows)))
                by_key.setdefault(key, rows.append_column(IMAGE, pa.array(digests, pa.string())))
            if any(map(len, by_key.values())):
                self.cache.add(origin, name, pa.concat_tables(by_key.values()))

    def merge(self, parts: Iterable[Part]) -> None:
        """Merge the files of each table, except those of images."""
        for (origin, name), keys in _places(parts).items():
            if not isinstance(keys[0].measurement, AdversarialImages):
                self.cache.merge(origin, name)

    def discard(self, parts: Iterable[Part]) -> None:
        """Remove the rows of parts."""
        for (origin, name), keys in _places(parts).items():
            self.cache.discard(origin, name, [part.place[1] for part in keys])

    def images(self, index: Sequence[int], eps_255: float) -> dict[int, np.ndarray]:
        """Return the stored adversarial images for a budget, float32 (3, H, W), by index."""
        parts = parts_of(self.job, [AdversarialImages(index)])
        (place,) = (part.place for part in parts if part.budgets == (eps_255,))
        name, side = AdversarialImages.name, self.job.images.image_size
        table = self.cache.select(place[0], name, place[1], index) if len(index) else None
        if table is None:
            return {}
        table = table.filter(pa.array(self.job.images.holds(table["index"], table["image"])))
        values = table["adversarial"].combine_chunks().flatten().to_numpy()
        return dict(zip(table["index"].to_pylist(), values.reshape(-1, 3, side, side), strict=True))

    def locked(self, parts: Iterable[Part]) -> AbstractContextManager[None]:
        """Hold the locks of the attacks and models of parts; wait for other processes."""
        return self.cache.locked([part.place[0] for part in parts])


def missing_rows(parts: Iterable[Part], rows: Mapping[Part, pa.Table]) -> dict[Part, np.ndarray]:
    """Return the indices of images without rows, int64 (n,), by part with missing rows."""
    missing = {
        part: np.setdiff1d(part.index, rows[part]["index"].to_numpy() if part in rows else [])
        for part in parts
    }
    return {part: index for part, index in missing.items() if len(index)}


def _places(parts: Iterable[Part]) -> dict[tuple[str, str], list[Part]]:
    """Return parts by the place of their table in the cache."""
    places: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        places.setdefault((part.place[0], part.measurement.stored_as), []).append(part)
    return places


GRADIENT = 3
"""Cost of a gradient in forward passes, for a convolutional network."""


@dataclass(frozen=True)
class Work:
    """Gradients and predictions needed for missing rows.

    Attributes:
        images: Number of images that lack a row.
        gradients: Number of gradients, counted per member of an ensemble; None if the attack
            states no number, and none was counted.
        predictions: Number of predictions, including a defence's draws.
    """

    images: int
    gradients: float | None
    predictions: int


def work_of(job: JobContext, missing: Mapping[Part, np.ndarray]) -> Work:
    """Return the work for the missing images, from what attack and measurements state."""
    predictions, lacking = 0, Counter[int]()
    for part, index in missing.items():
        measurement, target = part.measurement, part.target
        if type(measurement) is AttackCost:
            lacking.update(index.tolist())
        if target is not None:
            passes = job.defences[target.defence].passes if target.is_defended else 1
            predictions += len(index) * measurement.passes * len(target.members) * passes
    images = len(np.unique(np.concatenate([*missing.values(), []])))
    total = 0.0
    for budgets, count in Counter(lacking.values()).items():  # images by number of budgets
        each = job.gradients(budgets)
        if count and each is None:
            return Work(images, None, predictions)
        total += count * (each or 0)
    return Work(images, total, predictions)
