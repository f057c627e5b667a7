"""Interface of measurements: a table, what its rows depend on, and the rows of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from ..data import Batch, ImageDataset, to_unit
from ..defences import Defended, classify_behind
from ..images.storage import AdversarialBatch, AttackedImages
from ..utils.about import Norm
from ..utils.model_names import ModelRef


@dataclass(frozen=True, eq=False)
class Job:
    """Part of a job that measurements depend on: images, names of models, and budgets.

    Attributes:
        images: The job's images.
        diagnosed: The images that diagnostics use.
        source: The source without its defence; without a source, its name is empty.
        targets: The targets without defences.
        evaluated: The targets, then each behind every defence.
        budgets: Budgets in units of 1/255, ascending, without 0.
        reference: The reference budget.
        norm: Norm of the budgets, `linf` or `l2`.
    """

    images: ImageDataset
    diagnosed: ImageDataset
    source: ModelRef
    targets: Sequence[ModelRef]
    evaluated: Sequence[ModelRef]
    budgets: tuple[float, ...]
    reference: float
    norm: Norm

    @property
    def classifiers(self) -> Sequence[ModelRef]:
        """Models, targets behind defences, and the source behind its own defence."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class EvaluatedBatch:
    """A batch of N images, their adversarial versions at some budgets, and the networks.

    Attributes:
        batch: Images in 8 bits, labels and index.
        job: The job.
        networks: Classifiers by name; those behind a defence also take the index.
        adversarial: Adversarial images at the needed budgets; None: none is needed.
        target: The target that the rows belong to; None: no single target.
        budgets: Budgets of the adversarial images that the rows need, in units of 1/255.
    """

    batch: Batch
    job: Job
    networks: Mapping[ModelRef, nn.Module]
    adversarial: AdversarialBatch | None = None
    target: ModelRef | None = None
    budgets: tuple[float, ...] = ()
    _tensors: dict[Any, Tensor] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)

    @property
    def clean(self) -> Tensor:
        """Clean images, float32 (N, 3, H, W) in [0, 1]."""
        return self._tensor("clean", lambda: to_unit(self.batch.images))

    @property
    def target_labels(self) -> Tensor | None:
        """Target labels of the attack, int64 (N,); None for an untargeted attack."""
        return None if self.adversarial is None else self.adversarial.target_labels

    def version(self, eps_255: float) -> AttackedImages:
        """Return the adversarial images at a budget, in units of 1/255."""
        assert self.adversarial is not None
        images = self.adversarial.images[self.adversarial.budgets.index(eps_255)]
        return AttackedImages(self.clean, images, self.batch, eps_255, self.job.norm)

    def logits(self, eps_255: float) -> Tensor:
        """Return the target's logits for the unrounded images at a budget, (N, C)."""
        images = self.version(eps_255).adversarial
        return self._tensor((self.target, eps_255), lambda: self.classify(images))

    def classify(self, images: Tensor) -> Tensor:
        """Return the target's logits, (N, C), or (R, N, C) for R draws of a defence.

        A defence is applied once for all targets behind it, if they get the same tensor in turn.
        """
        target = cast(ModelRef, self.target)
        if not target.is_defended:
            return cast(Tensor, self.networks[target](images))
        inputs, logits = self._shared.get(target.defence, (None, {}))
        if inputs is not images:
            behind = [name for name in self.networks if name.defence == target.defence]
            networks = [cast(Defended, self.networks[name]) for name in behind]
            draws = classify_behind(networks, images, self.batch.index)
            logits = dict(zip(behind, draws, strict=True))
            self._shared[target.defence] = images, logits
        return cast(Tensor, logits[target])

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """Return a value that all targets share, such as filtered images; compute it once."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def _tensor(self, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        """Return a tensor with one row per image, which all measurements share."""
        if key not in self._tensors:
            self._tensors[key] = compute()
        return self._tensors[key]

    def select(self, index: np.ndarray) -> "EvaluatedBatch":
        """Return the batch of the images in `index`, with their computed logits."""
        mask = torch.from_numpy(np.isin(self.batch.index.cpu().numpy(), index))
        if mask.all():
            return self
        rows = mask.nonzero()[:, 0].to(self.batch.index.device)
        adversarial = self.adversarial and self.adversarial.select(rows)
        tensors = {key: values[rows] for key, values in self._tensors.items()}
        batch = Batch(*(values[rows] for values in self.batch))
        return replace(self, batch=batch, adversarial=adversarial, _tensors=tensors, _shared={})

    def of(self, targets: Sequence[ModelRef | None], budgets: tuple[float, ...]) -> Any:
        """Yield the batch for each target in turn; what they share lasts as long as this."""
        shared = replace(self, budgets=budgets, _shared={})
        return (replace(shared, target=target) for target in targets)


class Needs(NamedTuple):
    """Parts of the key of a measurement's rows, beside attack, arithmetic and code."""

    targets: Sequence[ModelRef | None]
    others: Sequence[ModelRef]
    budgets: tuple[float, ...]
    images: np.ndarray


class Measurement(ABC):
    """A table with one or more rows per image, stored under the key of what they depend on.

    Attributes:
        name: Name of the table, and stem of its file.
        schema: Columns of the file, see `src.artifacts.tables.column`, without those of the target.
        order: Columns that rows are sorted by; `-NAME` sorts in descending order.
        attacked: False: the rows depend on clean images alone.
        correct_only: True: a target's rows are of the images that it classifies correctly.
        each_budget: True: rows are stored by budget, so that budgets can be added.
        paired: True: the rows depend on the images' partners, see `ImageDataset.partners`.
        by_target: False: the rows belong to no single target.
        key_parts: What else the rows depend on: not images, models, budgets, attack and code.
        passes: How often a target classifies an image; a gradient counts as three.
    """

    name: str
    schema: pa.Schema
    order: tuple[str, ...] = ("index",)
    attacked: bool = True
    correct_only: bool = False
    each_budget: bool = False
    paired: bool = False
    by_target: bool = True
    key_parts: Any = None
    passes: int = 1

    @property
    def stored_as(self) -> str:
        """Name of the table in the cache."""
        return self.name

    def targets(self, job: Job) -> Sequence[ModelRef | None]:
        """Return the models that have rows; `[None]`: the rows belong to no single one."""
        return job.targets if self.by_target else [None]

    def others(self, job: Job) -> Sequence[ModelRef]:
        """Return further models that the rows depend on."""
        return []

    def budgets(self, job: Job) -> tuple[float, ...]:
        """Return the budgets of the adversarial images that the rows need."""
        return job.budgets if self.attacked else ()

    def images(self, job: Job) -> np.ndarray:
        """Return the index of the images that have rows, int64 (n,), ascending."""
        return job.diagnosed.indices

    def needs(self, job: Job) -> Needs:
        """Return what the rows depend on, as the methods above state."""
        return Needs(self.targets(job), self.others(job), self.budgets(job), self.images(job))

    @abstractmethod
    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return the rows of a batch for its target and budgets, without columns of the target."""

    def finish(self, table: pa.Table, job: Job) -> pa.Table:
        """Return the table as it is written to its file, from the rows of all images."""
        return table
