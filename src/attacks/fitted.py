"""Attacks that are fitted on a source, with training images, before they meet other images."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from src.attacks.projection import Budgets, check_budgets
from src.attacks.source import Model

State = Mapping[str, Tensor]
"""Result of a fit: tensors by name."""


class FitBatch(NamedTuple):
    """Training images of an attack.

    Attributes:
        images: Images in [0, 1], (N, 3, H, W).
        labels: True classes or, of a targeted attack, target labels, (N,).
        true_labels: True classes, (N,).
        seeds: Numbers that seed what is random, (N,).
    """

    images: Tensor
    labels: Tensor
    true_labels: Tensor
    seeds: Tensor


Read = Callable[[Sequence[int], torch.Generator | None], FitBatch]
"""Positions of training images to a batch. With a generator the images are augmented as in the
training of a network."""

ROUNDING = 1e-5
"""Largest relative difference of budgets that are equal but for rounding."""


@dataclass(frozen=True)
class FitTask:
    """Source, training images and budget of a fit.

    Attributes:
        model: Source as it is attacked.
        eps: Budget in [0, 1] units; 0 where one state serves all budgets.
        norm: `linf` or `l2`.
        targeted: True if the labels are target labels.
        seed: Seed of the order of the images.
        count: Number of training images.
        read: Function that reads them.
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
        """Yield all training images in batches; their order depends on seed and epoch alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        for part in torch.randperm(self.count, generator=generator).split(size):
            batch = self.read(part.tolist(), generator if augmented else None)
            yield batch._replace(seeds=batch.seeds + (epoch << 32))  # a defence draws anew


class Fitted(Protocol):
    """Part of an attack that is fitted; its fields are keywords of the attack.

    Attributes:
        one_state: True if one state serves all budgets.
        as_built: True if it trains weights, for which it gets the source's layers as built.
        fit_images: Folder or CSV of its training images; None: those of the data set.
        fit_n_images: Number of those that are taken; None: all.
        epochs: Number of passes over them.
    """

    one_state: ClassVar[bool]
    as_built: ClassVar[bool]
    fit_images: str | None
    fit_n_images: int | None
    epochs: int

    def fit(self, task: FitTask, state: State | None) -> Iterator[State]:
        """Yield the state after each epoch; the last one is the result.

        With a state that it has yielded before, the fit goes on after that epoch, and ends with the
        same state as if it had not been interrupted.
        """

    def bind(self, states: Mapping[float, State]) -> Callable[..., Any]:
        """Return the part as the attack's loop calls it, with states by budget in [0, 1] units."""


class NotFittedError(ValueError):
    """An attack that is called without the states of a fit."""


def state_of(states: Mapping[float, State], eps: float) -> State:
    """Return the state for a budget in [0, 1] units.

    Raises:
        NotFittedError: There is none.
    """
    nearest = min(states, key=lambda budget: abs(budget - eps), default=None)
    if nearest is None or abs(nearest - eps) > ROUNDING * eps:
        raise NotFittedError(
            f"the attack is not fitted for eps={255 * eps:.4g}/255; its `fit` returns `states`."
        )
    return states[nearest]


def fit(
    kind: Callable[..., Fitted],
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
        kind: Class of its fitted part.
        model: The source.
        images: Training images.
        labels: Their true classes or, with `targeted`, target labels, (N,).
        eps: Budgets in [0, 1] units.
        norm: `linf` or `l2`.
        targeted: Minimise the loss of `labels` instead.
        true_labels: True classes where `labels` are others.
        seed: Seed of the order of the images.
        **settings: Keywords of the class.

    Returns:
        The states by budget, which the attack takes as `states`.
    """
    budgets, part = check_budgets(eps, images).flatten().tolist(), kind(**settings)
    classes = labels if true_labels is None else true_labels

    def read(positions: Sequence[int], generator: torch.Generator | None) -> FitBatch:
        where = torch.tensor(positions, device=images.device)
        return FitBatch(images[where], labels[where], classes[where], where)

    states = {}
    for budget in [0.0] if part.one_state else budgets:
        task = FitTask(copy.deepcopy(model), budget, norm, targeted, seed, len(images), read)
        *_, states[budget] = part.fit(task, None)
    return states
