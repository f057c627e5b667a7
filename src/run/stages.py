"""Stages of a job: its plan, data and models, and the context that combines them."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from inspect import signature
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from ..artifacts.tables import IMAGE
from ..attacks import Fitted
from ..cache.keys import (
    attack_parts,
    clean_parts,
    content_key,
    defence_parts,
    described,
    fit_parts,
    lasting_key,
    rows_place,
)
from ..cache.rows import Rows
from ..config.attack_settings import AttackSettings, stated_about
from ..config.sections import TargetLabelRule
from ..config.settings import Settings
from ..data import Batch, ImageDataset
from ..defences import Defence, Defended
from ..images.attacker import Attack, keeps_images_apart
from ..images.saved import SavedImages
from ..measure.attack_cost import AdversarialImages
from ..measure.protocol import Measurement, Needs
from ..measure.registry import CRAFTED, measurements_of
from ..utils.about import About
from ..utils.model_names import TARGET_COLUMNS, ModelRef
from ..utils.processes import command_key


@dataclass(frozen=True)
class Planned:
    """A job whose settings are valid.

    Attributes:
        settings: Settings, completed from the saved set if there is one.
        attack: The attack as a function; None without an attack.
        defences: The job's defences by name.
        saved: Saved set that replaces the attack, if any.
        call: Identity of a call from Python, because keys cannot identify its functions and
            modules.
        measurements: Measurements that the config names.
        on_first_batch: Called after the first attacked batch with the seconds per gradient and the
            number of gradients that the job's pass still needs.
    """

    settings: Settings
    attack: Attack | None
    defences: Mapping[str, Defence]
    saved: SavedImages | None = None
    call: str = ""
    measurements: Sequence[Measurement] = ()
    on_first_batch: Callable[[float, float], None] | None = None

    @cached_property
    def fitted(self) -> Fitted | None:
        """The part of the attack that needs a fit; None if there is none."""
        part_class = getattr(getattr(self.attack, "func", self.attack), "fitted", None)
        keywords = getattr(self.attack, "keywords", {})
        if part_class is None or keywords.get("file") is not None:
            return None
        part: Fitted = part_class(
            **{key: keywords[key] for key in keywords if key in signature(part_class).parameters}
        )
        return part

    @property
    def fit_rule(self) -> TargetLabelRule | None:
        """Rule of the target labels in the attack's fit; None: the fit uses the true classes."""
        aimed = getattr(self.fitted, "reads_target_labels", True)
        return self.settings.attack.target_label if aimed else None


@dataclass(frozen=True)
class Data:
    """A job's images.

    Attributes:
        diagnosed: Images of the diagnostics.
        pool: Images that attacks may mix in; None without an attack.
        fit_images: Training images that the attack is fitted on; None for an attack without a fit.
        device: Device that processes the images.
    """

    images: ImageDataset
    diagnosed: ImageDataset
    pool: Batch | None
    device: torch.device
    fit_images: ImageDataset | None = None


@dataclass(frozen=True)
class Model:
    """A classifier, frozen and in evaluation mode.

    Attributes:
        digest: Digest of its weights.
        parts: Named parts of its key: everything that decides its logits, except the trainer's
            settings. None stands for a part without a digest.
        expected_accuracy: Expected share of correctly classified clean images, from its settings
            or else from its weights.
        as_built: The classifier with its layers as built, without folded batch norms; kept for
            attacks that train it.
    """

    classifier: nn.Module
    digest: str
    parts: Mapping[str, Any]
    expected_accuracy: float | None = None
    as_built: nn.Module | None = None

    @property
    def key_parts(self) -> dict[str, Any]:
        """The parts, with this command's key for one without a digest."""
        return {name: command_key() if its is None else its for name, its in self.parts.items()}

    @cached_property
    def key(self) -> str:
        """Key of everything that decides its logits, except the trainer's settings."""
        return lasting_key(self.key_parts)


@dataclass(frozen=True)
class JobContext:
    """Everything that decides the rows of a job.

    Attributes:
        models: Source and targets by name, plus the ensemble if there are several sources.
    """

    planned: Planned
    data: Data
    models: Mapping[str, Model]

    @property
    def settings(self) -> Settings:
        """The job's settings."""
        return self.planned.settings

    @property
    def images(self) -> ImageDataset:
        """The job's images."""
        return self.data.images

    @property
    def diagnosed(self) -> ImageDataset:
        """The images used for diagnostics."""
        return self.data.diagnosed

    @property
    def classifiers(self) -> Sequence[ModelRef]:
        """Models, then targets behind defences, then the source behind `source_defence`."""
        settings = self.settings
        pairs = [*map(ModelRef.parse, self.models), *settings.evaluated]
        if settings.source:  # a saved set may have none
            pairs.append(settings.source_model)
        return [pair for pair in dict.fromkeys(pairs) if pair.model in self.models]

    @cached_property
    def networks(self) -> dict[ModelRef, nn.Module]:
        """The classifiers by name."""
        return {pair: self._network(pair) for pair in self.classifiers}

    def _network(self, pair: ModelRef) -> nn.Module:
        network, settings, defence = self.models[pair.model].classifier, self.settings, pair.defence
        if not pair.is_defended:
            return network
        repeats = settings.defence[defence].repeats
        return Defended(network, self.planned.defences[defence], repeats, settings.seed, defence)

    def model_key(self, pair: ModelRef) -> str:
        """Return the key of everything that decides the logits of a model behind a defence."""
        key = self.models[pair.model].key
        if not pair.is_defended:
            return key
        return content_key([key, lasting_key(defence_parts(self.settings, pair.defence))])

    @property
    def target_keys(self) -> dict[str, str]:
        """Keys of everything that decides the targets' logits, by name, e.g. `resnet50@jpeg`."""
        return {str(pair): self.model_key(pair) for pair in self.settings.evaluated}

    @property
    def _source_keys(self) -> list[str]:
        return [self.models[name].key for name in self.settings.source]

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
        settings, planned, images = self.settings, self.planned, self.images
        mixed = self.data.pool if _may_mix(settings.attack) else None
        batches = None
        if not self.images_apart:
            dealt = [images.digest(), images.dealt.tolist()]
            batches = [dealt, settings.budgets, self.attack_batch, self.gradient_batch]
        others = {
            "num_classes": images.num_classes,
            "image_size": images.image_size,
            "call": planned.call,
            "mixed_images": mixed and _digest(mixed),
            "batches": batches,
            "fit": self.fit_key(0.0) if planned.fitted else None,
        }
        saved = None if planned.saved is None else planned.saved.digest
        return attack_parts(settings, self.data.device.type, saved, self._source_keys, others)

    def fit_key(self, eps_255: float) -> str:
        """Return the key of everything that decides a fit of the attack.

        A budget of 0 stands for a fit that serves all budgets.
        """
        return lasting_key(self._fit_parts(eps_255))

    def _fit_parts(self, eps_255: float) -> dict[str, Any]:
        planned, images = self.planned, self.data.fit_images
        assert images is not None and planned.fitted is not None
        facts = planned.call, repr(planned.fitted), [planned.fit_rule, images.digest()]
        return fit_parts(self.settings, eps_255, *facts, self._source_keys)

    @property
    def key(self) -> str:
        """Key of the job, of the keys of its rows: equal keys mean equal tables and names."""
        settings, images = self.settings, self.images
        measured = [*measurements_of(settings), *self.planned.measurements]
        parts = [*parts_of(self, [its for its in measured if its not in CRAFTED])]
        keys = [[part.measurement.name, str(part.target), *part.place] for part in parts]
        chosen = {id(its.index): its.index.tolist() for its in parts}
        chosen.pop(id(images.indices), None)  # their digest stands for them
        pairs = any(its.measurement.paired for its in parts) and images.partners.tolist()
        return content_key([images.digest(), settings.attacked, keys, [*chosen.values()], pairs])

    @property
    def key_parts(self) -> dict[str, str]:
        """Parts of all keys of the job's rows by name: short values as they are, others as digests.

        No part contains another one: models and defences are apart from attack and fit.
        """
        settings = self.settings
        parts: dict[str, Any] = {**self._attack_parts, "images": self.images.digest()}
        parts["fit"] = self._fit_parts(0.0) if self.planned.fitted else {}
        for part in (parts, parts["fit"]):
            for name in ("source", "source_defence"):
                part.pop(name, None)
        parts["model"] = {name: self.models[name].key_parts for name in settings.models}
        parts["defence"] = {
            name: {**defence_parts(settings, name), "seed": {}} for name in settings.defence
        }
        return described(parts)

    @property
    def gradient_batch(self) -> int:
        """Largest number of images in a gradient batch of the attack."""
        largest = self.settings.gradient_batch(self.data.device.type, self.images.image_size)
        return max(1, largest // self.settings.source_draws)  # draws share memory

    @cached_property
    def attack_batch(self) -> int:
        """Images that are attacked at once: a batch, unless they need too many gradients.

        A killed job loses at most one batch. The limit does not depend on measured time, because a
        different batch size may change the rows.
        """
        settings, members = self.settings, len(self.settings.source)
        gradients = settings.attack.gradients(len(settings.budgets), members)
        size = int(settings.trainer.batch_size)
        if not gradients:
            return size
        limit = settings.trainer.gradients_per_batch
        if limit is None:
            pixels = max(64, self.images.image_size) ** 2
            limit = (20_000 if self.data.device.type == "cpu" else 1_000_000) * 64**2 // pixels
        return max(1, min(size, int(limit / (gradients * members * settings.source_draws))))

    @property
    def fit_gradients(self) -> float:
        """Number of gradients that the attack's fits need, for all budgets."""
        settings, images = self.settings, self.data.fit_images
        if images is None:
            return 0.0
        stated = settings.attack.fit_gradients(len(settings.budgets), len(images)) or 0.0
        return stated * len(settings.source) * settings.source_draws

    @property
    def images_apart(self) -> bool:
        """True if an image's perturbation does not depend on the other images in its batch."""
        return self.planned.attack is None or keeps_images_apart(self.planned.attack)

    @cached_property
    def common_parts(self) -> dict[str, Any]:
        """Parts of all rows' keys: code and arithmetic."""
        return clean_parts(self.settings, self.data.device.type)


def _may_mix(attack: AttackSettings) -> bool:
    """Return True if an attack may use other images of the data set.

    A file that is based on another one inherits its statement. So the statement of an attack's
    function comes first, then that of a file that has no category of this program. Parts that a
    file adds may mix.
    """
    parts = json.dumps([its for key, its in attack.settings.items() if key != "_target_"])
    stated = stated_about(attack.settings)
    if isinstance(stated, About):
        return stated.mixes or '"_target_"' in parts
    return attack.about.mixes or attack.about.category != "own" or '"_target_"' in parts


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
        parts = self.needs.key_parts
        return rows_place(
            job.common_parts, attack, models, measurement.stored_as, self.budgets, parts
        )


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
                own = pc.utf8_slice_codeunits(table["image"], 0, 16)
                table = table.set_column(table.column_names.index("image"), "image", own)
            for part in keys:
                mine = table.filter(pc.equal(table["key"], part.place[1]))
                mine = mine.filter(pc.is_in(mine["index"], pa.array(part.index)))
                if len(mine):
                    rows[part] = mine.drop_columns("key")
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
            states no number.
        predictions: Number of predictions, including a defence's draws.
    """

    images: int
    gradients: float | None
    predictions: int


def work_of(job: JobContext, missing: Mapping[Part, np.ndarray]) -> Work:
    """Return the work for the missing images, from what attack and measurements state."""
    settings, members = job.settings, len(job.settings.source)
    predictions, runs, lacking = 0, Counter[int](), Counter[int]()  # runs: images by budgets
    for part, index in missing.items():
        measurement = part.measurement
        if measurement.name == "crafting":
            lacking.update(index.tolist())
        runs[1] += len(index) * measurement.attacks(settings)
        if part.target is not None:
            passes = measurement.passes(settings) * _passes_of(job, part.target)
            predictions += len(index) * passes
    images = len(np.unique(np.concatenate([*missing.values(), []])))
    runs.update(lacking.values())
    total = 0.0
    for budgets, count in runs.items():
        stated = settings.attack.gradients(budgets, members)
        if count and stated is None:
            return Work(images, None, predictions)
        total += count * (stated or 0) * members * settings.source_draws
    return Work(images, total, predictions)


def _passes_of(job: JobContext, target: ModelRef) -> int:
    """Return the number of forward passes per image that a target classifies."""
    members = len(target.members)
    if not target.is_defended:
        return members
    copies = int(getattr(job.planned.defences[target.defence], "copies", 1))
    return members * copies * job.settings.defence[target.defence].repeats
