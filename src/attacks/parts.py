"""Interfaces of an attack's parts, which are the places for a new idea.

Images have the shape (K, N, 3, H, W) throughout: K budgets of the same N images. Random numbers
are drawn per image (by most papers' code: per batch), so that an image is attacked alike in any
batch and under any grid of budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from src.attacks.per_image_random import PerImageRandom
from src.attacks.source import Source


@dataclass
class Problem:
    """A batch under attack and its source model.

    Attributes:
        source: A single network or an ensemble's members.
        images: Clean images, (N, 3, H, W).
        labels: True classes or, if `targeted`, target labels, (N,).
        targeted: True if the attack has target labels.
        random: Random generator of each image.
        eps: Budgets in [0, 1] units, (K, 1, 1, 1, 1), or (K, N, 1, 1, 1) with budgets per image.
        norm: `linf` or `l2`.
    """

    source: Source
    images: Tensor
    labels: Tensor
    targeted: bool
    random: PerImageRandom
    eps: Tensor
    norm: Literal["linf", "l2"]


@dataclass
class State:
    """State of an attack, which estimators and updates read and add to.

    Attributes:
        images: Clean images, (K, N, 3, H, W).
        iterate: x_t, of the same shape.
        at: Point at which the gradient is evaluated: x_t, or ahead of it.
        eps: Budgets, as of `Problem`.
        step_size: Length of a step in [0, 1] units, of the shape of `eps`.
        norm: `linf` or `l2`.
        random: Random generator of each image.
        source: The source.
        step: Number of this step, from 0; below 0 in a warm-up.
        is_last_step: True if no step follows this one.
        last_gradient: The estimate of the step before, over its mean absolute value; 0 at first.
        memory: Values that a part carries from step to step, by name; empty at first.
    """

    images: Tensor
    iterate: Tensor
    at: Tensor
    eps: Tensor
    step_size: Tensor
    norm: str
    random: PerImageRandom
    source: Source
    step: int = 0
    is_last_step: bool = False
    last_gradient: Tensor | float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def members(self) -> int:
        """Number of the source's members, 1 unless it is an ensemble."""
        return len(self.source.members)


class Gradient(Protocol):
    """Gradient of each image's loss, with transforms and smoothing."""

    def __call__(self, at: Tensor, member: int | None = None, loss: str | None = None) -> Tensor:
        """Return the gradient at images `at`, (K, N, 3, H, W).

        Args:
            at: The images.
            member: Number of a member of an ensemble; None: all.
            loss: Name of a loss, see `LOSSES`; None: the attack's own.
        """


Estimator = Callable[[Gradient, State], Tensor]
"""A step's gradient function and state to its estimated gradient, (K, N, 3, H, W)."""

Update = Callable[[Tensor, State], Tensor]
"""Momentum and state to the step x_{t+1} - x_t before projection, both (K, N, 3, H, W)."""

Losses = Callable[[Tensor], Tensor]
"""Images to the loss of each, (K, N), on the source."""

BackwardRule = Callable[[nn.Module], nn.Module]
"""Copy of the source, which it may change, to the module from which gradients are taken.

The copy shares its parameters with the source: they must stay as they are. Before each gradient
`draw(random, k)` is called on modules that have such a method: they then get batches of `k` * N
images, budget by budget.
"""


@runtime_checkable
class Transform(Protocol):
    """Change of the images before the source model classifies them.

    `copies` versions are made, one by one, and their gradients averaged. A method
    `adapt(images, random, copy, losses)` is called first, where there is one, and may leave results
    in `random.scratch`; a gradient that it takes of the losses counts.
    """

    @property
    def copies(self) -> int:
        """Number of versions."""

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return version number `copy`, of the images' shape."""


@runtime_checkable
class Objective(Protocol):
    """Function that an attack maximises in the loss's place, of logits or of a layer's output.

    `per_budget = True` says that its value depends on the budget, too.
    """

    def prepare(self, problem: Problem) -> Any:
        """Return what the objective needs of the clean images, once for all steps."""

    def losses(self, problem: Problem, images: Tensor, prepared: Any) -> Tensor:
        """Return the value of each of the images (K, N, 3, H, W), shape (K, N)."""
