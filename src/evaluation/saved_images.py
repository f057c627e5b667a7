"""A set of adversarial images in files, as a source of adversarial images and as a data set."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.data import Batch, ImageDataset, LabelledImages
from src.evaluation.adversarial_source import AdversarialBatch, AdversarialSource
from src.evaluation.storage import change_size, exceeds

_TOGETHER = 32  # images that are measured at once


class Breach(NamedTuple):
    """A budget that images exceed.

    Attributes:
        stated: By their files or their user, in units of 1/255.
        measured: Their largest change, in units of 1/255.
        images: How many of them exceed the stated budget.
    """

    stated: float
    measured: float
    images: int


@dataclass(frozen=True, eq=False)
class SavedImages:
    """The same N images at K budgets; what is read of them is never more than was asked for.

    Attributes:
        index: int64 (N,), position of each image in its data set, ascending.
        labels: int64 (N,), 0-based true classes.
        target_labels: int64 (N,), the classes that a targeted attack aimed for, or None.
        budgets_255: K different budgets in units of 1/255.
        read_adversarial: Row to its image at each budget, uint8 (K, 3, H, W).
        read_clean: Row to its clean image, uint8 (3, H, W); None where these are not at hand.
        source: The model that the images were crafted on.
        attack: Its settings, or only its name.
        norm: Of the budgets, `linf` or `l2` (root-mean-square change).
        dataset: Name of the data set.
        digest: 16 hexadecimal digits that identify all of this by its content.
        num_classes: How many classes labels may stand for, or None.
        class_names: One name a class, or None.
        ensemble: What an ensemble of sources averages.
        weights: Digests of the sources' weights by name, as far as they are known.
        breaches: Stated budgets that `with_measured_budgets` has replaced.

    Raises:
        ValueError: An image is there twice, a label is out of range or a budget is repeated.
    """

    index: np.ndarray
    labels: np.ndarray
    target_labels: np.ndarray | None
    budgets_255: tuple[float, ...]
    read_adversarial: Callable[[int], Tensor]
    read_clean: Callable[[int], Tensor] | None
    source: str
    attack: Mapping[str, Any] | str
    norm: str
    dataset: str
    digest: str
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    ensemble: str = "logits"
    weights: Mapping[str, str] = field(default_factory=dict)
    breaches: tuple[Breach, ...] = ()

    def __post_init__(self) -> None:
        """Check index, labels and budgets."""
        if not len(self.index) or (np.diff(self.index) <= 0).any():
            raise ValueError("The index must name one image or more, and none more than once.")
        highest = np.inf if self.num_classes is None else self.num_classes - 1
        for name, labels in (("labels", self.labels), ("target_labels", self.target_labels)):
            if labels is None:
                continue
            if len(labels) != len(self):
                raise ValueError(f"There are {len(labels)} {name} for {len(self)} images.")
            wrong = labels[(labels < 0) | (labels > highest)]
            if len(wrong):
                raise ValueError(f"The {name} hold {wrong[0]}, which is not in 0..{highest}.")
        if len(set(self.budgets_255)) < len(self.budgets_255):
            raise ValueError(f"The budgets {', '.join(map(str, self.budgets_255))} repeat one.")

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.index)

    def clean(self, rows: Sequence[int]) -> Tensor:
        """Return the clean images of some rows, uint8 (n, 3, H, W)."""
        assert self.read_clean is not None
        return torch.stack([self.read_clean(row) for row in rows])

    def adversarial(self, rows: Sequence[int]) -> Tensor:
        """Return the adversarial images of some rows, uint8 (K, n, 3, H, W)."""
        return torch.stack([self.read_adversarial(row) for row in rows], dim=1)


def with_measured_budgets(saved: SavedImages) -> SavedImages:
    """Return a set whose budgets are the largest changes where images exceed the stated ones.

    All images are read, some at a time. Without clean images nothing can be measured.

    Raises:
        ValueError: Two budgets are then the same.
    """
    if saved.read_clean is None:
        return saved
    rows = range(len(saved))
    parts = [rows[first : first + _TOGETHER] for first in rows[::_TOGETHER]]
    sizes = torch.cat(
        [change_size(saved.adversarial(part), saved.clean(part), saved.norm) for part in parts],
        dim=1,
    )
    breaches = []
    for eps_255, size in zip(saved.budgets_255, sizes, strict=True):
        count = int(exceeds(size, eps_255, saved.norm).sum())
        if count:
            breaches.append(Breach(eps_255, math.ceil(1000 * float(size.max())) / 1000, count))
    measured = {breach.stated: breach.measured for breach in breaches}
    budgets = tuple(measured.get(eps_255, eps_255) for eps_255 in saved.budgets_255)
    return replace(saved, budgets_255=budgets, breaches=tuple(breaches))


class SavedImagesSource(AdversarialSource):
    """A set of saved images as the source of a batch's adversarial images.

    Args:
        saved: The set; its budgets come in ascending order.
    """

    def __init__(self, saved: SavedImages) -> None:
        super().__init__(sorted(saved.budgets_255), saved.norm)
        self._saved = saved
        self._places = [saved.budgets_255.index(eps_255) for eps_255 in self.budgets]
        self._rows = _rows(saved)

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the saved versions of the batch's images, as they are."""
        rows = [self._rows[number] for number in batch.index.tolist()]
        levels = self._saved.adversarial(rows)[self._places]
        adversarial = levels.to(images.device).to(images.dtype) / 255
        targets = self._saved.target_labels
        if targets is None:
            return AdversarialBatch(adversarial)
        return AdversarialBatch(adversarial, torch.from_numpy(targets[rows]).to(images.device))


def saved_dataset(
    saved: SavedImages,
    *,
    num_classes: int | None = None,
    n_images: int | None = None,
    seed: int = 0,
) -> ImageDataset:
    """Return a set's clean images, or where there are none the first adversarial ones.

    Args:
        saved: The set.
        num_classes: How many classes there are, for a set that does not say it.
        n_images: Size of a fixed, class-balanced subset; None: all images.
        seed: Of the subset.

    Raises:
        ValueError: Nothing says how many classes there are.
    """
    names, total = saved.class_names, saved.num_classes or num_classes
    if names is None and total is None:
        raise ValueError("The saved images do not say how many classes there are: num_classes=N.")
    data = LabelledImages(_Unperturbed(saved), saved.labels, names, saved.target_labels)
    return ImageDataset(
        data,
        n_images=n_images,
        seed=seed,
        num_classes=total if names is None else None,
        numbers=saved.index,
    )


class _Unperturbed(Sequence[Tensor]):
    """The clean images of a set by row, or where there are none the first adversarial ones."""

    def __init__(self, saved: SavedImages) -> None:
        self.saved = saved

    def __len__(self) -> int:
        return len(self.saved)

    def __getitem__(self, row: Any) -> Any:
        read = self.saved.read_clean
        return self.saved.read_adversarial(row)[0] if read is None else read(row)


def _rows(saved: SavedImages) -> dict[int, int]:
    """Return the row of each image by its index."""
    return {int(number): row for row, number in enumerate(saved.index)}
