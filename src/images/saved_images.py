"""Adversarial images in files, as a source of adversarial images and as a data set."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.config.settings import AttackSettings
from src.data import Batch, ImageDataset, LabelledImages
from src.images.adversarial_source import AdversarialBatch, AdversarialSource
from src.images.storage import change_size, exceeds

UNKNOWN = "unknown"
_TOGETHER = 32  # images measured at once


class Breach(NamedTuple):
    """A stated budget, in 1/255, that `images` of a set exceed, by changes up to `measured`."""

    stated: float
    measured: float
    images: int


class LazyImages(Sequence[Any]):
    """Images by row, `count` of them, each read when it is asked for."""

    def __init__(self, read: Callable[[int], Any], count: int) -> None:
        self.read, self.total = read, count

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, row: Any) -> Any:
        return self.read(row)


@dataclass(frozen=True, eq=False)
class SavedImages:
    """Set of N images at K budgets, of which only those asked for are read.

    Attributes:
        source: Model that the images were crafted on, `a+b` for an ensemble.
        budgets_255: K budgets in units of 1/255, ascending.
        dataset: Name of the data set.
        index: int64 (N,), position of each image in its data set, ascending.
        clean: N clean images with labels and, as far as known, the classes' names; of a targeted
            attack also the classes that it aimed for.
        read: Row to its image at each budget, uint8 (K, 3, H, W).
        ensemble: Quantity that the ensemble averages; None: not known.
        weights: Digests of the sources' weights by name, as far as they are known.
        data: Digest that the set states of its clean images, for its job's record alone: a key
            is made of their pixels. Empty: not stated.
    """

    source: str
    attack: AttackSettings
    budgets_255: tuple[float, ...]
    dataset: str
    index: np.ndarray
    clean: LabelledImages
    read: Callable[[int], Tensor]
    ensemble: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    data: str = ""

    def __post_init__(self) -> None:
        if not len(self) or (np.diff(self.index) <= 0).any():
            raise ValueError("The index must name one image or more, and none more than once.")

    def __len__(self) -> int:
        return len(self.clean)

    def adversarial(self, rows: Sequence[int]) -> Tensor:
        """Return the adversarial images of some rows, uint8 (K, n, 3, H, W)."""
        return torch.stack([self.read(row) for row in rows], dim=1)

    @cached_property
    def breaches(self) -> tuple[Breach, ...]:
        """Budgets that some images exceed; all are read, some at a time."""
        norm, parts = self.attack.norm, []
        for first in range(0, len(self), _TOGETHER):
            rows = range(first, min(first + _TOGETHER, len(self)))
            clean = ImageDataset(self.clean)[rows].images
            parts.append(change_size(self.adversarial(rows), clean, norm))
        sizes = zip(self.budgets_255, torch.cat(parts, dim=1), strict=True)
        return tuple(
            Breach(eps_255, math.ceil(1000 * float(size.max())) / 1000, int(beyond.sum()))
            for eps_255, size in sizes
            if (beyond := exceeds(size, eps_255, norm)).any()
        )

    @cached_property
    def digest(self) -> str:
        """Identity of the set's content, however it lies in files: 16 hexadecimal digits."""
        targets = self.clean.target_labels
        facts = (self.source, self.attack, self.budgets_255, self.dataset, self.ensemble)
        numbers = (self.index.tolist(), None if targets is None else targets.tolist())
        total = hashlib.sha256(repr((facts, sorted(self.weights.items()), numbers)).encode())
        for row in range(len(self)):
            total.update(self.read(row).numpy().tobytes())
        return total.hexdigest()[:16]


class SavedImagesSource(AdversarialSource):
    """Saved images as the source of a batch's adversarial images."""

    def __init__(self, saved: SavedImages) -> None:
        super().__init__(saved.budgets_255, saved.attack.norm)
        self._saved = saved

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the saved versions of the batch's images unchanged."""
        rows = np.searchsorted(self._saved.index, batch.index.cpu().numpy())
        levels = self._saved.adversarial(rows.tolist())
        targets = self._saved.clean.target_labels
        return AdversarialBatch(
            levels.to(images.device).to(images.dtype) / 255,
            None if targets is None else torch.from_numpy(targets[rows]).to(images.device),
        )


def saved_dataset(
    saved: SavedImages,
    *,
    num_classes: int | None = None,
    class_names: str | Sequence[str] | None = None,
    **subset: Any,
) -> ImageDataset:
    """Return a set's clean images, whose classes are given as far as the set does not state them.

    `n_images` and `seed` choose a `subset`, see `ImageDataset`.
    """
    if (names := saved.clean.classes) is not None:
        num_classes, class_names = len(names), None
    elif num_classes is None:
        raise ValueError(
            "The saved images do not say how many classes there are; set dataset.num_classes=N."
        )
    return ImageDataset(
        saved.clean,
        num_classes=num_classes,
        class_names=class_names,
        numbers=saved.index,
        **subset,
    )
