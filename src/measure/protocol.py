"""Interface of measurements: a table, the rows that a job asks for, those of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from src.config.settings import Settings
from src.data import Batch, ImageDataset, to_unit
from src.images.attacker import AdversarialSource
from src.images.storage import AdversarialBatch, AttackedImages
from src.utils.defended_names import PLAIN, Evaluated


class Job(Protocol):
    """Part of a job that cells depend on: settings, images, and those that diagnostics get."""

    @property
    def settings(self) -> Settings:
        """The job's settings."""

    @property
    def images(self) -> ImageDataset:
        """The job's images."""

    @property
    def diagnosed(self) -> ImageDataset:
        """The images of its diagnostics."""

    @property
    def classifiers(self) -> Sequence[Evaluated]:
        """Models, targets behind defences, and the source behind the one it is attacked behind."""


ALL = Evaluated("")
"""Stands for no single target."""


@dataclass(frozen=True, eq=False)
class Cell:
    """Rows of a table that have one key in the cache, whatever images there are.

    Attributes:
        table: Name of the table.
        index: Images whose rows are asked for, int64 (n,), rising.
        target: What the rows are of; `ALL`: of no target more than of another.
        budgets: Budgets of the adversarial images that the rows need, in units of 1/255.
        others: Further models that the rows depend on.
        decides: All else that the rows depend on, beside the image, the arithmetic and, where
            `attacked`, the attack.
        attacked: True if the rows need the attack, or a saved set in its place.
        whole: True if an image's rows depend on the others in its batch, too.
        cached: Images whose rows are added to the cache where a batch has them, likewise; None:
            `index`.
        large: True if the rows are too large to be read together.
        passes: Number of times that the target classifies an image; a gradient counts as three.
        attacks: Number of times that an image is attacked again, with one budget.
    """

    table: str
    index: np.ndarray
    target: Evaluated = ALL
    budgets: tuple[float, ...] = ()
    others: tuple[Evaluated, ...] = ()
    decides: Any = None
    attacked: bool = True
    whole: bool = False
    cached: np.ndarray | None = None
    large: bool = False
    passes: int = 1
    attacks: int = 0

    @property
    def models(self) -> tuple[Evaluated, ...]:
        """The models that the rows depend on."""
        return (*self.others, *([] if self.target == ALL else [self.target]))


@dataclass(frozen=True, eq=False)
class EvaluatedBatch:
    """A batch of N images, their adversarial versions at some budgets, and the networks.

    Attributes:
        batch: Images in 8 bits, labels and index.
        networks: Classifiers by name; those behind a defence also take the index.
        settings: The job's.
        source: Source of the adversarial images; None in a pass over clean images.
        adversarial: Its images of the batch, at the budgets that the cells need; None: at none.
    """

    batch: Batch
    networks: Mapping[Evaluated, nn.Module]
    settings: Settings
    source: AdversarialSource | None = None
    adversarial: AdversarialBatch | None = None
    _results: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def clean(self) -> Tensor:
        """Clean images, float32 (N, 3, H, W) in [0, 1]."""
        return self._once("clean", lambda: to_unit(self.batch.images))

    def version(self, eps_255: float) -> AttackedImages:
        """Return the adversarial images of a budget, in units of 1/255."""
        assert self.source is not None and self.adversarial is not None
        images = self.adversarial.images[self.adversarial.budgets.index(eps_255)]
        return AttackedImages(self.clean, images, self.batch, eps_255, self.source.norm)

    @property
    def target_labels(self) -> Tensor | None:
        """Classes that the attack aims for, int64 (N,); None of an untargeted one."""
        return None if self.adversarial is None else self.adversarial.target_labels

    def logits(self, target: Evaluated, eps_255: float) -> Tensor:
        """Return a target's logits of the unrounded images of a budget, (N, C); computed once."""
        images = self.version(eps_255).adversarial
        return self._once((target, eps_255), lambda: self.classify(target, images))

    def classify(self, target: Evaluated, images: Tensor) -> Tensor:
        """Return a target's logits, (N, C), or (R, N, C) of R draws of a defence."""
        network = self.networks[target]
        return network(images) if target.defence == PLAIN else network(images, self.batch.index)

    def _once(self, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        """Return what was computed first under a key, with one row per image."""
        if key not in self._results:
            self._results[key] = compute()
        return self._results[key]

    def select(self, index: np.ndarray) -> "EvaluatedBatch":
        """Return the images of an index, with what was computed of them."""
        mask = torch.from_numpy(np.isin(self.batch.index.cpu().numpy(), index))
        if mask.all():
            return self
        rows = mask.nonzero()[:, 0].to(self.batch.index.device)
        adversarial = self.adversarial and self.adversarial.select(rows)
        results = {key: values[rows] for key, values in self._results.items()}
        batch = Batch(*(values[rows] for values in self.batch))
        return replace(self, batch=batch, adversarial=adversarial, _results=results)


class Measurement(ABC):
    """A table of a row, or several, for each image.

    Attributes:
        name: Name of the table, and stem of its file.
        schema: Columns of the file, see `src.artifacts.tables.column`, without those of the target.
        order: Columns that rows are sorted by, `-NAME` descending.
        key: Key of `diagnostics` that asks for it; None: a part of every job's predictions.
        in_all: True if `diagnostics.tables=all` asks for it, too, where the key is `tables`.
    """

    name: ClassVar[str]
    schema: ClassVar[pa.Schema]
    order: ClassVar[tuple[str, ...]] = ("index",)
    key: ClassVar[str | None] = "tables"
    in_all: ClassVar[bool] = True

    @abstractmethod
    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return the cells that a job asks for.

        `clean` holds the predictions for the clean images; None: they are not made yet, and cells
        that depend on them are left out.
        """

    @abstractmethod
    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a batch's rows of each cell, in their order, without columns of the target.

        Each cell has an image or more in the batch.
        """

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return a table as its file holds it, from the rows of all tables."""
        return tables[name]
