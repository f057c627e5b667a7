"""Gradient ascent inside a ball around each image: the loop of all attacks."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..utils.refusals import warn_once
from .landscape import Landscape, evaluation_mode
from .parts import Problem, State, stateful, take_step
from .per_image_random import PerImageRandom
from .projection import Budgets, check_budgets, check_numbers, direction, mean_size, project
from .settings import Settings
from .source import Model, Source, announce, apply_backward_rule, module_of


def ascend(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: Budgets,
    settings: Settings,
    *,
    targeted: bool = False,
    true_labels: Tensor | None = None,
    seeds: Tensor | None = None,
    pool: tuple[Tensor, Tensor] | None = None,
    max_batch: int | None = None,
) -> Tensor:
    """Maximise the loss of the source model inside a ball around each image.

    With loss L, transforms T, kernel W, decay mu and step size a,

        g_t     = mean over copies of W * grad_x L(f(T(p_t))),  p_t = x_t, or ahead of it
        m_t     = mu * m_{t-1} + g_t / mean|g_t|
        x_{t+1} = project(x_t + a * sign(m_t))

    With `norm=l2`, m_t divided by its root mean square replaces the sign; with `step_rule=mdcs`,
    `DecayingSteps` replaces the step. While all budgets are still at the clean image, they share
    one gradient. NaN and infinity in a gradient count as 0.

    Args:
        model: Function from images to logits; see `Model`. A module is in evaluation mode during
            the attack.
        images: Clean images in [0, 1], shape (N, 3, H, W).
        labels: True classes, shape (N,); with `targeted`, the classes to reach.
        eps: Budgets in [0, 1] units; see `Budgets`.
        settings: Settings of the attack.
        targeted: Minimise the loss of `labels` instead.
        true_labels: True classes if `labels` are target labels; images to mix in have other
            classes than these.
        seeds: Seed of each image's random numbers, whole numbers of shape (N,); None: 0, 1, ...
        pool: Images to mix in and their classes, (P, 3, H, W) and (P,); None: the batch itself.
        max_batch: Largest number of images in a gradient batch; None: no limit.

    Returns:
        Adversarial images in [0, 1], detached: shaped like `images` for one budget, otherwise
        (K, N, 3, H, W).

    Raises:
        ValueError: A budget or a pixel is outside [0, 1], or there is not one label and one seed
            per image.

    Reference: Dong et al. (2018), arXiv 1710.06081. As in the authors' code, the gradient is
    divided by its mean absolute value instead of its L1 norm; this matters for `lookahead` only.
    """
    budgets = check_budgets(eps, images).detach()
    images = images.detach()
    _warn_of_kernel(settings.kernel_size, min(images.shape[-2:]))
    per_image = budgets.ndim == 2
    flat = budgets[..., None, None, None] if per_image else budgets.reshape(-1, 1, 1, 1, 1)
    labels = check_numbers("labels", labels, images)
    seeds = check_numbers("seeds", torch.arange(len(images)) if seeds is None else seeds, images)
    classes = labels if true_labels is None else check_numbers("true_labels", true_labels, images)
    pool = (images, labels) if pool is None else pool
    result = images.new_empty((len(flat), *images.shape))
    with evaluation_mode(model):
        rule, changed = settings.backward_rule, model
        if rule is not None:
            changed = apply_backward_rule(module_of(model, "attack.backward_rule"), rule)
        source = Source(changed, settings.layer)
        for rows, part in _split(len(flat), len(images), max_batch, settings):
            announce(model, part)
            random = PerImageRandom(seeds[part], images, classes[part], pool)
            radii = flat[rows, part if per_image else slice(None)]
            batch = (images[part], labels[part], targeted, random, radii, settings.norm)
            problem = Problem(source, *batch)
            result[rows, part] = _best_restart(Landscape(problem, settings))
    return result.reshape(*budgets.shape[:1], *images.shape)


def _warn_of_kernel(size: int, side: int) -> None:
    if size > side / 4:
        warn_once(
            f"attack.kernel_size={size} is more than a quarter of these images' side of "
            f"{side} pixels; published kernels are for 299 pixels. "
            f"In proportion: attack.kernel_size={max(3, side // 40 * 2 + 1)}."
        )


def _split(
    budgets: int, images: int, limit: int | None, settings: Settings
) -> Iterator[tuple[slice, slice]]:
    """Yield slices of budgets and of images, for at most `limit` gradients at a time."""
    if limit is not None and limit < 1:
        raise ValueError(f"max_batch must be at least 1, not {limit}.")
    limit = max(1, limit // settings.passes_per_gradient if limit else budgets * images)
    rows = min(budgets, limit)
    columns = max(1, limit // rows)
    if settings.one_gradient:  # shared by all budgets
        rows, columns = budgets, limit
    for first in range(0, budgets, rows):
        for left in range(0, images, columns):
            yield slice(first, first + rows), slice(left, left + columns)


def _best_restart(landscape: Landscape) -> Tensor:
    """Return each image's result of the restart that ends with the highest loss."""
    best = last_iterate(landscape)
    for _ in range(landscape.settings.restarts - 1):
        other = last_iterate(landscape)
        highest, losses = landscape.values(best, other)
        best = torch.where((losses > highest)[..., None, None, None], other, best)
    return best


def last_iterate(landscape: Landscape) -> Tensor:
    """Run the loop once and return its last iterate, or the best, (K, N, 3, H, W)."""
    settings, problem, random = landscape.settings, landscape.problem, landscape.problem.random
    eps, images = problem.eps, problem.images
    images = images.expand(len(eps), *problem.images.shape)
    start = _start(settings, images, eps, random)
    size = settings.step_size(eps)
    best, highest = images, images.new_full(images.shape[:2], -torch.inf)
    momentum: Tensor | float = 0.0
    last_gradient: Tensor | float
    estimator, update = stateful(settings.estimator), stateful(settings.chosen_update)
    for step in range(-settings.warm_up_steps, settings.steps):
        if step in (-settings.warm_up_steps, 0):  # the warm-up leaves its momentum only
            x, last_gradient = start, 0.0
            memory, update_memory = estimator.init(problem), update.init(problem)
        step_size = size * settings.warm_up_scale if step < 0 else size
        at = x
        if not isinstance(momentum, float):
            at = _ahead(settings, x, step_size, momentum, last_gradient)
        state = State(
            images=images,
            iterate=x,
            at=at,
            eps=eps,
            step_size=step_size,
            norm=settings.norm,
            random=random,
            source=problem.source,
            steps=settings.steps,
            step=step,
            is_last_step=step == settings.steps - 1,
            last_gradient=last_gradient,
        )
        gradient, memory = take_step(estimator, landscape.gradient, state, memory)
        last_gradient = gradient / mean_size(gradient)
        momentum = settings.decay * momentum + (last_gradient if settings.normalised else gradient)
        change, update_memory = take_step(update, momentum, state, update_memory)
        x = project(x + change, images, eps, settings.norm)
        if settings.keep_best and step >= 0:
            (losses,) = landscape.values(x)
            best = torch.where((losses > highest)[..., None, None, None], x, best)
            highest = torch.maximum(highest, losses)
    return best if settings.keep_best else x


def _start(settings: Settings, images: Tensor, eps: Tensor, random: PerImageRandom) -> Tensor:
    if settings.random_start is None:
        return images
    shape = images.shape[2:]
    if settings.norm == "l2":  # uniform in the ball: random direction, length of density r^(D - 1)
        length = random.uniform(1, 1, 1) ** (1 / math.prod(shape))
        noise = direction(random.normal(*shape), "l2") * length
    elif settings.random_start == "sign":
        noise = random.normal(*shape).sign()
    else:
        noise = random.uniform(*shape, low=-1.0, high=1.0)
    moved = images + eps * settings.start_radius * noise
    return project(moved, images, eps, settings.norm)


def _ahead(
    settings: Settings, x: Tensor, step_size: Tensor, momentum: Tensor, last: Tensor | float
) -> Tensor:
    if settings.lookahead == "momentum":
        return x + step_size * settings.decay * momentum
    if settings.lookahead == "gradient":
        return x + step_size * last
    return x
