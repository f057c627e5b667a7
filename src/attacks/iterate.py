"""The iterations that all attacks have in common, and the settings in which they differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.attacks.gradients import Estimator, State, single_gradient
from src.attacks.losses import LOSSES
from src.attacks.objective import Model, Objective, Transform, evaluation_mode
from src.attacks.per_image_random import PerImageRandom
from src.attacks.projection import as_budgets, check_pixels, direction, project
from src.attacks.schedule import Schedule
from src.utils.checks import check_choice, check_number, check_whole_number

LOOKAHEADS = (None, "momentum", "gradient")


def iterate(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    loss: str = "cross_entropy",
    norm: str = "linf",
    steps: int = 10,
    step_size_255: float | None = None,
    relative_step_size: float | None = None,
    allow_overshoot: bool = False,
    random_start: str | None = None,
    start_radius: float = 1.0,
    restarts: int = 1,
    decay: float = 0.0,
    lookahead: str | None = None,
    kernel_size: int = 0,
    transforms: Sequence[Transform] = (),
    estimator: Estimator = single_gradient,
    targeted: bool = False,
    true_labels: Tensor | None = None,
    seeds: Tensor | None = None,
    pool: tuple[Tensor, Tensor] | None = None,
    max_batch: int | None = None,
) -> Tensor:
    """Maximise the loss of the source model inside a ball around each image.

    With L the loss, T the transforms, W the kernel, mu the decay and a the step size,

        g_t     = mean over copies of W * grad_x L(f(T(p_t))),  p_t = x_t, or ahead of it
        m_t     = mu * m_{t-1} + g_t / mean|g_t|
        x_{t+1} = project(x_t + a * sign(m_t))

    and for `norm=l2` m_t over its root mean square in the sign's place. A budget's images are
    computed together with those of the other budgets, at most `max_batch` at a time. As long as
    all budgets are at the clean image they share the gradient.

    Args:
        model: Maps images to logits; see `Model`. A module is attacked in evaluation mode, and left
            in the mode that it was in.
        images: Clean images in [0, 1], shape (N, 3, H, W).
        labels: True classes, shape (N,); with `targeted`, the classes to reach.
        eps: One budget in [0, 1] units; K of them; or K for each image, (K, N). Among these any
            may be smaller than a step of fixed length.
        loss: `cross_entropy`, `logit`, `margin` or `dlr`.
        norm: `linf` or `l2`, whose radius is eps * sqrt(D), see `project`.
        steps: Number of gradient steps.
        step_size_255: Length of a step in units of 1/255, the same for every budget.
        relative_step_size: Length of a step as a share of the budget; with neither, a step is
            budget / steps, so that all steps in one direction just reach the border of the ball.
        allow_overshoot: Allow steps longer than the largest budget, which leave the ball at once.
        random_start: None: at the clean image; `uniform`: anywhere in the ball; `sign`: at the
            clean image plus or minus the radius in every value.
        start_radius: Of the random start, as a share of the budget.
        restarts: How often all steps are made; each image keeps the result of the highest loss.
        decay: mu, of the momentum; 0: none.
        lookahead: Where the gradient is taken: None, at x_t; `momentum`, at
            x_t + a * mu * m_{t-1}; `gradient`, at x_t + a * g_{t-1} / mean|g_{t-1}|.
        kernel_size: Side of the Gaussian that gradients are smoothed with; 0: none.
        transforms: Applied to the images in this order; their numbers of copies multiply.
        estimator: How g_t is made of gradients, instead of the one gradient at p_t.
        targeted: Minimise the loss of `labels` instead.
        true_labels: The true classes where `labels` are others; images of another class are
            mixed in.
        seeds: One number an image, shape (N,), that decides what is random; None: 0, 1, ...
        pool: Images to mix in and their classes, (P, 3, H, W) and (P,); None: the batch itself.
        max_batch: Most images in one gradient batch; None: no limit.

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
    schedule = Schedule(
        steps,
        step_size_255,
        relative_step_size,
        allow_overshoot,
        random_start,
        start_radius,
        restarts,
    )
    check_choice("attack.loss", loss, LOSSES)
    check_choice("attack.lookahead", lookahead, LOOKAHEADS)
    check_number("attack.decay", decay, 0, math.inf)
    _check_kernel(kernel_size)
    _check_transforms(transforms := tuple(transforms or ()))
    if max_batch is not None:
        check_whole_number("max_batch", max_batch, 1)
    check_pixels(images)
    budgets = as_budgets(eps, images)
    own = budgets.ndim == 2  # each image has its own
    flat = budgets[..., None, None, None] if own else budgets.reshape(-1, 1, 1, 1, 1)
    schedule.check(math.inf if own else float(flat.max() * 255), norm)
    objective = Objective(model, LOSSES[loss], targeted, transforms, kernel_size)
    ascent = _Ascent(objective, schedule, norm, decay, lookahead, estimator)
    seeds = torch.arange(len(images)) if seeds is None else seeds
    pool = (images, labels) if pool is None else pool
    limit = len(flat) * len(images) if max_batch is None else max_batch
    rows = min(len(flat), limit)
    columns = max(1, limit // rows)
    if steps == 1 and random_start is None and estimator is single_gradient:
        rows, columns = len(flat), limit  # one gradient serves all budgets
    others_than = labels if true_labels is None else true_labels
    result = images.new_empty((len(flat), *images.shape))
    with evaluation_mode(model):
        for first in range(0, len(flat), rows):
            for left in range(0, len(images), columns):
                part = slice(left, left + columns)
                random = PerImageRandom(seeds[part], images, others_than[part], pool)
                sizes = flat[first : first + rows, part if own else slice(None)]
                result[first : first + rows, part] = ascent.best(
                    images[part], labels[part], sizes, random
                )
    return result.reshape(budgets.shape[:1] + images.shape)


def _check_kernel(size: int) -> None:
    check_whole_number("attack.kernel_size", size, 0)
    if size and size % 2 == 0:
        raise ValueError(f"attack.kernel_size must be odd, or 0 for none, not {size}.")


def _check_transforms(transforms: Sequence[Transform]) -> None:
    for transform in transforms:
        if not callable(transform) or not hasattr(transform, "copies"):
            raise ValueError(f"attack.transforms holds {transform}, which is no transform.")


@dataclass(frozen=True)
class _Ascent:
    """Projected gradient ascent, for images whose iterations are computed together."""

    objective: Objective
    schedule: Schedule
    norm: str
    decay: float
    lookahead: str | None
    estimator: Estimator

    def best(self, images: Tensor, labels: Tensor, eps: Tensor, random: PerImageRandom) -> Tensor:
        """Return the result of the restart with the highest loss, image by image."""
        best = self.once(images, labels, eps, random)
        if self.schedule.restarts == 1:
            return best
        with torch.no_grad():
            highest = self.objective.losses(best, labels)
        for _ in range(self.schedule.restarts - 1):
            result = self.once(images, labels, eps, random)
            with torch.no_grad():
                losses = self.objective.losses(result, labels)
            better = losses > highest
            best = torch.where(better[..., None, None, None], result, best)
            highest = torch.where(better, losses, highest)
        return best

    def once(self, images: Tensor, labels: Tensor, eps: Tensor, random: PerImageRandom) -> Tensor:
        """Return the last iterate, shape (K, N, 3, H, W)."""
        x = self.schedule.start(images.expand(len(eps), *images.shape), eps, self.norm, random)
        state = State(x, x, eps, self.schedule.step_size(eps), random)
        momentum: Tensor | float = 0.0
        for step in range(self.schedule.steps):
            state.is_last_step = step == self.schedule.steps - 1
            state.iterate = x
            state.at = x if step == 0 else self._ahead(momentum, state)
            gradient = self.estimator(lambda at: self.objective.gradient(at, labels, random), state)
            state.last_gradient = gradient / _mean_size(gradient)
            momentum = self.decay * momentum + state.last_gradient
            moved = x + state.step_size * direction(momentum, self.norm)
            x = project(moved, images, eps, self.norm)
        return x

    def _ahead(self, momentum: Tensor | float, state: State) -> Tensor:
        if self.lookahead == "momentum":
            return state.iterate + state.step_size * self.decay * momentum
        if self.lookahead == "gradient":
            return state.iterate + state.step_size * state.last_gradient
        return state.iterate


def _mean_size(gradient: Tensor) -> Tensor:
    """Return the mean absolute value of each image's gradient, never 0."""
    size = gradient.abs().mean(dim=(-3, -2, -1), keepdim=True)
    return size.clamp_min(torch.finfo(size.dtype).tiny)
