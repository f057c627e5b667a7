"""The one loop that every attack runs, and the places where attacks differ."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, Unpack

import torch
from torch import Tensor, nn

from src.attacks.losses import LOSSES, Loss
from src.attacks.per_image_random import Draws
from src.attacks.projection import as_budgets, check_pixels, direction, project
from src.attacks.schedule import Schedule
from src.attacks.smoothing import smooth
from src.utils.checks import check_choice, check_number, check_whole_number

Model = Callable[[Tensor], Tensor]
"""Images in [0, 1], shape (N, 3, H, W), to logits (N, C), or (M, N, C) of M models whose losses
are averaged."""


class Transform(Protocol):
    """What is done to the images before the source sees them.

    `copies` versions are made, one by one, and their gradients averaged. Images have the shape
    (K, N, 3, H, W): K budgets of the same N images; draws belong to the N.
    """

    @property
    def copies(self) -> int:
        """How many versions are made."""

    def __call__(self, images: Tensor, draws: Draws, copy: int) -> Tensor:
        """Return version number `copy`, of the images' shape."""


@dataclass
class State:
    """Where an attack stands: what a rule for the gradient may use and keep.

    Attributes:
        here: Where the walk stands, x_t, (K, N, 3, H, W).
        point: Where this step's gradient is to be taken: x_t, or ahead of it.
        eps: Budgets in [0, 1] units, (K, 1, 1, 1, 1); (K, N, 1, 1, 1) if each image has its own.
        step: Step sizes in [0, 1] units, of the same shape.
        draws: Random numbers for the N images.
        last: Whether this is the last step.
        previous: The gradient of the step before, over its mean size; 0 at first.
        memory: What the rule keeps from step to step; 0 at first.
    """

    here: Tensor
    point: Tensor
    eps: Tensor
    step: Tensor
    draws: Draws
    last: bool = False
    previous: Tensor | float = 0.0
    memory: Tensor | float = 0.0


Slope = Callable[[Tensor], Tensor]
"""A point (K, N, 3, H, W) to the gradient of the loss there, transforms and smoothing included."""
Rule = Callable[[Slope, State], Tensor]
"""How a step's gradient is made of slopes."""


def plain(slope: Slope, state: State) -> Tensor:
    """Return the slope at the point itself."""
    return slope(state.point)


class Settings(Schedule.Keys, total=False):
    """What every attack of the family takes; see `iterate`."""

    norm: str
    loss: str
    decay: float
    lookahead: str | None
    kernel_size: int
    transforms: Sequence[Transform]
    rule: Rule
    targeted: bool
    true_labels: Tensor | None
    seeds: Tensor | None
    pool: tuple[Tensor, Tensor] | None
    max_batch: int | None


LOOKAHEADS = (None, "momentum", "gradient")


def iterate(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    loss: str = "cross_entropy",
    norm: str = "linf",
    decay: float = 0.0,
    lookahead: str | None = None,
    kernel_size: int = 0,
    transforms: Sequence[Transform] = (),
    rule: Rule = plain,
    targeted: bool = False,
    true_labels: Tensor | None = None,
    seeds: Tensor | None = None,
    pool: tuple[Tensor, Tensor] | None = None,
    max_batch: int | None = None,
    **schedule: Unpack[Schedule.Keys],
) -> Tensor:
    """Walk up the loss of the source model inside a ball around each image.

    With L the loss, T the transforms, W the kernel, mu the decay and a the step size,

        g_t     = mean over copies of W * grad_x L(f(T(p_t))),  p_t = x_t, or ahead of it
        m_t     = mu * m_{t-1} + g_t / mean|g_t|
        x_{t+1} = project(x_t + a * sign(m_t))

    and for `norm=l2` m_t over its root mean square in the sign's place. A budget's images are
    computed together with those of the other budgets, at most `max_batch` at a time. As long as
    all budgets stand at the clean image they share the gradient.

    Args:
        model: Maps images to logits; see `Model`. A module is attacked in evaluation mode, and left
            in the mode that it was in.
        images: Clean images in [0, 1], shape (N, 3, H, W).
        labels: True classes, shape (N,); with `targeted`, the classes to reach.
        eps: One budget in [0, 1] units; K of them; or K for each image, (K, N). Among these any
            may be smaller than a step of fixed length.
        loss: `cross_entropy`, `logit`, `margin` or `dlr`.
        norm: `linf` or `l2`, whose radius is eps * sqrt(D), see `project`.
        decay: mu, of the momentum; 0: none.
        lookahead: Where the gradient is taken: None, at x_t; `momentum`, at
            x_t + a * mu * m_{t-1}; `gradient`, at x_t + a * g_{t-1} / mean|g_{t-1}|.
        kernel_size: Side of the Gaussian that gradients are smoothed with; 0: none.
        transforms: Applied to the images in this order; their numbers of copies multiply.
        rule: How a step's gradient is made of slopes, instead of the one slope at p_t.
        targeted: Walk towards `labels` instead of away.
        true_labels: The true classes where `labels` are others; images of another class are
            mixed in.
        seeds: One number an image, shape (N,), that decides what the image draws; None: 0, 1, ...
        pool: Images to mix in and their classes, (P, 3, H, W) and (P,); None: the batch itself.
        max_batch: Most images in one gradient batch; None: no limit.
        **schedule: `steps`, `step_size_255` or `relative_step_size`, `allow_overshoot`,
            `random_start`, `start_radius` and `restarts`; see `Schedule`.

    Returns:
        Adversarial images in [0, 1], detached: of the images' shape for one budget, else of shape
        (K, N, 3, H, W).

    Raises:
        ValueError: A setting has no meaning, or a budget or a pixel lies outside [0, 1].

    Reference:
        Dong et al.: Boosting Adversarial Attacks with Momentum (2018), arXiv 1710.06081,
        algorithm 1. The gradient is divided by its mean size rather than by its L1 norm, as in
        the authors' code; that matters for `lookahead` alone.
    """
    plan = Schedule(**schedule)
    check_choice("attack.loss", loss, LOSSES)
    check_choice("attack.lookahead", lookahead, LOOKAHEADS)
    check_number("attack.decay", decay, 0, math.inf)
    check_kernel(kernel_size)
    if max_batch is not None:
        check_whole_number("max_batch", max_batch, 1)
    changes = tuple(transforms or ())
    for transform in changes:
        if not callable(transform) or not hasattr(transform, "copies"):
            raise ValueError(f"attack.transforms holds {transform}, which is no transform.")
    check_pixels(images)
    budgets = as_budgets(eps, images)
    own = budgets.ndim == 2  # each image has its own
    flat = budgets[..., None, None, None] if own else budgets.reshape(-1, 1, 1, 1, 1)
    plan.check(math.inf if own else float(flat.max() * 255), norm)
    walk = _Walk(model, LOSSES[loss], norm, decay, lookahead, kernel_size, changes, rule, targeted)
    seeds = torch.arange(len(images)) if seeds is None else seeds
    pool = (images, labels) if pool is None else pool
    limit = len(flat) * len(images) if max_batch is None else max_batch
    result = images.new_empty((len(flat), *images.shape))
    rows = min(len(flat), limit)
    columns = max(1, limit // rows)
    if plan.steps == 1 and plan.random_start is None and rule is plain:
        rows, columns = len(flat), limit  # one gradient serves all budgets
    others_than = labels if true_labels is None else true_labels
    with evaluation_mode(model):
        for first in range(0, len(flat), rows):
            for left in range(0, len(images), columns):
                part = slice(left, left + columns)
                draws = Draws(seeds[part], images, others_than[part], pool)
                sizes = flat[first : first + rows, part if own else slice(None)]
                result[first : first + rows, part] = walk.best(
                    plan, images[part], labels[part], sizes, draws
                )
    return result.reshape(budgets.shape[:1] + images.shape)


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each of its parts back as it was."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    # Frozen TorchScript has no mode.
    training = [module for module in modules if getattr(module, "training", False)]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_kernel(size: int) -> None:
    """Refuse a kernel without a middle."""
    check_whole_number("attack.kernel_size", size, 0)
    if size and size % 2 == 0:
        raise ValueError(f"attack.kernel_size must be odd, or 0 for none, not {size}.")


@dataclass(frozen=True)
class _Walk:
    """The loop, with everything that does not change from step to step."""

    model: Model
    loss: Loss
    norm: str
    decay: float
    lookahead: str | None
    kernel_size: int
    transforms: tuple[Transform, ...]
    rule: Rule
    targeted: bool
    copies: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "copies", math.prod(t.copies for t in self.transforms))

    def best(
        self, plan: Schedule, images: Tensor, labels: Tensor, eps: Tensor, draws: Draws
    ) -> Tensor:
        """Return the result of the restart with the highest loss, image by image."""
        best = self.once(plan, images, labels, eps, draws)
        if plan.restarts == 1:
            return best
        highest = self.height(best, labels)
        for _ in range(plan.restarts - 1):
            result = self.once(plan, images, labels, eps, draws)
            height = self.height(result, labels)
            better = height > highest
            best = torch.where(better[..., None, None, None], result, best)
            highest = torch.where(better, height, highest)
        return best

    def once(
        self, plan: Schedule, images: Tensor, labels: Tensor, eps: Tensor, draws: Draws
    ) -> Tensor:
        """Return where one walk ends, shape (K, N, 3, H, W)."""
        adversarial = plan.start(images.expand(len(eps), *images.shape), eps, self.norm, draws)
        state = State(adversarial, adversarial, eps, plan.step_size(eps), draws)
        momentum: Tensor | float = 0.0
        for step in range(plan.steps):
            state.last = step == plan.steps - 1
            state.here = adversarial
            state.point = adversarial if step == 0 else self._ahead(adversarial, momentum, state)
            gradient = self.rule(lambda point: self.slope(point, labels, draws), state)
            state.previous = gradient / _mean_size(gradient)
            momentum = self.decay * momentum + state.previous
            moved = adversarial + state.step * direction(momentum, self.norm)
            adversarial = project(moved, images, eps, self.norm)
        return adversarial

    def _ahead(self, adversarial: Tensor, momentum: Tensor | float, state: State) -> Tensor:
        if self.lookahead == "momentum":
            return adversarial + state.step * self.decay * momentum
        if self.lookahead == "gradient":
            return adversarial + state.step * state.previous
        return adversarial

    def slope(self, point: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """Return the smoothed gradient at a point, averaged over the copies."""
        here = point[:1] if point.stride(0) == 0 else point  # all budgets at the same place
        total: Tensor | float = 0.0
        for copy in range(self.copies):
            total = total + self._gradient(here, labels, draws, copy)
        assert isinstance(total, Tensor)
        return smooth(total / self.copies, self.kernel_size).expand_as(point)

    def _gradient(self, point: Tensor, labels: Tensor, draws: Draws, copy: int) -> Tensor:
        with torch.enable_grad():
            variable = point.detach().requires_grad_()
            seen: Tensor = variable
            for transform in self.transforms:
                copy, own = divmod(copy, transform.copies)
                seen = transform(seen, draws, own)
            # Summed, not averaged: an image's gradient must not depend on its batch.
            loss = self._losses(seen, labels).sum()
            (gradient,) = torch.autograd.grad(loss, variable)
        return gradient

    def height(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (K, N)."""
        with torch.no_grad():
            return self._losses(images, labels)

    def _losses(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.model(images.flatten(0, 1))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # of half precision
        classes = labels.repeat(len(images))
        losses = self.loss(logits, classes.expand(logits.shape[:-1]), self.targeted)
        if losses.ndim == 2:  # of several models
            losses = losses.mean(dim=0)
        return losses.reshape(images.shape[:2])


def _mean_size(gradient: Tensor) -> Tensor:
    """Return the mean absolute value of each image's gradient, never 0."""
    size = gradient.abs().mean(dim=(-3, -2, -1), keepdim=True)
    return size.clamp_min(torch.finfo(size.dtype).tiny)
