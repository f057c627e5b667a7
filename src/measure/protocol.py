"""Interface of measurements: a table, the requests that a job needs, and the rows of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from ..config.settings import Settings
from ..data import Batch, ImageDataset, to_unit
from ..defences import Defended, classify_behind
from ..images.attacker import AdversarialSource
from ..images.storage import AdversarialBatch, AttackedImages
from ..utils.model_names import NO_DEFENCE, ModelRef


class Job(Protocol):
    """Part of a job that requests depend on: settings, images and models."""

    @property
    def settings(self) -> Settings:
        """The job's settings."""

    @property
    def images(self) -> ImageDataset:
        """The job's images."""

    @property
    def diagnosed(self) -> ImageDataset:
        """The images that diagnostics use."""

    @property
    def classifiers(self) -> Sequence[ModelRef]:
        """Models, targets behind defences, and the source behind its own defence."""


ALL = ModelRef.parse("")
"""Value of `target` for rows that belong to no single target."""


@dataclass(frozen=True, eq=False)
class RowRequest:
    """Rows of a table that share one key in the cache, whatever their images.

    Attributes:
        table: Name of the table.
        index: Images whose rows are needed, int64 (n,), ascending.
        target: Target that the rows belong to; `ALL`: no single target.
        budgets: Budgets of the adversarial images that the rows need, in units of 1/255.
        others: Further models that the rows depend on.
        key_parts: Everything else that the rows depend on, except the image, the arithmetic and, if
            `attacked`, the attack.
        attacked: True if the rows need the attack, or a saved set in its place.
        partners: Index of the image whose perturbation each image of `index` gets, int64 (n,); its
            rows depend on that image, too. None: its own.
        also_store: Images whose rows are added to the cache if a batch has them, int64, ascending;
            None: `index`.
        streamed: True if the rows are too large to be read all at once.
        passes: Number of times that the target classifies an image; a gradient counts as three.
        attacks: Number of times that an image is attacked again, with one budget.
    """

    table: str
    index: np.ndarray
    target: ModelRef = ALL
    budgets: tuple[float, ...] = ()
    others: tuple[ModelRef, ...] = ()
    key_parts: Any = None
    attacked: bool = True
    partners: np.ndarray | None = None
    also_store: np.ndarray | None = None
    streamed: bool = False
    passes: int = 1
    attacks: int = 0

    @property
    def paired(self) -> bool:
        """True if the rows depend on the images' partners, see `ImageDataset.partners`."""
        return self.partners is not None

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models that the rows depend on."""
        return (*self.others, *([] if self.target == ALL else [self.target]))


@dataclass(frozen=True, eq=False)
class EvaluatedBatch:
    """A batch of N images, their adversarial versions at some budgets, and the networks.

    Attributes:
        batch: Images in 8 bits, labels and index.
        networks: Classifiers by name; those behind a defence also take the index.
        settings: Settings of the job.
        source: Source of the adversarial images; None in a pass over clean images.
        adversarial: Adversarial images at the budgets that the requests need; None: none is needed.
    """

    batch: Batch
    networks: Mapping[ModelRef, nn.Module]
    settings: Settings
    source: AdversarialSource | None = None
    adversarial: AdversarialBatch | None = None
    _results: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def clean(self) -> Tensor:
        """Clean images, float32 (N, 3, H, W) in [0, 1]."""
        return self._once("clean", lambda: to_unit(self.batch.images))

    @property
    def gradient_batch(self) -> int:
        """Maximum number of images per gradient batch."""
        return self.settings.gradient_batch(self.clean.device.type, self.clean.shape[-1])

    def version(self, eps_255: float) -> AttackedImages:
        """Return the adversarial images at a budget, in units of 1/255."""
        assert self.source is not None and self.adversarial is not None
        images = self.adversarial.images[self.adversarial.budgets.index(eps_255)]
        return AttackedImages(self.clean, images, self.batch, eps_255, self.source.norm)

    @property
    def target_labels(self) -> Tensor | None:
        """Target labels of the attack, int64 (N,); None for an untargeted attack."""
        return None if self.adversarial is None else self.adversarial.target_labels

    def logits(self, target: ModelRef, eps_255: float) -> Tensor:
        """Return a target's logits for the unrounded images at a budget, (N, C); computed once."""
        images = self.version(eps_255).adversarial
        return self._once((target, eps_255), lambda: self.classify(target, images))

    def classify(self, target: ModelRef, images: Tensor) -> Tensor:
        """Return a target's logits, (N, C), or (R, N, C) for R draws of a defence."""
        network = self.networks[target]
        return (
            network(images) if target.defence == NO_DEFENCE else network(images, self.batch.index)
        )

    def classify_each(
        self, targets: Iterable[ModelRef], images: Tensor
    ) -> Iterator[tuple[ModelRef, Tensor]]:
        """Yield each target with its logits (see `classify`), grouped by defence.

        A defence is applied once for all of its targets.
        """
        by_defence = attrgetter("defence")
        for defence, group in groupby(sorted(targets, key=by_defence), by_defence):
            behind, index = list(group), self.batch.index
            if defence == NO_DEFENCE:
                yield from ((target, self.classify(target, images)) for target in behind)
            else:
                networks = [cast(Defended, self.networks[target]) for target in behind]
                yield from zip(behind, classify_behind(networks, images, index), strict=True)

    def _once(self, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        """Return the result stored under a key, with one row per image; compute it if missing."""
        if key not in self._results:
            self._results[key] = compute()
        return self._results[key]

    def select(self, index: np.ndarray) -> "EvaluatedBatch":
        """Return the batch of the images in `index`, with their computed results."""
        mask = torch.from_numpy(np.isin(self.batch.index.cpu().numpy(), index))
        if mask.all():
            return self
        rows = mask.nonzero()[:, 0].to(self.batch.index.device)
        adversarial = self.adversarial and self.adversarial.select(rows)
        results = {key: values[rows] for key, values in self._results.items()}
        batch = Batch(*(values[rows] for values in self.batch))
        return replace(self, batch=batch, adversarial=adversarial, _results=results)


class Measurement(ABC):
    """A table with one or more rows per image.

    Attributes:
        name: Name of the table, and stem of its file.
        schema: Columns of the file, see `src.artifacts.tables.column`, without those of the target.
        order: Columns that rows are sorted by; `-NAME` sorts in descending order.
        switched_by: Key of `diagnostics` that switches it on; None: every job has the table.
        in_all: True if `diagnostics.tables=all` includes it (if `switched_by` is `tables`).
    """

    name: str
    schema: pa.Schema
    order: tuple[str, ...] = ("index",)
    switched_by: ClassVar[str | None] = "tables"
    in_all: ClassVar[bool] = True

    @abstractmethod
    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return the requests that a job needs.

        `clean` holds the predictions for the clean images. None: they do not exist yet, and
        requests that depend on them are left out.
        """

    @abstractmethod
    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a table of the batch's rows per request, in order, without columns of the target.

        Each request has at least one image in the batch.
        """

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return a table as it is written to its file, from the rows of all tables."""
        return tables[name]
