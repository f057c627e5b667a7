"""Adversarial images in files, as a source of adversarial images and as a data set."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from src.config.fields import Budget
from src.config.settings import AttackSettings, Section
from src.data import Batch, ImageDataset, LabelledImages
from src.evaluation.adversarial_source import AdversarialBatch, AdversarialSource
from src.evaluation.storage import change_size, exceeds

_TOGETHER = 32  # images measured at once


UNKNOWN = "unknown"


class SavedImagesFacts(Section):
    """Origin of a set of saved images, by its manifest or its user.

    Attributes:
        source: Model that the images were crafted on, `a+b` for an ensemble.
        budgets_255: K budgets in units of 1/255.
        num_classes: Number of classes of the data set; None: not known, as for `class_names`.
        ensemble: Quantity that the ensemble averages.
        weights: Digests of the sources' weights by name, as far as they are known.
    """

    source: str
    attack: AttackSettings
    budgets_255: Annotated[tuple[Budget, ...], Field(min_length=1)]
    dataset: str
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    class_names: tuple[str, ...] | None = None
    ensemble: str = UNKNOWN
    weights: dict[str, str] = Field(default_factory=dict)


class Breach(NamedTuple):
    """A budget, in units of 1/255, that `images` of a set exceed, by changes up to `measured`."""

    stated: float
    measured: float
    images: int


@dataclass(frozen=True, eq=False)
class SavedImages:
    """Set of N images at K budgets, of which only those asked for are read.

    Attributes:
        index: int64 (N,), position of each image in its data set, ascending.
        labels: int64 (N,), 0-based true classes.
        target_labels: int64 (N,), the classes that a targeted attack aimed for, or None.
        read_adversarial: Row to its image at each budget, uint8 (K, 3, H, W).
        read_clean: Row to its clean image, uint8 (3, H, W); None where these are not at hand.
        digest: 16 hexadecimal digits that identify all of this by its content.
        breaches: Stated budgets that `with_measured_budgets` has replaced.
    """

    facts: SavedImagesFacts
    index: np.ndarray
    labels: np.ndarray
    target_labels: np.ndarray | None
    read_adversarial: Callable[[int], Tensor]
    read_clean: Callable[[int], Tensor] | None
    digest: str
    breaches: tuple[Breach, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.index) or (np.diff(self.index) <= 0).any():
            raise ValueError("The index must name one image or more, and none more than once.")
        if len(set(self.facts.budgets_255)) < len(self.facts.budgets_255):
            raise ValueError(f"The budgets {list(self.facts.budgets_255)} repeat one.")

    def __len__(self) -> int:
        return len(self.index)

    def clean(self, rows: Sequence[int]) -> Tensor:
        """Return the clean images of some rows, uint8 (n, 3, H, W)."""
        assert self.read_clean is not None
        return torch.stack([self.read_clean(row) for row in rows])

    def adversarial(self, rows: Sequence[int]) -> Tensor:
        """Return the adversarial images of some rows, uint8 (K, n, 3, H, W)."""
        return torch.stack([self.read_adversarial(row) for row in rows], dim=1)


def with_measured_budgets(saved: SavedImages) -> SavedImages:
    """Return a set in which a budget that images exceed is replaced by their largest change.

    All images are read, some at a time. Without clean images nothing can be measured. Two budgets
    that become the same are refused.
    """
    if saved.read_clean is None:
        return saved
    norm, stated = saved.facts.attack.norm, saved.facts.budgets_255
    parts = torch.arange(len(saved)).split(_TOGETHER)
    sizes = torch.cat(
        [
            change_size(saved.adversarial(rows), saved.clean(rows), norm)
            for rows in (part.tolist() for part in parts)
        ],
        dim=1,
    )
    breaches = {}
    for eps_255, size in zip(stated, sizes, strict=True):
        count = int(exceeds(size, eps_255, norm).sum())
        if count:
            measured = math.ceil(1000 * float(size.max())) / 1000
            breaches[eps_255] = Breach(eps_255, measured, count)
    budgets = tuple(breaches[eps].measured if eps in breaches else eps for eps in stated)
    facts = saved.facts.model_copy(update={"budgets_255": budgets})
    return replace(saved, facts=facts, breaches=tuple(breaches.values()))


class SavedImagesSource(AdversarialSource):
    """Saved images as the source of a batch's adversarial images, in ascending budgets."""

    def __init__(self, saved: SavedImages) -> None:
        stated = saved.facts.budgets_255
        super().__init__(sorted(stated), saved.facts.attack.norm)
        self._saved = saved
        self._places = [stated.index(eps_255) for eps_255 in self.budgets]

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the saved versions of the batch's images unchanged."""
        rows = np.searchsorted(self._saved.index, batch.index.cpu().numpy())
        levels = self._saved.adversarial(rows.tolist())[self._places]
        targets = self._saved.target_labels
        return AdversarialBatch(
            levels.to(images.device).to(images.dtype) / 255,
            None if targets is None else torch.from_numpy(targets[rows]).to(images.device),
        )


def saved_dataset(
    saved: SavedImages,
    *,
    num_classes: int | None = None,
    class_names: str | Sequence[str] | None = None,
    n_images: int | None = None,
    seed: int = 0,
) -> ImageDataset:
    """Return a set's clean images, or where there are none those of its first budget.

    `num_classes` and `class_names` (`imagenet`: those of ImageNet's 1,000) serve sets that do not
    state them; `n_images` and `seed` choose a fixed, class-balanced subset, None all images.
    """
    total, names = saved.facts.num_classes or num_classes, saved.facts.class_names
    if total is None:
        raise ValueError("The saved images do not say how many classes there are: num_classes=N.")
    data = LabelledImages(_Unperturbed(saved), saved.labels, names, saved.target_labels)
    return ImageDataset(
        data,
        n_images=n_images,
        seed=seed,
        num_classes=total,
        class_names=class_names if names is None else None,
        numbers=saved.index,
    )


class _Unperturbed(Sequence[Tensor]):
    """Clean images of a set by row, or where there are none those of its first budget."""

    def __init__(self, saved: SavedImages) -> None:
        self.saved = saved

    def __len__(self) -> int:
        return len(self.saved)

    def __getitem__(self, row: Any) -> Any:
        read = self.saved.read_clean
        return read(row) if read else self.saved.read_adversarial(row)[0]
