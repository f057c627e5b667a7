"""Attacks that are fitted to a source, on training images, before they attack other images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..utils.networks import copy_network
from .per_image_random import PerImageRandom
from .projection import Budgets, check_budgets, check_numbers
from .source import Model

State = Mapping[str, Tensor]
"""Result of a fit: tensors by name."""


class FitBatch(NamedTuple):
    """Batch of training images for a fit.

    Attributes:
        images: Images in [0, 1], (N, 3, H, W).
        labels: True classes, or target labels for a targeted attack, (N,).
        true_labels: True classes, (N,).
        seeds: Seeds of the images' random numbers, (N,).
    """

    images: Tensor
    labels: Tensor
    true_labels: Tensor
    seeds: Tensor

    def random(self) -> PerImageRandom:
        """Return the images' random numbers, with the batch as the pool of images to mix in."""
        pool = self.images, self.true_labels
        return PerImageRandom(self.seeds, self.images, self.true_labels, pool)


Read = Callable[[Sequence[int], torch.Generator | None], FitBatch]
"""Function (positions of training images, generator) -> batch. With a generator, the images are
augmented as in the training of a network."""

ROUNDING = 1e-5
"""Largest relative difference between budgets that are equal up to rounding."""


@dataclass(frozen=True)
class FitTask:
    """Source, training images and budget of a fit.

    Attributes:
        model: Source model, as it is attacked.
        eps: Budget in [0, 1] units; 0 if one state serves all budgets.
        norm: `linf` or `l2`.
        targeted: True if the labels are target labels.
        seed: Seed of the order of the images.
        count: Number of training images.
        read: Function that reads training images.
        max_batch: Largest number of images in a gradient batch; None: no limit.
    """

    model: Model
    eps: float
    norm: Literal["linf", "l2"]
    targeted: bool
    seed: int
    count: int
    read: Read
    max_batch: int | None = None

    def batches(self, epoch: int, size: int, *, augmented: bool = False) -> Iterator[FitBatch]:
        """Yield all training images in batches; their order depends only on seed and epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        for part in torch.randperm(self.count, generator=generator).split(size):
            batch = self.read(part.tolist(), generator if augmented else None)
            yield batch._replace(seeds=batch.seeds + (epoch << 32))  # defences draw new numbers


class Fitted(Protocol):
    """Part of an attack that is fitted; its fields are keywords of the attack.

    Attributes:
        one_state: True if one state serves all budgets.
        as_built: True if it trains weights and so needs the source's layers as built.
        reads_target_labels: False if its fit uses only the true classes; True if it is missing.
        fit_images: Folder of class folders with training images; None: those of the data set.
        fit_n_images: Number of training images to use; None: all.
        epochs: Number of passes over the training images.
    """

    one_state: ClassVar[bool]
    as_built: ClassVar[bool]
    fit_images: str | None
    fit_n_images: int | None
    epochs: int

    def fit(self, task: FitTask, state: State | None) -> Iterator[State]:
        """Yield the state after each epoch; the last one is the result.

        Given a state that it yielded earlier, the fit continues after that epoch. The result is the
        same as without an interruption.
        """

    def bind(self, states: Mapping[float, State]) -> Callable[..., Any]:
        """Return the part that the loop calls, for states by budget in [0, 1] units."""


class NotFittedError(ValueError):
    """Error of an attack that is called without the states of its fit."""


def state_of(states: Mapping[float, State], eps: float) -> State:
    """Return the state for a budget in [0, 1] units.

    Raises:
        NotFittedError: There is no state for this budget.
    """
    nearest = min(states, key=lambda budget: abs(budget - eps), default=None)
    if nearest is None or abs(nearest - eps) > ROUNDING * eps:
        budget = f" for eps={255 * eps:.4g}/255" * (eps > 0)
        raise NotFittedError(f"the attack is not fitted{budget}; pass `states` from its `fit`.")
    return states[nearest]


def fit(
    part_class: Callable[..., Fitted],
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: Budgets,
    *,
    norm: Literal["linf", "l2"] = "linf",
    targeted: bool = False,
    true_labels: Tensor | None = None,
    seed: int = 0,
    **settings: Any,
) -> dict[float, State]:
    """Fit an attack on training images (N, 3, H, W) in [0, 1], for one or more budgets.

    Args:
        part_class: Class of the attack's fitted part.
        model: The source model.
        images: Training images.
        labels: True classes of the images or, with `targeted`, target labels, (N,).
        eps: Budgets in [0, 1] units.
        norm: `linf` or `l2`.
        targeted: Minimise the loss of `labels` instead.
        true_labels: True classes if `labels` are target labels.
        seed: Seed of the order of the images.
        **settings: Keywords of `part_class`.

    Returns:
        States by budget, for the attack's keyword `states`.
    """
    budgets, part = check_budgets(eps, images).flatten().tolist(), part_class(**settings)
    labels = check_numbers("labels", labels, images)
    classes = labels if true_labels is None else check_numbers("true_labels", true_labels, images)

    def read(positions: Sequence[int], generator: torch.Generator | None) -> FitBatch:
        where = torch.tensor(positions, device=images.device)
        return FitBatch(images[where], labels[where], classes[where], where)

    states = {}
    for budget in [0.0] if part.one_state else budgets:
        task = FitTask(copy_network(model), budget, norm, targeted, seed, len(images), read)
        *_, states[budget] = part.fit(task, None)
    return states
