"""Interfaces of an attack's parts. To try a new idea, implement one of them.

Images have the shape (K, N, 3, H, W) throughout: K budgets of the same N images. Random numbers
are drawn per image (in most papers' code: per batch), so an image gets the same perturbation in
any batch and on any grid of budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import Strict
from torch import Tensor, nn

from .per_image_random import PerImageRandom
from .source import Source


@dataclass
class Problem:
    """A batch under attack and its source model.

    Attributes:
        source: A single network or an ensemble's members.
        images: Clean images, (N, 3, H, W).
        labels: True classes or, if `targeted`, target labels, (N,).
        targeted: True if the attack has target labels.
        random: Random generators, one per image.
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


@dataclass(frozen=True)
class State:
    """State of the attack's loop in one step, which estimators and updates read.

    Attributes:
        images: Clean images, (K, N, 3, H, W).
        iterate: x_t, of the same shape.
        at: Point where the gradient is evaluated: x_t, or a point ahead of it.
        eps: Budgets, as in `Problem`.
        step_size: Step size in [0, 1] units, with the shape of `eps`.
        norm: `linf` or `l2`.
        random: Random generators, one per image.
        source: The source model.
        steps: Number of steps after the warm-up.
        step: Index of the step, from 0; negative during the warm-up.
        is_last_step: True if no step follows this one.
        last_gradient: Gradient estimate of the last step divided by its mean absolute value; 0 at
            first, and after a warm-up.
    """

    images: Tensor
    iterate: Tensor
    at: Tensor
    eps: Tensor
    step_size: Tensor
    norm: Literal["linf", "l2"]
    random: PerImageRandom
    source: Source
    steps: int = 1
    step: int = 0
    is_last_step: bool = False
    last_gradient: Tensor | float = 0.0

    @property
    def members(self) -> int:
        """Number of the source's members, 1 unless it is an ensemble."""
        return len(self.source.members)


class Gradient(Protocol):
    """Function that computes the gradient of each image's loss, with transforms and smoothing."""

    def __call__(self, at: Tensor, member: int | None = None, loss: str | None = None) -> Tensor:
        """Return the gradient at images `at`, (K, N, 3, H, W).

        Args:
            at: The images.
            member: Index of an ensemble member; None: all members.
            loss: Name of a loss, see `LOSSES`; None: the attack's own.
        """


@runtime_checkable
class StatefulPart(Protocol):
    """Estimator or update that keeps a memory between steps.

    A run, each restart, and the first step after a warm-up begin with a new memory.
    """

    def init(self, problem: Problem) -> Any:
        """Return the memory before the first step."""

    def step(self, argument: Any, state: State, memory: Any) -> tuple[Tensor, Any]:
        """Return the result, (K, N, 3, H, W), and the memory for the next step.

        Args:
            argument: The gradient for an estimator, the momentum for an update.
            state: State of the loop.
            memory: The memory, which stays unchanged.
        """


Estimator = Callable[[Gradient, State], Tensor] | StatefulPart
"""Function (gradient, state) -> gradient estimate of the step, (K, N, 3, H, W)."""

Update = Callable[[Tensor, State], Tensor] | StatefulPart
"""Function (momentum, state) -> step x_{t+1} - x_t before projection, (K, N, 3, H, W)."""


@dataclass(frozen=True)
class _WithoutMemory:
    function: Callable[[Any, State], Tensor]

    def init(self, problem: Problem) -> None:
        return None

    def step(self, argument: Any, state: State, memory: None) -> tuple[Tensor, None]:
        return self.function(argument, state), None


def stateful(part: Estimator | Update) -> StatefulPart:
    """Return a part with the methods `init` and `step`; a function has no memory."""
    return part if isinstance(part, StatefulPart) else _WithoutMemory(part)


def take_step(part: StatefulPart, argument: Any, state: State, memory: Any) -> tuple[Tensor, Any]:
    """Return a part's result, (K, N, 3, H, W), and its new memory.

    Raises:
        ValueError: The part returns anything else.
    """
    pair, shape = part.step(argument, state, memory), state.iterate.shape
    step = pair[0] if isinstance(pair, tuple) and len(pair) == 2 else None
    if isinstance(step, Tensor) and (step.shape, step.dtype) == (shape, state.iterate.dtype):
        return pair
    function = getattr(part, "function", None)  # it has no memory
    name = getattr(function, "__name__", function) or part
    wanted = f"a {state.iterate.dtype} tensor of shape {(*shape,)}" + ", with a new memory" * (
        function is None
    )
    raise ValueError(f"{name}: a step is {wanted}.")


BackwardRule = Callable[[nn.Module], nn.Module]
"""Function from a copy of the source, which it may change, to the module that yields gradients.

The copy shares its parameters with the source, so a rule must not change them. Modules may have a
method `draw(random, k)`. It is called before each gradient; the module then gets batches of
`k` * N images, budget by budget.
"""


@runtime_checkable
class Transform(Protocol):
    """Transformation of the images before the source model classifies them.

    The loop makes `copies` versions, one by one, and averages their gradients. An optional method
    `adapt(images, random, copy, losses)` is called before each version. It may store results in
    `random.scratch`; gradients that it takes of the losses are counted.
    """

    @property
    def copies(self) -> int:
        """Number of versions."""

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return version number `copy`, with the shape of the images."""


Transforms = Annotated[tuple[Transform, ...], Strict(False)]


@runtime_checkable
class Objective(Protocol):
    """Function of logits or of a layer's output that an attack maximises instead of a loss.

    `per_budget = True` states that its value also depends on the budget. An optional method
    `prepare(problem)` computes what it needs from the clean images, once for all steps.
    """

    def losses(self, problem: Problem, images: Tensor, prepared: Any) -> Tensor:
        """Return the objective's value per image: (K, N, 3, H, W) to (K, N).

        Args:
            problem: Clean images and source.
            images: Images to evaluate.
            prepared: Result of `prepare`; None without it.
        """
