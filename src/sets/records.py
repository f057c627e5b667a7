"""A set of adversarial images as every reader returns it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from src.attacks.projection import NORMS
from src.data import check_labels
from src.sets.storage import breaks, sizes
from src.utils.checks import check_choice, check_number

_BLOCK = 1 << 24  # values of a block of images: 16 MiB as uint8


class Breach(NamedTuple):
    """A budget that images break.

    Attributes:
        told: what their files or their user say, in 1/255.
        measured: their largest change, in 1/255.
        images: how many of them change by more than what is told.
    """

    told: float
    measured: float
    images: int


@dataclass(frozen=True, eq=False)
class AdversarialSet:
    """The same N images at one or more budgets, as stored.

    Attributes:
        index: int64 (N,), position of each image in its data set; no two are the same.
        labels: int64 (N,), 0-based classes.
        target_labels: int64 (N,), the classes aimed for, or None.
        clean: uint8 (N, 3, H, W), or None where they are not at hand.
        budgets_255: K different budgets in 1/255.
        adversarial: K arrays, uint8 (N, 3, H, W), often memory maps.
        source: the model that they were made on.
        attack: its settings, or only its name.
        norm: of the budgets, `linf` or `l2` (root-mean-square change).
        dataset: the name of the data set.
        num_classes: how many classes labels may stand for, or None.
        digest: 16 hexadecimal digits that identify all of this by its content.
        class_names: one name a class, or None.
        ensemble: what an ensemble of sources averages.
        weights: digests of the sources' weights by name, where they are known.
        breaches: what was told in the place of budgets that are measured.

    Raises:
        ValueError: if these do not fit together.
    """

    index: np.ndarray
    labels: np.ndarray
    target_labels: np.ndarray | None
    clean: np.ndarray | None
    budgets_255: tuple[float, ...]
    adversarial: tuple[np.ndarray, ...]
    source: str
    attack: Mapping[str, Any] | str
    norm: str
    dataset: str
    num_classes: int | None
    digest: str
    class_names: tuple[str, ...] | None = None
    ensemble: str = "logits"
    weights: Mapping[str, str] = field(default_factory=dict)
    breaches: tuple[Breach, ...] = ()

    def __post_init__(self) -> None:
        """Check types, shapes and ranges."""
        check_choice("norm", self.norm, NORMS)
        check_budgets(self.budgets_255)
        check_index(self.index)
        for name, labels in (("labels", self.labels), ("target_labels", self.target_labels)):
            if labels is None:
                continue
            check_classes(name, labels, self.num_classes)
            if len(labels) != len(self):
                raise ValueError(f"{len(labels)} {name} were given for {len(self)} images.")
        if len(self.adversarial) != len(self.budgets_255):
            raise ValueError(
                f"{len(self.adversarial)} arrays were given for {len(self.budgets_255)} budgets."
            )
        stored = [(f"images at {eps:g}", a) for eps, a in self.by_budget().items()]
        if self.clean is not None:
            stored.append(("clean images", self.clean))
        expected = (len(self), 3, *self.adversarial[0].shape[2:])
        for what, array in stored:
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape != expected:
                raise ValueError(
                    f"The {what} must be uint8 (N, 3, H, W) of shape {expected}, not "
                    f"{array.dtype} of {array.shape}."
                )

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.index)

    def by_budget(self) -> dict[float, np.ndarray]:
        """Return the adversarial images of each eps_255."""
        return dict(zip(self.budgets_255, self.adversarial, strict=True))


def budget_breaches(images: AdversarialSet) -> dict[float, int] | None:
    """Count, for each eps_255, the images that change by more; None without clean images."""
    if images.clean is None:
        return None
    return {
        eps_255: sum(
            int(breaks(size, eps_255, images.norm).sum()) for size in _sizes(images, eps_255)
        )
        for eps_255 in images.budgets_255
    }


def _sizes(images: AdversarialSet, eps_255: float) -> Iterator[torch.Tensor]:
    """Measure the changes of one budget's images, some at a time."""
    stored = images.by_budget()[eps_255]
    assert images.clean is not None
    for rows in blocks(stored):
        changed, clean = (torch.from_numpy(np.array(a[rows])) for a in (stored, images.clean))
        yield sizes(changed, clean, images.norm)


def with_measured_budgets(images: AdversarialSet) -> AdversarialSet:
    """Return a set whose budgets are the largest changes where images break what is told.

    Raises:
        ValueError: if two budgets are then the same.
    """
    breaches = []
    for told, count in (budget_breaches(images) or {}).items():
        if count:
            largest = max(float(size.max()) for size in _sizes(images, told))
            breaches.append(Breach(told, math.ceil(1000 * largest) / 1000, count))
    measured = {breach.told: breach.measured for breach in breaches}
    budgets = tuple(measured.get(eps, eps) for eps in images.budgets_255)
    return replace(images, budgets_255=budgets, breaches=tuple(breaches))


def blocks(images: np.ndarray) -> Iterator[slice]:
    """Cut the rows of a large array into slices that fit easily into memory."""
    step = max(1, _BLOCK // max(1, math.prod(images.shape[1:])))
    return (slice(start, start + step) for start in range(0, len(images), step))


def check_budgets(budgets_255: tuple[float, ...]) -> None:
    """Refuse budgets that are none, out of range or repeated.

    Raises:
        ValueError: if so.
    """
    if not budgets_255:
        raise ValueError("A set needs at least one eps_255.")
    for eps_255 in budgets_255:
        check_number("eps_255", eps_255, 0, 255)
    if len(set(budgets_255)) < len(budgets_255):
        raise ValueError(f"The budgets {', '.join(map(str, budgets_255))} are not all different.")


def check_classes(what: str, labels: np.ndarray, num_classes: int | None) -> None:
    """Refuse labels that are not int64 (N,) from 0, below the number of classes where it is known.

    Raises:
        ValueError: if so.
    """
    check_labels(what, labels, np.iinfo(np.int64).max if num_classes is None else num_classes)


def check_index(index: np.ndarray) -> None:
    """Refuse positions of images that are none, negative, repeated or not int64 (N,).

    Raises:
        ValueError: if so.
    """
    if index.ndim != 1 or index.dtype != np.int64 or len(index) == 0 or index.min() < 0:
        raise ValueError("The index must be a non-empty int64 vector of numbers from 0.")
    if len(np.unique(index)) < len(index):
        raise ValueError("The index names an image more than once.")
